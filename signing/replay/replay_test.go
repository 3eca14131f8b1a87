package replay_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/signing/replay"
)

func digest(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func open(tb testing.TB, path string, o replay.Options) *replay.Store {
	tb.Helper()
	s, err := replay.Open(path, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() }) // the tests that care close it themselves
	return s
}

func path(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "state.db")
}

// inMemory puts the folders of a test that opens a great many files where
// syncs cost nothing, if there is such a place.
func inMemory(t *testing.T) {
	t.Helper()
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err == nil {
		t.Setenv("TMPDIR", memory)
	}
}

func closeStore(tb testing.TB, s *replay.Store) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatalf("closing: %v", err)
	}
}

// step is one message of a table: number and content, and what must come of it.
type step struct {
	number  uint64
	content string
	want    replay.Outcome
}

// judge is one way to ask a store about a message.
type judge func(s *replay.Store, number uint64, digest [32]byte) (replay.Outcome, error)

func command(kid, output string) judge {
	return func(s *replay.Store, number uint64, digest [32]byte) (replay.Outcome, error) {
		o, c := s.Command(kid, output, number, digest)
		return o, c.Wait()
	}
}

func telemetry(kid, topic string) judge {
	return func(s *replay.Store, number uint64, digest [32]byte) (replay.Outcome, error) {
		return s.Telemetry(kid, topic, number, digest), nil
	}
}

func legacy(kid string) judge {
	return func(s *replay.Store, number uint64, digest [32]byte) (replay.Outcome, error) {
		o, c := s.Legacy(kid, int64(number), digest)
		return o, c.Wait()
	}
}

