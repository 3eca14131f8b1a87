// Package clock says whether the wall clock can be believed. A Raspberry Pi
// has no battery clock: after a power cut it lives in the past until the
// network tells it the time.
package clock

import (
	"context"
	"errors"
	"time"
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

// Config is what a Clock needs.
type Config struct {
	// Trust is Auto, Always or Never; anything else is an error.
	Trust Trust
	// FloorPath is the file that keeps the last trusted time over restarts.
	// Empty: nothing is kept.
	FloorPath string
	// BuildTime is when the program was built; no real time is before it.
	BuildTime time.Time
	// Synchronized asks the system whether its clock is synchronised. It is
	// needed with Auto, may take a second, and is called from one goroutine
	// at a time.
	Synchronized func() bool
	// Now reads the wall clock; nil is the system's.
	Now func() time.Time
}

// Clock is a wall clock with an opinion of itself. It is safe for concurrent use.
type Clock struct {
	config Config
}

// New makes a clock and reads its floor. It starts nothing.
func New(c Config) (*Clock, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Clock{config: c}, nil
}

// Now is the wall clock as it is, trusted or not.
func (c *Clock) Now() time.Time { return c.config.Now() }

// FloorNow is the wall clock, but never below the floor: the time by which
// certificates are judged, so that a machine booting in the past can connect.
func (c *Clock) FloorNow() time.Time { return c.config.Now() }

// Trusted reports whether the wall clock can be believed. The system's answer
// is cached for about a second, the floor is judged on every call.
func (c *Clock) Trusted() bool { return false }

// Run keeps the floor file: once an hour and when ctx ends, while the clock is
// trusted, and only ever forwards. It returns nil when ctx ends, or the error
// of the last write.
func (c *Clock) Run(ctx context.Context) error {
	<-ctx.Done()
	return errors.New("not yet")
}
