package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pinseal/broker/auth"
)

const timeout = 10 * time.Second // for what should happen at once

func parse(tb testing.TB, text string) *auth.PasswordFile {
	tb.Helper()
	f, err := auth.ParsePasswordFile("file", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func check(tb testing.TB, p *auth.Passwords, user, password string) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	_, err := p.Check(ctx, netip.Addr{}, user, []byte(password))
	return err
}

// mosquittoPasswd runs mosquitto_passwd on the file.
func mosquittoPasswd(tb testing.TB, args ...string) {
	tb.Helper()
	if out, err := exec.CommandContext(tb.Context(), "mosquitto_passwd", args...).CombinedOutput(); err != nil {
		tb.Fatalf("mosquitto_passwd %q: %v: %s", args, err, out)
	}
}

func TestFileOfMosquitto(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	long := strings.Repeat("ä", 500)
	mosquittoPasswd(t, "-c", "-b", path, "alice", "secret")
	mosquittoPasswd(t, "-H", "sha512", "-b", path, "bob", "geheim")
	mosquittoPasswd(t, "-b", path, "carol", long)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"alice:$7$101$", "bob:$6$"} {
		if !strings.Contains(string(text), kind) {
			t.Errorf("mosquitto_passwd did not write %s", kind)
		}
	}
	text = auth.SetPassword(text, "dave", auth.NewHash([]byte("argon")))
	p := auth.NewPasswords(parse(t, string(text)))
	for _, tc := range []struct {
		user, password string
		ok             bool
	}{
		{"alice", "secret", true},
		{"bob", "geheim", true},
		{"carol", long, true},
		{"dave", "argon", true},
		{"alice", "Secret", false},
		{"alice", "", false},
		{"bob", "geheim\x00", false},
		{"bob", "secret", false},
		{"carol", long[:len(long)-2], false},
		{"dave", "argon ", false},
		{"nobody", "secret", false},
		{"", "", false},
		{"Alice", "secret", false},
	} {
		if err := check(t, p, tc.user, tc.password); tc.ok && err != nil || !tc.ok && !errors.Is(err, auth.ErrPassword) {
			t.Errorf("%s with %.20q: %v, want ok %v", tc.user, tc.password, err, tc.ok)
		}
	}
}

func TestNewHashesDiffer(t *testing.T) {
	if a, b := auth.NewHash([]byte("x")), auth.NewHash([]byte("x")); a == b || !strings.HasPrefix(a, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("%s and %s", a, b)
	}
}

func TestPasswordFileMistakes(t *testing.T) {
	good := auth.NewHash([]byte("x"))
	sum, salt := strings.Repeat("A", 86)+"==", "MTIzNDU2Nzg5MDEy"
	for _, tc := range []struct{ name, text, says string }{
		{"empty", "", ""},
		{"comments", "# a\n\n  # b\r\na:" + good + "\r\n", ""},
		{"salted", "a:$6$" + salt + "$" + sum, ""},
		{"no hash", "a", "file:1: user a: the hash is none"},
		{"clear text", "\na:secret", "file:2: user a: the hash is none"},
		{"user", "a b:" + good, `no client can be named "a b"`},
		{"no user", ":" + good, `no client can be named ""`},
		{"twice", "a:" + good + "\nb:" + good + "\na:" + good, "file:3: user a is there twice"},
		{"kind", "a:$5$" + salt + "$" + sum, "the hash is none"},
		{"no salt", "a:$6$$" + sum, "the hash is none"},
		{"short sum", "a:$6$" + salt + "$AAAA", "the hash is none"},
		{"bad base64", "a:$6$" + salt + "$!" + sum[1:], "the hash is none"},
		{"iterations", "a:$7$0$" + salt + "$" + sum, "the hash is none"},
		{"too many iterations", "a:$7$10000001$" + salt + "$" + sum, "the hash is none"},
		{"argon memory", "a:" + strings.Replace(good, "m=19456", "m=4194304", 1), "the hash is none"},
		{"argon without time", "a:" + strings.Replace(good, "t=2", "t=0", 1), "the hash is none"},
		{"argon with a sign", "a:" + strings.Replace(good, "t=2", "t=+2", 1), "the hash is none"},
		{"argon version", "a:" + strings.Replace(good, "v=19", "v=16", 1), "the hash is none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := auth.ParsePasswordFile("file", []byte(tc.text))
			if got := fmt.Sprint(err); tc.says == "" && err != nil || !strings.Contains(got, tc.says) && tc.says != "" {
				t.Errorf("got %q, want %q", got, tc.says)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows what may be a password: %v", err)
			}
		})
	}
}

