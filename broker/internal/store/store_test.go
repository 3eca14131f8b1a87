package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/broker/internal/store"
	"pinseal/internal/boltfile/disktest"
)

func buckets() []string { return []string{"a", "b"} }

func open(tb testing.TB, change func(*store.Config)) (*store.Store, string) {
	tb.Helper()
	cfg := store.Config{Path: filepath.Join(tb.TempDir(), "x.db"), Buckets: buckets(), Sync: true}
	if change != nil {
		change(&cfg)
	}
	s, err := store.Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s, cfg.Path
}

func closeStore(tb testing.TB, s *store.Store) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

// wait returns what After says.
func wait(s *store.Store, m store.Mark) error {
	told := make(chan error, 1)
	s.After(m, func(err error) { told <- err })
	return <-told
}

// content is all that a file holds, "bucket key=value" in a line each.
func content(path string) (string, error) {
	s, err := store.Open(store.Config{Path: path, Buckets: buckets(), Sync: true})
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, bucket := range buckets() {
		err = errors.Join(err, s.Read(bucket, func(key string, value []byte) error {
			fmt.Fprintf(&all, "%s %s=%s\n", bucket, key, value)
			return nil
		}))
	}
	return all.String(), errors.Join(err, s.Close())
}

func wantContent(tb testing.TB, path, want string) {
	tb.Helper()
	if got, err := content(path); got != want || err != nil {
		tb.Errorf("the file holds %q, %v, want %q", got, err, want)
	}
}

