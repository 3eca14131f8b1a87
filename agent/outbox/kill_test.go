package outbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/agent/outbox"
	"pinseal/signing"
	"pinseal/signing/replay"
	"pinseal/signing/sequence"
)

const (
	childVariable = "OUTBOX_CHILD"         // the folder in which a child works
	quietVariable = "OUTBOX_QUIET"         // set: it puts nothing
	killsVariable = "PINSEAL_OUTBOX_KILLS" // how many kills; make proof says 200
	fewKills      = 12
	lastWord      = "enough" // to a child: put nothing more
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("fault", err)
		}
		return
	}
	m.Run()
}

// child puts messages one after the other, says "put N" of each that is safe, publishes to standard output, and hears
// answers on standard input, until it is killed or told that it is enough and nothing waits.
func child(dir string) error {
	pem, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	key, err := signing.ParsePrivateKey(pem)
	if err != nil {
		return err
	}
	numbers, err := sequence.Open(filepath.Join(dir, "key.seq"))
	if err != nil {
		return err
	}
	b, err := outbox.Open(filepath.Join(dir, "outbox.db"), outbox.Options{FlushEvery: 20 * time.Millisecond, RetryAfter: 5 * time.Millisecond, Rate: 1e5})
	if err != nil {
		return err
	}
	var out sync.Mutex
	say := func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go b.Run(ctx, func(m outbox.Message, done func(error)) {
		say("pub %s %s", m.Topic, m.Sealed)
		done(nil)
	})
	go func() {
		for n := 0; ctx.Err() == nil && os.Getenv(quietVariable) == ""; n++ {
			number, err := numbers.Next(time.Now())
			if err != nil {
				say("fault %v", err)
				return
			}
			c := signing.Claims{Topic: topics()[n%2], IssuedAt: time.Now(), Sequence: number, Message: strconv.AppendInt(nil, int64(n), 10)}
			sealed, err := signing.Seal(key, c)
			if err == nil {
				err = b.Put(outbox.Message{Topic: c.Topic, Number: number, Sealed: sealed})
			}
			if err != nil {
				say("fault %v", err)
				return
			}
			say("put %d", number)
			time.Sleep(rand.N(500 * time.Microsecond))
		}
	}()
	return hear(b, cancel)
}

func topics() []string { return []string{"telemetry/attic/cpu", "telemetry/attic/door"} }

// hear takes answers: "ok TOPIC N".
func hear(b *outbox.Box, cancel func()) error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 1 && words[0] == lastWord {
			cancel()
			return b.Close()
		}
		number, err := strconv.ParseUint(words[2], 10, 64)
		if err != nil {
			return err
		}
		b.Accepted(words[1], number)
	}
	return nil
}

// world is the receiver: it judges as a node does, forgets some answers, and remembers over the lives of the sender.
type world struct {
	t       *testing.T
	dir     string
	keyring *signing.Keyring
	store   *replay.Store

	mu       sync.Mutex
	safe     map[uint64]bool // put
	accepted map[uint64]int
	last     map[string]uint64 // by topic
	deaf     bool              // answers nothing
}

// TestKilled kills the sender at random moments: nothing that it was told is safe is lost, nothing accepted twice,
// nothing out of order. Between the lives the receiver is away for a while, so that the database is written too.
func TestKilled(t *testing.T) {
	kills := fewKills
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	for n := range kills {
		w.mu.Lock()
		w.deaf = n%3 == 1
		w.mu.Unlock()
		w.life(func() { time.Sleep(20*time.Millisecond + rand.N(150*time.Millisecond)) }, true)
	}
	w.deaf = false
	w.finish()
	w.check()
	t.Logf("%d kills: %d messages put, %d accepted", kills, len(w.safe), len(w.accepted))
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), safe: map[uint64]bool{}, accepted: map[uint64]int{}, last: map[string]uint64{}}
	key := newKey(t)
	if err := os.WriteFile(filepath.Join(w.dir, "key"), key.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.keyring, err = signing.NewKeyring(signing.Signer{Name: "attic", Key: key.Public()}); err != nil {
		t.Fatal(err)
	}
	if w.store, err = replay.Open(filepath.Join(t.TempDir(), "state.db"), replay.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	return w
}

// life is one of the sender: until during returns, then it is killed or told that it is enough.
func (w *world) life(during func(), kill bool) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+w.dir)
	if !kill {
		cmd.Env = append(cmd.Env, quietVariable+"=yes")
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.take(lines.Text(), in)
		}
	}()
	during()
	if kill {
		_ = cmd.Process.Kill()
	} else if _, err := fmt.Fprintln(in, lastWord); err != nil {
		w.t.Error(err)
	}
	<-read
	if err := cmd.Wait(); !kill && err != nil {
		w.t.Errorf("the sender ended with %v", err)
	}
}

// take hears a line of the sender.
func (w *world) take(line string, answers io.Writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	words := strings.Fields(line)
	switch {
	case len(words) == 2 && words[0] == "put":
		number, _ := strconv.ParseUint(words[1], 10, 64)
		w.safe[number] = true
	case len(words) == 3 && words[0] == "pub":
		if w.deaf {
			return
		}
		m, signer, err := signing.Open([]byte(words[2]), words[1], w.keyring)
		if err != nil {
			w.t.Errorf("published what is not genuine: %v", err)
			return
		}
		w.judge(m, signer)
		if rand.N(20) > 0 {
			_, _ = fmt.Fprintf(answers, "ok %s %d\n", m.Topic(), m.Sequence()) // the sender may be dead
		}
	case len(words) > 0 && words[0] == "fault":
		w.t.Error(line)
	default: // a line that was being written
	}
}

func (w *world) judge(m *signing.Message, signer signing.Signer) {
	switch outcome := w.store.Telemetry(signer.Key.ID(), m.Topic(), m.Sequence(), m.Digest()); outcome {
	case replay.New:
		w.accepted[m.Sequence()]++
		if m.Sequence() < w.last[m.Topic()] {
			w.t.Errorf("%s: number %d after %d", m.Topic(), m.Sequence(), w.last[m.Topic()])
		}
		w.last[m.Topic()] = m.Sequence()
	case replay.Duplicate:
	default:
		w.t.Errorf("%s: number %d is a %v", m.Topic(), m.Sequence(), outcome)
	}
}

// finish has lives without a kill until everything that is safe was accepted.
func (w *world) finish() {
	w.t.Helper()
	deadline := time.Now().Add(2 * patience)
	for w.missing() > 0 {
		if time.Now().After(deadline) {
			w.t.Fatalf("%d of %d messages did not come", w.missing(), len(w.safe))
		}
		w.life(func() {
			for w.missing() > 0 && time.Now().Before(deadline) {
				time.Sleep(5 * time.Millisecond)
			}
		}, false)
	}
}

func (w *world) missing() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for number := range w.safe {
		if w.accepted[number] == 0 {
			n++
		}
	}
	return n
}

func (w *world) check() {
	for number, times := range w.accepted {
		if times != 1 {
			w.t.Errorf("number %d was accepted %d times", number, times)
		}
	}
}