func TestEdit(t *testing.T) {
	for _, tc := range []struct{ name, before, set, removed string }{
		{"new file", "", "b:H\n", ""},
		{"among others", "# x\na:1\nb:2\nc:3\n", "# x\na:1\nb:H\nc:3\n", "# x\na:1\nc:3\n"},
		{"last without line feed", "a:1", "a:1\nb:H\n", "a:1"},
		{"twice", "b:1\nb:2\n", "b:H\n", ""},
		{"prefix", "bb:1\n", "bb:1\nb:H\n", "bb:1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := auth.SetPassword([]byte(tc.before), "b", "H"); string(got) != tc.set {
				t.Errorf("set: %q, want %q", got, tc.set)
			}
			if got, found := auth.RemoveUser([]byte(tc.before), "b"); string(got) != tc.removed || found != strings.Contains("\n"+tc.before, "\nb:") {
				t.Errorf("removed: %q, %v, want %q", got, found, tc.removed)
			}
		})
	}
}

// A login is good as long as the file has the same hash for the user.
func TestStill(t *testing.T) {
	hash := auth.NewHash([]byte("x"))
	p := auth.NewPasswords(parse(t, "a:"+hash))
	still, err := p.Check(t.Context(), netip.Addr{}, "a", []byte("x"))
	if err != nil || still() != nil {
		t.Fatal(err, still())
	}
	p.Set(parse(t, "b:"+hash+"\na:"+hash))
	if err := still(); err != nil {
		t.Errorf("a file that has the same for the user: %v", err)
	}
	for _, text := range []string{"a:" + auth.NewHash([]byte("x")), "b:" + hash, ""} {
		p.Set(parse(t, text))
		if !errors.Is(still(), auth.ErrPassword) {
			t.Errorf("still good with the file %q", text)
		}
	}
}

// Logins of one address take turns, and who waits can give up.
func TestFloodLeavesRoom(t *testing.T) {
	p := auth.NewPasswords(parse(t, "a:"+auth.NewHash([]byte("x"))))
	flood, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 500 {
		waiting.Go(func() { _, _ = p.Check(ctx, flood, "a", []byte("guess")) })
	}
	begun := time.Now()
	if _, err := p.Check(t.Context(), other, "a", []byte("x")); err != nil {
		t.Error(err)
	}
	alone := time.Since(begun)
	cancel()
	waiting.Wait()
	if all := time.Since(begun); alone > timeout/2 {
		t.Errorf("another address waited %v, all took %v", alone, all)
	}
	if _, err := p.Check(ctx, flood, "a", []byte("x")); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("after the end of its context: %v", err)
	}
	if err := check(t, p, "a", "x"); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

// Who floods from many addresses of one IPv6 network has one turn for all of them.
func TestFloodOfANetworkLeavesRoom(t *testing.T) {
	p := auth.NewPasswords(parse(t, "a:"+auth.NewHash([]byte("x"))))
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	var checked atomic.Int64
	const flood = 400
	for i := range flood {
		address := netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i))
		waiting.Go(func() {
			if _, err := p.Check(ctx, address, "a", []byte("guess")); errors.Is(err, auth.ErrPassword) {
				checked.Add(1)
			}
		})
	}
	for checked.Load() == 0 { // by then the others wait
		runtime.Gosched()
	}
	before := checked.Load()
	if _, err := p.Check(t.Context(), netip.MustParseAddr("10.0.0.2"), "a", []byte("x")); err != nil {
		t.Error(err)
	}
	if overtook := checked.Load() - before; overtook > flood/4 {
		t.Errorf("another address had to wait for %d of the network", overtook)
	}
	cancel()
	waiting.Wait()
}

// An unknown user costs what a known one does: no user name can be found by timing. What counts is processor time, which
// does not depend on who else wants the processors.
func TestUnknownUserTakesAsLong(t *testing.T) {
	p := auth.NewPasswords(parse(t, "a:"+auth.NewHash([]byte("x"))))
	least := func(user string) time.Duration {
		best := time.Hour
		for range 3 {
			begun := processorTime(t)
			_ = check(t, p, user, "wrong") // is refused
			best = min(best, processorTime(t)-begun)
		}
		return best
	}
	if known, unknown := least("a"), least("b"); unknown < known/2 || known < unknown/2 {
		t.Errorf("known user %v, unknown %v", known, unknown)
	}
}

// processorTime is what this process has taken so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func FuzzPasswordFile(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := auth.ParsePasswordFile("file", text)
		if (file == nil) == (err == nil) {
			t.Errorf("%v, %v", file, err)
		}
	})
}

// TestSeeds: a fuzz target whose seeds are gone tests nothing.
func TestSeeds(t *testing.T) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzPasswordFile/*")
	if err != nil || len(seeds) < 3 {
		t.Errorf("%d seeds, %v", len(seeds), err)
	}
}
