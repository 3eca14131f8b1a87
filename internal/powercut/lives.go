package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/internal/clock"
	"pinseal/signing/sequence"
)

// lives are all that is tried.
func lives() []life {
	return []life{
		{name: "files", live: liveFiles, judge: judgeFiles},
		{name: "clock", live: liveClock, judge: judgeClock},
		{name: "sequence", live: liveSequence, judge: judgeSequence},
		{name: "replay", live: liveReplay, judge: judgeReplay},
		{name: "full disk", live: liveFullDisk, judge: judgeReplay},
		{name: "outputs", live: liveOutputs, judge: judgeOutputs},
		{name: "broker", live: liveBroker, judge: judgeBroker},
		{name: "outbox", live: liveOutbox, judge: judgeOutbox},
		{name: "shrinking", live: liveShrink, judge: judgeShrink},
	}
}

const versions = 4

// version is a content that is like no other in any sector, of several pages.
func version(name string, n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%s %d ", name, n), 300+100*((n*7)%5))
}

// liveFiles writes one file again and again, and makes others.
func liveFiles(folder string, tell func(string, ...any)) error {
	for n := range versions {
		tell("writing %d", n)
		if err := atomicfile.Write(filepath.Join(folder, "file"), version("file", n), 0o600); err != nil {
			return err
		}
		tell("wrote %d", n)
		made := fmt.Sprint("made", n)
		if err := atomicfile.Create(filepath.Join(folder, made), version(made, n), 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		tell("created %d", n)
	}
	return nil
}

// judgeFiles: the content is whole, and the one last confirmed or one begun
// since then.
func judgeFiles(folder string, marks []string) error {
	allowed, made := []int{-1}, map[int]bool{}
	for _, m := range marks {
		var n int
		if _, err := fmt.Sscanf(m, "writing %d", &n); err == nil {
			allowed = append(allowed, n)
		}
		if _, err := fmt.Sscanf(m, "wrote %d", &n); err == nil {
			allowed = []int{n}
		}
		if _, err := fmt.Sscanf(m, "created %d", &n); err == nil {
			made[n] = true
		}
	}
	if err := holdsOne(filepath.Join(folder, "file"), "file", allowed); err != nil {
		return err
	}
	for n := range versions {
		name, allowed := fmt.Sprint("made", n), []int{n}
		if !made[n] {
			allowed = []int{n, -1}
		}
		if err := holdsOne(filepath.Join(folder, name), name, allowed); err != nil {
			return err
		}
	}
	return nil
}

// holdsOne: the file is one of the versions; -1 is none at all.
func holdsOne(path, name string, allowed []int) error {
	content, err := os.ReadFile(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	for _, n := range allowed {
		if n < 0 && missing || n >= 0 && bytes.Equal(content, version(name, n)) {
			return nil
		}
	}
	return fmt.Errorf("%s is missing: %v, %d bytes, want one of the versions %d", name, missing, len(content), allowed)
}

func floorAt(n int) time.Time { return time.Unix(1800000000+int64(n)*3600, 0).UTC() }

// liveClock keeps the time as a clock does that ends.
func liveClock(folder string, tell func(string, ...any)) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for n := range 6 {
		c, err := newClock(folder, floorAt(n))
		if err != nil {
			return err
		}
		if err := c.Run(ctx); err != nil {
			return err
		}
		tell("kept %d", n)
	}
	return nil
}

func newClock(folder string, now time.Time) (*clock.Clock, error) {
	return clock.New(clock.Config{
		Trust: clock.Always, FloorPath: filepath.Join(folder, "clock"), Now: func() time.Time { return now },
	})
}

// judgeClock: the floor is where it was last kept, or one further on.
func judgeClock(folder string, marks []string) error {
	last := -1
	for _, m := range marks {
		var n int
		if _, err := fmt.Sscanf(m, "kept %d", &n); err != nil {
			return err
		}
		last = max(last, n)
	}
	c, err := newClock(folder, time.Unix(0, 0))
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if floor := c.FloorNow(); last >= 0 && floor.Before(floorAt(last)) || floor.After(floorAt(5)) {
		return fmt.Errorf("the floor is %v after %d was kept", floor, last)
	}
	return nil
}

// liveSequence takes numbers without a clock, with one, and with one that goes
// wrong; each jump of the clock raises the ceiling.
func liveSequence(folder string, tell func(string, ...any)) error {
	c, err := sequence.Open(filepath.Join(folder, "seq"))
	if err != nil {
		return err
	}
	for _, now := range []int64{0, 0, 1000, 1000, 2000, 0, 0, 1500, 4000, 4000} {
		n, err := c.Next(time.Unix(now, 0))
		if err != nil {
			return err
		}
		tell("used %d", n)
	}
	return c.Close()
}

// judgeSequence: in the next boot, no number is used again.
func judgeSequence(folder string, marks []string) error {
	used := map[uint64]bool{}
	for _, m := range marks {
		var n uint64
		if _, err := fmt.Sscanf(m, "used %d", &n); err != nil {
			return err
		}
		if used[n] {
			return fmt.Errorf("number %d was used twice", n)
		}
		used[n] = true
	}
	c, err := sequence.Open(filepath.Join(folder, "seq"))
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	for _, now := range []int64{0, 1000, 2000, 4000, 0} {
		n, err := c.Next(time.Unix(now, 0))
		if err == nil && used[n] {
			err = fmt.Errorf("number %d once more", n)
		}
		if err != nil {
			return errors.Join(err, c.Close())
		}
		used[n] = true
	}
	return c.Close()
}
