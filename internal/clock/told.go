package clock

import (
	"errors"
	"fmt"
	"time"
)

// askAgain is how old a told time may be before another is wanted: a crystal
// that is off by 100 parts in a million has lost less than 0.2 s by then.
const askAgain = 30 * time.Minute

// told is a time that somebody said it was, and when that was by our own clock.
// What has passed since is measured by the monotonic clock, which no setting of
// the wall clock touches.
type told struct{ time, since time.Time }

func (t *told) at(now time.Time) time.Time { return t.time.Add(now.Sub(t.since)) }

// Wants reports whether the clock should be told the time: the wall clock cannot
// be believed, and nobody has told it for half an hour. With [Never] it wants
// nothing.
func (c *Clock) Wants() bool {
	now := c.config.Now()
	if c.config.Trust == Never || c.believes(now) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told == nil || now.Sub(c.told.since) >= askAgain
}

// Tell sets the clock to a time, until the wall clock can be believed. Whoever
// calls it vouches that the time is fresh and from somebody who is trusted. It
// is refused if it is below the floor, which follows it: time that was told
// goes forward only.
func (c *Clock) Tell(now time.Time) error {
	if c.config.Trust == Never {
		return errors.New("this clock trusts no time")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.floor) {
		return fmt.Errorf("it cannot be %s, it was %s before", now.UTC().Format(time.RFC3339), c.floor.UTC().Format(time.RFC3339))
	}
	c.told = &told{now.Round(0), c.config.Now()}
	c.floor = now.Round(0)
	return nil
}
