package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/agent/outbox"
	"pinseal/signing"
)

const (
	topic    = "telemetry/attic/cpu"
	patience = 20 * time.Second
)

func newKey(t *testing.T) *signing.PrivateKey {
	t.Helper()
	key, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func seal(t *testing.T, key *signing.PrivateKey, number uint64) outbox.Message {
	t.Helper()
	raw, err := signing.Seal(key, signing.Claims{
		Topic: topic, IssuedAt: time.Now(), Sequence: number, Message: fmt.Appendf(nil, `{"value":%d,"unit":"Cel"}`, number),
	})
	if err != nil {
		t.Fatal(err)
	}
	return outbox.Message{Topic: topic, Number: number, Sealed: raw}
}

func open(t *testing.T, path string, o outbox.Options) *outbox.Box {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	b, err := outbox.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func closeBox(t *testing.T, b *outbox.Box) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func put(t *testing.T, b *outbox.Box, messages ...outbox.Message) {
	t.Helper()
	for _, m := range messages {
		if err := b.Put(m); err != nil {
			t.Fatal(err)
		}
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// receiver takes what a box publishes, in memory.
type receiver struct {
	box    *outbox.Box
	answer func(outbox.Message) // nil: accepted

	mu   sync.Mutex
	got  []uint64 // numbers, in the order they came
	raw  map[uint64]string
	news chan struct{}
}

// receive runs the box until the test ends or stop is called.
func receive(t *testing.T, b *outbox.Box, answer func(outbox.Message)) (r *receiver, stop func()) {
	t.Helper()
	r = &receiver{box: b, answer: answer, raw: map[uint64]string{}, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.Run(ctx, r.publish)
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return r, stop
}

func (r *receiver) publish(m outbox.Message, done func(error)) {
	r.mu.Lock()
	r.got = append(r.got, m.Number)
	r.raw[m.Number] = string(m.Sealed)
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
	done(nil)
	if r.answer != nil {
		r.answer(m)
	} else {
		r.box.Accepted(m.Topic, m.Number)
	}
}

func (r *receiver) numbers() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64(nil), r.got...)
}

// wait returns once n messages have come.
func (r *receiver) wait(t *testing.T, n int) []uint64 {
	t.Helper()
	timeout := time.After(patience)
	for {
		if got := r.numbers(); len(got) >= n {
			return got
		}
		select {
		case <-r.news:
		case <-timeout:
			t.Fatalf("%d messages came, want %d", len(r.numbers()), n)
		}
	}
}

// wantNumbers wants 1 to n.
func wantNumbers(t *testing.T, got []uint64, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d messages, want %d: %v", len(got), n, got)
	}
	for i, number := range got {
		if number != uint64(i)+1 {
			t.Fatalf("got %v, want 1 to %d", got, n)
		}
	}
}

func database(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "outbox.db")
}
