package clock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/internal/clock"
)

func build() time.Time { return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) }

func yes() bool { return true }

func no() bool { return false }

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

func newClock(t *testing.T, c clock.Config) *clock.Clock {
	t.Helper()
	k, err := clock.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTrusted(t *testing.T) {
	later, kept := build().Add(time.Hour), build().Add(48*time.Hour)
	tests := []struct {
		name   string
		trust  clock.Trust
		system func() bool
		now    time.Time
		kept   string
		want   bool
	}{
		{"auto, synchronised", clock.Auto, yes, later, "", true},
		{"auto, not synchronised", clock.Auto, no, later, "", false},
		{"auto, synchronised, before the build", clock.Auto, yes, build().Add(-time.Nanosecond), "", false},
		{"auto, synchronised, at the build", clock.Auto, yes, build(), "", true},
		{"auto, synchronised, before the kept time", clock.Auto, yes, later, kept.Format(time.RFC3339), false},
		{"auto, synchronised, at the kept time", clock.Auto, yes, kept, kept.Format(time.RFC3339), true},
		{"a kept time before the build does not lower the floor", clock.Auto, yes, build().Add(-time.Second), "1999-01-01T00:00:00Z\n", false},
		{"1970", clock.Auto, yes, time.Unix(0, 0), "", false},
		{"always", clock.Always, nil, later, "", true},
		{"always asks nobody", clock.Always, no, later, "", true},
		{"always, before the build", clock.Always, yes, build().Add(-time.Second), "", false},
		{"never", clock.Never, yes, later, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			floor := filepath.Join(t.TempDir(), "clock")
			if tt.kept != "" {
				if err := os.WriteFile(floor, []byte(tt.kept), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := newClock(t, clock.Config{Trust: tt.trust, FloorPath: floor, BuildTime: build(), Synchronized: tt.system, Now: at(tt.now)})
			if got := c.Trusted(); got != tt.want {
				t.Errorf("trusted: %v, want %v", got, tt.want)
			}
			if !c.Now().Equal(tt.now) {
				t.Errorf("now: %v, want %v", c.Now(), tt.now)
			}
		})
	}
}

func TestFloorNow(t *testing.T) {
	now := time.Unix(0, 0)
	c := newClock(t, clock.Config{Trust: clock.Never, BuildTime: build(), Now: func() time.Time { return now }})
	if got := c.FloorNow(); !got.Equal(build()) {
		t.Errorf("in the past: %v, want the floor", got)
	}
	now = build().Add(time.Hour)
	if got := c.FloorNow(); !got.Equal(now) {
		t.Errorf("above the floor: %v, want %v", got, now)
	}
}

// The answer is asked for again after a second, and after a step backwards.
func TestAnswerIsCached(t *testing.T) {
	now := build().Add(time.Hour)
	asked, synchronised := 0, true
	c := newClock(t, clock.Config{
		Trust: clock.Auto, BuildTime: build(), Now: func() time.Time { return now },
		Synchronized: func() bool { asked++; return synchronised },
	})
	steps := []struct {
		step  time.Duration
		asked int
	}{{0, 1}, {999 * time.Millisecond, 1}, {time.Millisecond, 2}, {-time.Millisecond, 3}, {0, 3}}
	for i, s := range steps {
		now = now.Add(s.step)
		if !c.Trusted() || asked != s.asked {
			t.Errorf("step %d: asked %d times, want %d", i, asked, s.asked)
		}
	}
	synchronised = false
	now = now.Add(time.Second)
	if c.Trusted() {
		t.Error("trusted after the system took it back")
	}
	synchronised = true
	now = build().Add(-time.Hour)
	if c.Trusted() {
		t.Error("trusted below the floor")
	}
}

// FloorNow serves TLS handshakes and must not wait for a slow system.
func TestFloorNowDoesNotWait(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	c := newClock(t, clock.Config{
		Trust: clock.Auto, Now: at(build()),
		Synchronized: func() bool { close(entered); <-release; return true },
	})
	done := make(chan bool)
	go func() { done <- c.Trusted() }()
	<-entered
	c.FloorNow()
	close(release)
	if !<-done {
		t.Error("not trusted")
	}
}

func TestNewRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "clock")
	if err := os.WriteFile(bad, []byte("yesterday"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		config clock.Config
		want   string
	}{
		{"no trust", clock.Config{}, `""`},
		{"unknown trust", clock.Config{Trust: "Auto"}, `"Auto"`},
		{"auto without a system", clock.Config{Trust: clock.Auto}, "system"},
		{"not a time", clock.Config{Trust: clock.Never, FloorPath: bad}, bad},
		{"a folder", clock.Config{Trust: clock.Never, FloorPath: filepath.Dir(bad)}, filepath.Dir(bad)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := clock.New(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %s", err, tt.want)
			}
		})
	}
}

func TestRunKeepsTheTime(t *testing.T) {
	floor := filepath.Join(t.TempDir(), "clock")
	kept := func() string {
		data, err := os.ReadFile(floor)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now() // of the bubble
		var synchronised atomic.Bool
		var ahead atomic.Int64 // what the wall clock is off by
		c := newClock(t, clock.Config{
			Trust: clock.Auto, FloorPath: floor, BuildTime: start, Synchronized: synchronised.Load,
			Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())).Round(0) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		expect := func(when string, want time.Duration) {
			t.Helper()
			synctest.Wait()
			w := ""
			if want > 0 {
				w = start.Add(want).UTC().Format(time.RFC3339)
			}
			if got := kept(); got != w {
				t.Errorf("%s: %q, want %q", when, got, w)
			}
		}
		time.Sleep(time.Hour)
		expect("not trusted", 0)
		synchronised.Store(true)
		time.Sleep(time.Hour)
		expect("trusted", 2*time.Hour)
		ahead.Store(-int64(90 * time.Minute))
		time.Sleep(time.Hour)
		expect("stepped back", 2*time.Hour)
		if c.Trusted() || !c.FloorNow().Equal(start.Add(2*time.Hour)) {
			t.Errorf("stepped back below what was kept: trusted %v, floor %v", c.Trusted(), c.FloorNow())
		}
		ahead.Store(0)
		time.Sleep(10 * time.Minute)
		expect("between", 2*time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		expect("at the end", 3*time.Hour+10*time.Minute)
	})
}

func TestRunReportsTheLastWrite(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := newClock(t, clock.Config{Trust: clock.Always, FloorPath: filepath.Join(t.TempDir(), "none", "clock"), Now: at(build())})
	if err := c.Run(ctx); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	c = newClock(t, clock.Config{Trust: clock.Always, Now: at(build())})
	if err := c.Run(ctx); err != nil {
		t.Errorf("nothing to keep: %v", err)
	}
}
