// Package clock says whether the wall clock can be believed. A Raspberry Pi
// has no battery clock: after a power cut it lives in the past until the
// network tells it the time.
//
// A time below the floor is never believed, whatever anyone says. The floor is
// the time of the build or the last trusted time kept in a file, whichever is
// later, and follows the clock while that is trusted.
//
// A clock that cannot be believed may be told the time by somebody who is: see
// [Clock.Tell]. The system's clock is never set.
package clock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"pinseal/internal/atomicfile"
)

// Trust is how the clock is judged.
type Trust string

// The ways to judge the clock.
const (
	// Auto trusts the clock while the system says that it is synchronised.
	Auto Trust = "auto"
	// Always trusts every time that is not below the floor.
	Always Trust = "always"
	// Never trusts no time.
	Never Trust = "never"
)

const (
	askEvery     = time.Second // how old the system's answer may be
	persistEvery = time.Hour
)

// Config is what a Clock needs.
type Config struct {
	// Trust is Auto, Always or Never; anything else is an error.
	Trust Trust
	// FloorPath is the file that keeps the last trusted time over restarts, as
	// one line in RFC 3339. Empty: nothing is kept. If the clock was ahead while
	// it was trusted, removing the file is the cure.
	FloorPath string
	// BuildTime is when the program was built; no real time is before it.
	BuildTime time.Time
	// Synchronized asks the system whether its clock is synchronised. Auto
	// needs it. It may take a second, and is called by one goroutine at a time.
	Synchronized func() bool
	// Now reads the wall clock; nil is the system's.
	Now func() time.Time
}

// Clock is a wall clock with an opinion of itself. It is safe for concurrent use.
type Clock struct {
	config Config

	mu    sync.Mutex
	floor time.Time
	told  *told // nil: nobody has

	asking sync.Mutex // apart from mu, because asking may take a second
	asked  time.Time
	answer bool
}

// New makes a clock and reads its floor. It starts nothing. A floor file that
// does not exist is no error; one that cannot be read or understood is, and the
// error names it.
func New(c Config) (*Clock, error) {
	switch {
	case c.Trust != Auto && c.Trust != Always && c.Trust != Never:
		return nil, fmt.Errorf("clock trust is %q, not auto, always or never", c.Trust)
	case c.Trust == Auto && c.Synchronized == nil:
		return nil, errors.New("clock trust auto needs a system to ask")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	kept, err := readFloor(c.FloorPath)
	if err != nil {
		return nil, err
	}
	return &Clock{config: c, floor: later(c.BuildTime, kept)}, nil
}

// Now is the wall clock as it is, trusted or not; or, while that is not to be
// believed, the time that the clock was told.
func (c *Clock) Now() time.Time {
	now := c.config.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told != nil {
		return c.told.at(now)
	}
	return now
}

// FloorNow is [Clock.Now], but never below the floor: the time by which
// certificates are judged, so that a machine booting in the past can connect.
func (c *Clock) FloorNow() time.Time { return later(c.Now(), c.currentFloor()) }

// Trusted reports whether [Clock.Now] can be believed. The floor is
// judged on every call, the system's answer is at most about a second old: the
// call that asks anew takes as long as [Config.Synchronized].
func (c *Clock) Trusted() bool {
	_, ok := c.trusted()
	return ok
}

// trusted returns a time with its judgement.
func (c *Clock) trusted() (time.Time, bool) {
	now := c.config.Now()
	believed := c.believes(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case believed:
		c.told = nil // it has done its work
		return now, true
	case c.told != nil:
		return c.told.at(now), true
	}
	return now, false
}

// believes judges the wall clock.
func (c *Clock) believes(now time.Time) bool {
	if c.config.Trust == Never || now.Before(c.currentFloor()) {
		return false
	}
	return c.config.Trust == Always || c.synchronized(now)
}

// synchronized is the system's answer. While one caller asks, the others wait
// for the answer rather than act on an old one.
func (c *Clock) synchronized(now time.Time) bool {
	c.asking.Lock()
	defer c.asking.Unlock()
	// A clock that is stepped backwards must not prolong an answer.
	if age := now.Sub(c.asked); age >= askEvery || age < 0 {
		c.answer, c.asked = c.config.Synchronized(), now
	}
	return c.answer
}

func (c *Clock) currentFloor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

// Run keeps the floor: once an hour and when ctx ends it is set to the time, in
// memory and in the file, if the clock is trusted then, and only ever forwards.
// It returns nil when ctx ends, or else the error of the last write that went
// wrong: a disk that refuses for some hours is no reason to stop.
func (c *Clock) Run(ctx context.Context) error {
	ticker := time.NewTicker(persistEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			// The next hour tries again, and the last try reports.
			_ = c.persist()
		case <-ctx.Done():
			return c.persist()
		}
	}
}

// persist raises the floor to now.
func (c *Clock) persist() error {
	now, ok := c.trusted()
	if !ok {
		return nil
	}
	c.mu.Lock()
	c.floor = later(c.floor, now.Round(0))
	floor := c.floor
	c.mu.Unlock()
	if c.config.FloorPath == "" {
		return nil
	}
	line := floor.UTC().Format(time.RFC3339) + "\n"
	if err := atomicfile.Write(c.config.FloorPath, []byte(line), 0o600); err != nil {
		return fmt.Errorf("keeping the time: %w", err)
	}
	return nil
}

func readFloor(path string) (time.Time, error) {
	if path == "" {
		return time.Time{}, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the last known time: %w", err)
	}
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(data)))
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the last known time: %s does not hold a time", path)
	}
	return at, nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