// run takes the steps; with reopen it closes and opens the store before each.
func run(t *testing.T, ask judge, steps []step, reopen bool) {
	t.Helper()
	p := path(t)
	s := open(t, p, replay.Options{})
	for i, st := range steps {
		if reopen {
			closeStore(t, s)
			s = open(t, p, replay.Options{})
		}
		got, err := ask(s, st.number, digest(st.content))
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got != st.want {
			t.Fatalf("step %d (%d %s): %v, want %v", i, st.number, st.content, got, st.want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	const maxSequence = 1<<53 - 1
	// full is 64 telemetry messages with the numbers 101 to 164.
	var full, oneSecond []step
	for i := range uint64(64) {
		full = append(full, step{101 + i, "a", replay.New})
		oneSecond = append(oneSecond, step{1700000000, fmt.Sprint(i), replay.New})
	}
	after := func(before []step, more ...step) []step { return append(append([]step{}, before...), more...) }
	tests := []struct {
		name  string
		ask   judge
		steps []step
	}{
		{"a command above is new", command("k", "led"), []step{{0, "a", replay.New}, {1, "b", replay.New}, {maxSequence, "c", replay.New}}},
		{"a command again is a duplicate", command("k", "led"), []step{{7, "a", replay.New}, {7, "a", replay.Duplicate}, {7, "a", replay.Duplicate}}},
		{"a command below is a replay", command("k", "led"), []step{{7, "a", replay.New}, {6, "b", replay.Replay}, {7, "a", replay.Duplicate}}},
		{"an accepted command that is no longer the last is a replay", command("k", "led"), []step{{7, "a", replay.New}, {8, "b", replay.New}, {7, "a", replay.Replay}}},
		{"a command with other content is an equivocation", command("k", "led"), []step{{7, "a", replay.New}, {7, "b", replay.Equivocation}, {7, "a", replay.Duplicate}, {8, "b", replay.New}}},
		{"telemetry may be reordered", telemetry("k", "t"), []step{{9, "a", replay.New}, {3, "b", replay.New}, {5, "c", replay.New}, {3, "b", replay.Duplicate}, {5, "x", replay.Equivocation}}},
		{"telemetry below the lowest of 64 is a replay", telemetry("k", "t"), after(full, step{100, "z", replay.Replay}, step{0, "z", replay.Replay}, step{101, "a", replay.Duplicate})},
		{"telemetry makes room by forgetting the lowest", telemetry("k", "t"), after(full, step{165, "a", replay.New}, step{101, "a", replay.Replay}, step{102, "a", replay.Duplicate})},
		{"telemetry far ahead", telemetry("k", "t"), after(full, step{maxSequence, "a", replay.New}, step{165, "a", replay.New}, step{102, "a", replay.Replay}, step{103, "a", replay.Duplicate}, step{103, "b", replay.Equivocation})},
		{"a legacy second", legacy("k"), []step{{1700000000, "a", replay.New}, {1700000000, "a", replay.Duplicate}, {1700000000, "b", replay.New}, {1700000000, "a", replay.Duplicate}}},
		{"a legacy second in the past", legacy("k"), []step{{1700000000, "a", replay.New}, {1699999999, "b", replay.Replay}}},
		{"a newer legacy second forgets the digests of the old", legacy("k"), []step{{1700000000, "a", replay.New}, {1700000001, "a", replay.New}, {1700000000, "a", replay.Replay}}},
		{"a legacy second holds 64 messages", legacy("k"), after(oneSecond, step{1700000000, "64", replay.Replay}, step{1700000000, "63", replay.Duplicate}, step{1700000001, "64", replay.New})},
		{"a negative legacy second", legacy("k"), []step{{1 << 63, "a", replay.Replay}, {0, "a", replay.New}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, tt.ask, tt.steps, false)
		})
		t.Run(tt.name+", reopened between", func(t *testing.T) {
			t.Parallel()
			run(t, tt.ask, tt.steps, true)
		})
	}
}

func TestRecordsAreApart(t *testing.T) {
	s := open(t, path(t), replay.Options{})
	asks := map[string]judge{
		"a command": command("k1", "led"), "another output": command("k1", "fan"), "another key": command("k2", "led"),
		"the same characters, cut elsewhere": command("k1l", "ed"),
		"telemetry":                          telemetry("k1", "led"), "another topic": telemetry("k1", "fan"), "telemetry of another key": telemetry("k2", "led"),
		"legacy": legacy("k1"), "legacy of another key": legacy("k2"),
	}
	for name, ask := range asks {
		if got, err := ask(s, 5, digest("a")); got != replay.New || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, ask := range asks {
		if got, _ := ask(s, 5, digest("a")); got != replay.Duplicate {
			t.Errorf("%s again: %v", name, got)
		}
	}
}

func TestReset(t *testing.T) {
	p := path(t)
	s := open(t, p, replay.Options{})
	mine := []judge{command("k1", "led"), command("k1", "fan"), telemetry("k1", "t"), legacy("k1")}
	theirs := []judge{command("k2", "led"), telemetry("k2", "t"), legacy("k2"), command("k1x", "led")}
	expect := func(asks []judge, number uint64, want replay.Outcome) {
		t.Helper()
		for i, ask := range asks {
			if got, err := ask(s, number, digest("a")); got != want || err != nil {
				t.Errorf("%d: %v (%v), want %v", i, got, err, want)
			}
		}
	}
	expect(mine, 1<<40, replay.New)
	expect(theirs, 1<<40, replay.New)
	closeStore(t, s)
	s = open(t, p, replay.Options{}) // so that all of it is in the file
	if err := s.Reset("k1"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = open(t, p, replay.Options{})
	expect(theirs, 1<<40, replay.Duplicate)
	expect(mine, 5, replay.New)
	if err := s.Reset("unknown"); err != nil {
		t.Errorf("an unknown key: %v", err)
	}
}

// A key must not be able to fill the memory, and Reset gives it room again.
func TestRecordsOfAKeyAreBounded(t *testing.T) {
	p := path(t)
	s := open(t, p, replay.Options{})
	for i := range 1024 {
		if got := s.Telemetry("k1", fmt.Sprint("t/", i), 1, digest("a")); got != replay.New {
			t.Fatalf("topic %d: %v", i, got)
		}
	}
	closeStore(t, s)
	s = open(t, p, replay.Options{})
	for name, ask := range map[string]judge{"telemetry": telemetry("k1", "more"), "a command": command("k1", "led"), "legacy": legacy("k1")} {
		if got, _ := ask(s, 1, digest("a")); got != replay.Replay {
			t.Errorf("%s beyond the bound: %v", name, got)
		}
	}
	if got := s.Telemetry("k1", "t/0", 2, digest("a")); got != replay.New {
		t.Errorf("a known topic: %v", got)
	}
	if got := s.Telemetry("k2", "more", 1, digest("a")); got != replay.New {
		t.Errorf("another key: %v", got)
	}
	if err := s.Reset("k1"); err != nil {
		t.Fatal(err)
	}
	if got := s.Telemetry("k1", "more", 1, digest("a")); got != replay.New {
		t.Errorf("after Reset: %v", got)
	}
}

// A name that bbolt would refuse must not spoil the commits of others.
func TestOverlongNamesAreRefused(t *testing.T) {
	s := open(t, path(t), replay.Options{})
	long := strings.Repeat("x", 1025)
	for name, ask := range map[string]judge{"kid": command(long, "led"), "output": command("k", long), "topic": telemetry("k", long), "legacy": legacy(long)} {
		if got, err := ask(s, 1, digest("a")); got != replay.Replay || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := command(long[1:], long[1:])(s, 1, digest("a")); got != replay.New || err != nil {
		t.Errorf("1024 bytes: %v, %v", got, err)
	}
	if got, err := command("", "")(s, 1, digest("a")); got != replay.New || err != nil {
		t.Errorf("empty names: %v, %v", got, err)
	}
}

func TestSince(t *testing.T) {
	at := time.Date(2026, 11, 5, 10, 20, 30, 123456000, time.UTC)
	for _, since := range []time.Time{{}, at, time.Unix(-5, 0).UTC()} {
		p := path(t)
		s := open(t, p, replay.Options{Since: since})
		if !s.Since().Equal(since) {
			t.Errorf("made with %v: %v", since, s.Since())
		}
		closeStore(t, s)
		s = open(t, p, replay.Options{Since: at.Add(time.Hour)})
		if !s.Since().Equal(since) {
			t.Errorf("made with %v, opened again: %v", since, s.Since())
		}
	}
}

func TestAfterClose(t *testing.T) {
	s := open(t, path(t), replay.Options{})
	closeStore(t, s)
	if o, c := s.Command("k", "led", 1, digest("a")); o != replay.New || c.Wait() == nil {
		t.Errorf("a command after Close: %v, %v", o, c.Wait())
	}
	if err := s.Reset("k"); err == nil {
		t.Error("Reset after Close succeeds")
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// Telemetry reaches the disk without a command and without Close.
func TestTelemetryIsFlushed(t *testing.T) {
	p := path(t)
	s := open(t, p, replay.Options{FlushEvery: time.Millisecond})
	for i := range 100 { // more than one chunk
		s.Telemetry("k", fmt.Sprint(i), 1, digest("a"))
	}
	// A copy made during a commit may be refused or lack the last of it: look again.
	for flushed := 0; flushed < 100; {
		flushed = inCopy(t, p, 100)
	}
}

// inCopy counts how many of the topics 0 to n−1 a copy of the file remembers.
func inCopy(t *testing.T, p string, n int) (remembered int) {
	t.Helper()
	c, err := replay.Open(copyState(t, p), replay.Options{})
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }()
	for i := range n {
		if c.Telemetry("k", fmt.Sprint(i), 1, digest("a")) == replay.Duplicate {
			remembered++
		}
	}
	return remembered
}

func TestOutcomeString(t *testing.T) {
	want := map[replay.Outcome]string{
		0: "unknown", replay.New: "new", replay.Duplicate: "duplicate", replay.Replay: "replay", replay.Equivocation: "equivocation",
	}
	for o, s := range want {
		if o.String() != s {
			t.Errorf("%d: %q, want %q", uint8(o), o.String(), s)
		}
	}
}

// Who waits writes, so Close may find any of them writing: what was told to be on disk is there.
func TestCloseAmongWaiters(t *testing.T) {
	file := path(t)
	s, err := replay.Open(file, replay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const waiters, before = 4, 20
	var durable [waiters]uint64
	var begun, ended sync.WaitGroup
	begun.Add(waiters)
	for w := range waiters {
		ended.Go(func() {
			for n := uint64(1); ; n++ {
				if n == before {
					begun.Done()
				}
				if _, c := s.Command("kid", fmt.Sprint("out", w), n, digest("a")); c.Wait() != nil {
					return
				}
				durable[w] = n
			}
		})
	}
	begun.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	ended.Wait()
	again := open(t, file, replay.Options{})
	for w, n := range durable {
		if o, _ := again.Command("kid", fmt.Sprint("out", w), n, digest("a")); o != replay.Duplicate && o != replay.Replay {
			t.Errorf("number %d of output %d is %v after having been durable", n, w, o)
		}
	}
}
