package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pinseal/signing"
	"pinseal/signing/replay"

	"golang.org/x/sys/unix"
)

// some is how many commands are given in each stage of a fault.
const some = 3

// disk takes the replay database away from a node in every way.
func disk(ctx context.Context, l *lab) ([]*row, error) {
	running := newRow("the disk refuses under the running node: acted on, reason not hardware, or not well again without a restart")
	stopped := newRow("replay database missing, truncated or read-only at the start: acted twice, or no clear error")
	var errs []error
	for i, f := range l.faults() {
		l.tell("disk: %s", f.name)
		if err := strike(ctx, l, running, fmt.Sprintf("disk%d", i), f); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
		running.note("%s", f.name)
	}
	if l.fullDisk && os.Geteuid() != 0 {
		running.note("not tried: a full disk in memory, because only root may mount one")
	}
	l.tell("disk: missing, truncated and read-only at the start")
	errs = append(errs, absent(ctx, l, stopped, "missing", (*node).forget),
		absent(ctx, l, stopped, "log missing", (*node).forgetLatest), truncated(ctx, l, stopped), unwritable(ctx, l, stopped))
	return []*row{running, stopped}, errors.Join(errs...)
}

// strike gives commands before, under and after a fault, and all that were acted on once more after a SIGKILL.
func strike(ctx context.Context, l *lab, r *row, name string, f fault) (err error) {
	dir := filepath.Join(l.dir, name)
	if f.memory {
		if err := mountMemory(dir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)) }()
	}
	t, err := startTrial(ctx, l, r, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.node.close()) }()
	for _, step := range []func() error{
		func() error { return t.expect(f.name+", before", some, signing.ReasonApplied) },
		func() error { return f.strike(t) },
		func() error { return t.expect(f.name, some, signing.ReasonHardware) },
		func() error { return f.lift(t) },
		func() error { return t.expect(f.name+", over", some, signing.ReasonApplied) },
		func() error { return t.repeat(f.name + ", over") },
		func() error { return t.end(syscall.SIGKILL) },
		func() error { return t.start(ctx) },
		func() error { return t.repeat(f.name + ", after a SIGKILL") },
		func() error { return t.expect(f.name+", after a SIGKILL", 1, signing.ReasonApplied) },
		func() error { return t.end(syscall.SIGTERM) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) database() string    { return n.path(stateFile) }
func (n *node) databaseLog() string { return replay.LogPath(n.database()) }

// forget loses what was accepted, forgetLatest only what was accepted lately.
func (n *node) forget() error       { return os.Remove(n.database()) }
func (n *node) forgetLatest() error { return os.Remove(n.databaseLog()) }

func startTrial(ctx context.Context, l *lab, r *row, name string) (*trial, error) {
	n, err := newNode(ctx, l, filepath.Join(l.dir, name), unchanged)
	if err != nil {
		return nil, err
	}
	t, err := newTrial(r, n)
	if err == nil {
		err = t.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return t, nil
}

// accustomed makes a node that has acted on commands, and was ended by a SIGKILL.
func accustomed(ctx context.Context, l *lab, r *row, name string) (*trial, error) {
	t, err := startTrial(ctx, l, r, name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.expect(name, some, signing.ReasonApplied), t.end(syscall.SIGKILL)); err != nil {
		return nil, errors.Join(err, t.node.close())
	}
	return t, nil
}

// absent starts a node whose database, or its log, is gone: it may act only on what was certainly not accepted before.
func absent(ctx context.Context, l *lab, r *row, name string, lose func(*node) error) (err error) {
	t, err := accustomed(ctx, l, r, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.node.close()) }()
	for _, step := range []func() error{
		func() error { return lose(t.node) },
		func() error { return t.start(ctx) },
		func() error { return t.repeat(name) },
		func() error { return t.expect(name+", sealed now", 1, signing.ReasonStale) },
		func() error { return t.expectSoon() },
		func() error { return t.repeat(name + ", over") },
		func() error { return t.end(syscall.SIGTERM) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// expectSoon gives commands until one is acted on. After the loss the node refuses what was sealed until 5 s later,
// because a sender's clock may be 5 s ahead. That of this one nearly is, so that it has not to wait.
func (t *trial) expectSoon() error {
	for begin := time.Now(); ; {
		cmd, err := t.owner.toggleAt(ledLine, time.Now().Add(4900*time.Millisecond))
		if err != nil {
			return err
		}
		v, err := t.ask(cmd)
		if err != nil || v.Reason == signing.ReasonApplied {
			return err
		}
		if v.Reason != signing.ReasonStale || time.Since(begin) > patience {
			t.row.fail("missing: a command sealed afterwards was answered with %s (%s)", v.Reason, v.Detail)
			return nil
		}
	}
}

// truncated cuts the database at and around every page. The node must not start, and say clearly why, or know all it has
// accepted.
func truncated(ctx context.Context, l *lab, r *row) (err error) {
	t, err := accustomed(ctx, l, r, "truncated")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.node.close()) }()
	whole, err := os.ReadFile(t.node.database())
	if err != nil {
		return err
	}
	refused, tried := 0, 0
	for length := range cuts(len(whole), l.cutStep) {
		if err := overwrite(t.node.database(), whole[:length]); err != nil {
			return err
		}
		what := fmt.Sprintf("cut to %d bytes", length)
		tried++
		started, err := t.startOrExplain(ctx, what)
		if err != nil {
			return err
		}
		if !started {
			refused++
		} else if err := errors.Join(t.repeat(what), t.end(syscall.SIGTERM)); err != nil {
			return err
		}
	}
	r.note("cut at %d lengths of %d bytes: the node refused to start on %d, and knew all it had accepted on the others",
		tried, len(whole), refused)
	if err := errors.Join(overwrite(t.node.database(), whole), t.start(ctx)); err != nil {
		return err
	}
	return errors.Join(t.repeat("put back"), t.expect("put back", 1, signing.ReasonApplied), t.end(syscall.SIGTERM))
}

// cuts yields lengths shorter than size, at and around every so many pages.
func cuts(size, step int) func(yield func(int) bool) {
	const page = 4096
	return func(yield func(int) bool) {
		for at := 0; at <= size; at += step * page {
			for _, length := range []int{at - 1, at, at + 1} {
				if length >= 0 && length < size && !yield(length) {
					return
				}
			}
		}
	}
}

// startOrExplain starts the node. If it does not start it must say why in one line that names the database, and a hint.
func (t *trial) startOrExplain(ctx context.Context, what string) (started bool, err error) {
	t.row.try(1)
	if err := t.node.spawn(ctx); err != nil {
		return false, err
	}
	p := t.node.process
	select {
	case <-p.ready:
		return true, t.connect(ctx)
	case <-p.exited:
	case <-time.After(patience):
		return false, fmt.Errorf("%s: pinseal run neither starts nor ends", what)
	}
	t.node.process = nil
	said := strings.Split(p.said(), "\n")
	code := p.cmd.ProcessState.ExitCode()
	if code != 1 || len(said) != 2 || !strings.HasPrefix(said[0], "pinseal: ") ||
		!strings.Contains(said[0], t.node.database()) || !strings.HasPrefix(said[1], "hint: ") {
		t.row.fail("%s: exit code %d and no clear error: %s", what, code, strings.Join(said, " | "))
	}
	if on, err := t.node.lines.level(ledLine); err != nil || on {
		t.row.fail("%s: the line is left on: %v, %v", what, on, err)
	}
	return false, nil
}

// unwritable starts a node on a read-only database.
func unwritable(ctx context.Context, l *lab, r *row) (err error) {
	t, err := accustomed(ctx, l, r, "readonly")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.node.close()) }()
	if err := protect(t.node.database()); err != nil {
		return err
	}
	started, err := t.startOrExplain(ctx, "read-only")
	if started {
		r.fail("the node starts on a read-only replay database")
		err = errors.Join(err, t.end(syscall.SIGKILL))
	}
	if err := errors.Join(err, unprotect(t.node.database())); err != nil {
		return err
	}
	if err := t.start(ctx); err != nil {
		return err
	}
	return errors.Join(t.repeat("writable again"), t.expect("writable again", 1, signing.ReasonApplied), t.end(syscall.SIGTERM))
}
