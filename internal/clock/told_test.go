package clock_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/internal/clock"
)

// A clock that lives in 1970 is told the time, and goes on from there.
func TestTold(t *testing.T) {
	t.Parallel()
	wall, synchronized := time.Unix(100, 0), false
	floor := filepath.Join(t.TempDir(), "clock")
	c := newClock(t, clock.Config{
		Trust: clock.Auto, BuildTime: build(), FloorPath: floor,
		Synchronized: func() bool { return synchronized }, Now: func() time.Time { return wall },
	})
	if !c.Wants() || c.Trusted() {
		t.Fatal("a clock in 1970 is content with itself")
	}
	if err := c.Tell(build().Add(-time.Second)); err == nil {
		t.Error("told a time before the build")
	}
	real := build().Add(time.Hour)
	if err := c.Tell(real); err != nil {
		t.Fatal(err)
	}
	wall = wall.Add(time.Minute)
	if got := c.Now(); !c.Trusted() || !got.Equal(real.Add(time.Minute)) || !c.FloorNow().Equal(got) {
		t.Errorf("a minute later it is %v, trusted %v", got, c.Trusted())
	}
	if c.Wants() {
		t.Error("wants to be told again at once")
	}
	wall = wall.Add(30 * time.Minute)
	if !c.Wants() {
		t.Error("does not want to be told again after half an hour")
	}
	// Forwards only: an answer from before what it was told is none.
	if err := c.Tell(real.Add(-time.Second)); err == nil {
		t.Error("was told to go back")
	}
	if got := c.Now(); !got.Equal(real.Add(31 * time.Minute)) {
		t.Errorf("after a refused time it is %v", got)
	}
	// Once the system is synchronised, it alone counts.
	wall, synchronized = real.Add(40*time.Minute), true
	if got, trusted := c.Now(), c.Trusted(); !trusted {
		t.Errorf("synchronised, but not trusted at %v", got)
	}
	if got := c.Now(); !got.Equal(wall) || c.Wants() {
		t.Errorf("synchronised: %v, want %v", got, wall)
	}
}

func TestToldTimeIsKept(t *testing.T) {
	t.Parallel()
	floor := filepath.Join(t.TempDir(), "clock")
	config := clock.Config{Trust: clock.Auto, BuildTime: build(), FloorPath: floor, Synchronized: no, Now: at(time.Unix(0, 0))}
	c := newClock(t, config)
	if err := c.Tell(build().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := c.Run(stopped); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(floor); err != nil || string(text) != build().Add(time.Hour).Format(time.RFC3339)+"\n" {
		t.Errorf("kept %q, %v", text, err)
	}
	again := newClock(t, config)
	if got := again.FloorNow(); !got.Equal(build().Add(time.Hour)) || again.Trusted() {
		t.Errorf("after a restart: %v, trusted %v", got, again.Trusted())
	}
	if err := again.Tell(build().Add(59 * time.Minute)); err == nil {
		t.Error("an answer from before the restart is taken")
	}
}

func TestNeverIsNotTold(t *testing.T) {
	t.Parallel()
	c := newClock(t, clock.Config{Trust: clock.Never, BuildTime: build(), Now: at(build())})
	if err := c.Tell(build().Add(time.Hour)); err == nil || c.Trusted() || c.Wants() {
		t.Error("a clock that trusts no time was told one")
	}
}

// The judgement and the time may be asked for from everywhere.
func TestToldConcurrently(t *testing.T) {
	t.Parallel()
	var synchronized atomic.Bool
	c := newClock(t, clock.Config{Trust: clock.Auto, BuildTime: build(), Synchronized: synchronized.Load, Now: at(build())})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			_ = c.Tell(build().Add(time.Duration(i)))
			synchronized.Store(i%2 == 0)
		}
	}()
	for range 1000 {
		if now := c.Now(); now.Before(build()) {
			t.Fatal(now)
		}
		_, _, _ = c.Trusted(), c.Wants(), c.FloorNow()
	}
	<-done
}
