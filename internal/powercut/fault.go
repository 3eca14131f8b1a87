package main

import (
	"context"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// trouble is a way in which a call can fail.
type trouble string

const (
	noSpace    trouble = "a write without room"
	ioError    trouble = "a write that fails"
	shortWrite trouble = "half a write, and then no room"
	badSync    trouble = "a sync that fails"
)

func troubles() []trouble { return []trouble{noSpace, ioError, shortWrite, badSync} }

// fault has one call of a life fail. The zero fault has none.
type fault struct {
	trouble trouble
	at      int // the how manieth that can, from 1

	seen    int // of those
	follows bool
	struck  int // how many events there were when it did, or 0
}

// strike makes a call fail whose turn it is, which has just begun.
func (r *recorder) strike(pid int, c *call) error {
	f := &r.fault
	writes := c.event != nil && c.event.kind == write
	if writes && f.follows {
		f.follows = false
		return fail(pid, c, unix.ENOSPC)
	}
	if f.trouble == badSync && !r.syncs(pid, c) || f.trouble != badSync && !writes {
		return nil
	}
	if f.seen++; f.at == 0 || f.seen != f.at {
		return nil
	}
	f.struck = max(len(r.events), 1)
	switch half := uint64(len(c.eventData()) / 2); {
	case f.trouble == noSpace, f.trouble == shortWrite && half == 0:
		return fail(pid, c, unix.ENOSPC)
	case f.trouble == shortWrite:
		f.follows = true
		return setLength(pid, half)
	}
	return fail(pid, c, unix.EIO)
}

func (c *call) eventData() []byte {
	if c.event == nil {
		return nil
	}
	return c.event.data
}

// syncs reports whether a call syncs a file, or the folder.
func (r *recorder) syncs(pid int, c *call) bool {
	if c.number != unix.SYS_FSYNC && c.number != unix.SYS_FDATASYNC {
		return false
	}
	if r.file(pid, c.args[0]) != 0 {
		return true
	}
	return r.inFolder(pathOf(pid, c.args[0])) != ""
}

// fail has the kernel make no call.
func fail(pid int, c *call, errno syscall.Errno) error {
	c.fails = errno
	return skipCall(pid)
}

// failed gives a call its result. A sync that fails leaves behind what the kernel takes for written (fsync(2), under EIO).
func (r *recorder) failed(pid int, c call) error {
	if c.number == unix.SYS_FSYNC || c.number == unix.SYS_FDATASYNC {
		if err := r.synced(pid, c, failed); err != nil {
			return err
		}
	}
	return setResult(pid, c.fails)
}

// judgeFaults has calls of a life fail, one in each run, and cuts the power afterwards.
func (j *judge) judgeFaults(ctx context.Context, l life) error {
	for _, t := range troubles() {
		calls, err := j.countCalls(ctx, l, t)
		if err != nil {
			return err
		}
		tries := min(j.form.faults, calls)
		for i := range tries {
			r, err := j.recorder(&disk{})
			if err != nil {
				return err
			}
			r.fault = fault{trouble: t, at: 1 + i*calls/tries}
			if err := r.live(ctx, l.name, bootID(1), 0); err != nil {
				return fmt.Errorf("%s, %d: %w", t, r.fault.at, err)
			}
			if r.fault.struck == 0 {
				continue // this run had fewer
			}
			j.report.faults++
			cuts := 0
			if err := j.enumerate(ctx, l, r, nil, nil, func(c cut) bool {
				cuts++
				return c.events < r.fault.struck || cuts%j.form.stride != 0 && c.events < len(r.events)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// countCalls is how many calls of a life can have a trouble.
func (j *judge) countCalls(ctx context.Context, l life, t trouble) (int, error) {
	r, err := j.recorder(&disk{})
	if err != nil {
		return 0, err
	}
	r.fault = fault{trouble: t}
	err = r.live(ctx, l.name, bootID(1), 0)
	return r.fault.seen, err
}