func TestKeepsWhatWasPut(t *testing.T) {
	s, path := open(t, nil)
	s.Put("a", "1", []byte("one"), false)
	s.Put("b", "1", []byte(""), true)
	s.Put("a", "2", []byte("two"), false)
	m := s.Put("a", "1", []byte("uno"), false)
	if s.Durable(m) {
		t.Error("it is on disk before anyone waits")
	}
	if err := wait(s, m); err != nil || !s.Durable(m) || s.Latest() != m {
		t.Errorf("waiting: %v, durable %v", err, s.Durable(m))
	}
	s.Delete("a", "2")
	closeStore(t, s) // writes what nobody waits for
	wantContent(t, path, "a 1=uno\nb 1=\n")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// What was on disk before anyone was told is there after a crash: the file as it is at that moment.
func TestDurableMeansOnDisk(t *testing.T) {
	s, path := open(t, nil)
	defer closeStore(t, s)
	for n := range 50 {
		if err := wait(s, s.Put("a", fmt.Sprintf("%02d", n), []byte("v"), true)); err != nil {
			t.Fatal(err)
		}
		crashed := filepath.Join(t.TempDir(), "x.db")
		data, err := os.ReadFile(path)
		if err := errors.Join(err, os.WriteFile(crashed, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		if got, err := content(crashed); err != nil || strings.Count(got, "\n") != n+1 {
			t.Fatalf("after %d: %q, %v", n+1, got, err)
		}
	}
}

func TestManyShareCommits(t *testing.T) {
	s, path := open(t, nil)
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			for n := range 20 {
				if err := wait(s, s.Put("a", fmt.Sprintf("%02d %02d", g, n), []byte("v"), true)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if m := s.Latest(); m > 300 {
		t.Errorf("400 changes took %d commits", m)
	}
	closeStore(t, s)
	if got, err := content(path); err != nil || strings.Count(got, "\n") != 400 {
		t.Errorf("%d of 400 are there, %v", strings.Count(got, "\n"), err)
	}
}

// What belongs together comes into one commit, though others want theirs meanwhile.
func TestTogether(t *testing.T) {
	s, _ := open(t, nil)
	var others sync.WaitGroup
	for n := range 100 {
		s.Begin()
		first := s.Put("a", fmt.Sprint(n), []byte("1"), false)
		others.Add(1)
		s.After(first, func(err error) {
			if err != nil {
				t.Error(err)
			}
			others.Done()
		})
		runtime.Gosched()
		if second := s.Put("b", fmt.Sprint(n), []byte("2"), false); second != first {
			t.Errorf("%d: the marks are %d and %d", n, first, second)
		}
		s.End()
	}
	others.Wait()
	closeStore(t, s)
}

func TestFreshAndGoneIsNotWritten(t *testing.T) {
	s, path := open(t, nil)
	before := read(t, path)
	for n := range 10 {
		s.Put("a", fmt.Sprint(n), []byte("v"), true)
		s.Delete("a", fmt.Sprint(n))
	}
	if err := wait(s, s.Latest()); err != nil {
		t.Error(err)
	}
	closeStore(t, s)
	if !bytes.Equal(before, read(t, path)) {
		t.Error("the file was written to")
	}
}

// An hour in which nothing changes costs no byte; a change that nobody waits for is written after the delay.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := open(t, nil)
		before := read(t, path)
		time.Sleep(time.Hour)
		if !bytes.Equal(before, read(t, path)) {
			t.Error("the file was written to")
		}
		s.Put("a", "1", []byte("v"), true)
		time.Sleep(store.DefaultDelay - time.Millisecond)
		synctest.Wait()
		if !bytes.Equal(before, read(t, path)) {
			t.Error("the file was written to before the delay was over")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		written := read(t, path)
		if bytes.Equal(before, written) {
			t.Error("the file was not written to")
		}
		time.Sleep(time.Hour)
		if !bytes.Equal(written, read(t, path)) {
			t.Error("it was written to again")
		}
		closeStore(t, s)
	})
}

func TestWithoutSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := open(t, func(c *store.Config) { c.Sync, c.Delay = false, time.Minute })
		before := read(t, path)
		m := s.Put("a", "1", []byte("v"), true)
		if err := wait(s, m); err != nil || !s.Durable(m) {
			t.Errorf("somebody has to wait: %v", err)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if !bytes.Equal(before, read(t, path)) {
			t.Error("it was written before its time")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if bytes.Equal(before, read(t, path)) {
			t.Error("it was not written")
		}
		closeStore(t, s)
	})
}

func read(tb testing.TB, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// Those who wait are told. What stays noted is written when there is room again, and what was taken back is not.
func TestFullDisk(t *testing.T) {
	d := &disktest.Disk{}
	failed := make(chan error, 10)
	s, path := open(t, func(c *store.Config) {
		c.OpenFile = d.Open
		c.Failed = func(err error) { failed <- err }
	})
	if err := wait(s, s.Put("a", "before", []byte("v"), true)); err != nil {
		t.Fatal(err)
	}
	d.Fill(t)
	for _, key := range []string{"kept", "taken back"} {
		m := s.Put("a", key, []byte("v"), true)
		if err := wait(s, m); !errors.Is(err, syscall.ENOSPC) || s.Durable(m) {
			t.Errorf("%s: %v", key, err)
		}
	}
	s.Delete("a", "taken back")
	if err := <-failed; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Failed was told %v", err)
	}
	d.MakeRoom()
	if err := <-failed; err != nil { // without anyone who asks
		t.Errorf("Failed was told %v", err)
	}
	if err := wait(s, s.Put("a", "after", []byte("v"), true)); err != nil {
		t.Error(err)
	}
	closeStore(t, s)
	wantContent(t, path, "a after=v\na before=v\na kept=v\n")
}

func TestCloseTellsWhatIsLost(t *testing.T) {
	d := &disktest.Disk{}
	s, path := open(t, func(c *store.Config) { c.OpenFile = d.Open })
	d.Fill(t)
	s.Put("a", "lost", []byte("v"), true)
	if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
	wantContent(t, path, "")
}

func TestInUse(t *testing.T) {
	s, path := open(t, nil)
	defer closeStore(t, s)
	if _, err := content(path); !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
}

// Whatever byte is wrong, the file is refused, or it holds what it held.
func TestDamage(t *testing.T) {
	s, path := open(t, nil)
	for n := range 100 {
		s.Put("ab"[n%2:n%2+1], fmt.Sprintf("key %03d", n), bytes.Repeat([]byte{byte('a' + n%26)}, 100), false)
	}
	closeStore(t, s)
	good := read(t, path)
	want, err := content(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	try := func(what string, data []byte) {
		t.Helper()
		damaged := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(damaged, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := content(damaged)
		switch {
		case errors.Is(err, store.ErrDamaged) && strings.Contains(err.Error(), damaged):
			refused++
		case err != nil && !strings.Contains(err.Error(), "format version"):
			t.Errorf("%s: %v", what, err)
		case err == nil && got != want:
			// bbolt goes back to the state before where a meta page is torn.
			if got != "" {
				t.Errorf("%s: it holds something else", what)
			}
		}
	}
	for range 400 {
		at := rand.IntN(len(good))
		bad := bytes.Clone(good)
		bad[at] ^= 1 << rand.IntN(8)
		try(fmt.Sprintf("byte %d of %d", at, len(good)), bad)
	}
	for cut := 0; cut < len(good); cut += 1000 {
		try(fmt.Sprintf("cut at %d", cut), good[:cut])
	}
	try("something else", bytes.Repeat([]byte("x"), 10000))
	if refused < 50 {
		t.Errorf("%d were refused", refused)
	}
}

// What a backlog took that is gone is given back at the next start.
func TestFileShrinks(t *testing.T) {
	s, path := open(t, nil)
	for n := range 300 {
		s.Put("a", fmt.Sprint(n), make([]byte, 8<<10), true)
	}
	s.Put("b", "k", []byte("v"), true)
	closeStore(t, s)
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	again := func(c *store.Config) { c.Path = path }
	before := size()
	s, _ = open(t, again)
	for n := range 300 {
		s.Delete("a", fmt.Sprint(n))
	}
	closeStore(t, s)
	if n := size(); n < before {
		t.Fatalf("%d bytes, and %d before: bbolt does it by itself now", n, before)
	}
	s, _ = open(t, again)
	if n := size(); n > before/4 {
		t.Errorf("%d bytes, and %d before", n, before)
	}
	if err := wait(s, s.Put("b", "k2", []byte("v"), true)); err != nil {
		t.Error(err)
	}
	closeStore(t, s)
	wantContent(t, path, "b k=v\nb k2=v\n")
}
