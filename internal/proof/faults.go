package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"pinseal/signing"

	"golang.org/x/sys/unix"
)

// writableBytes is what a process may still write to a file when its disk is made to refuse: the levels of the lines and
// the numbers of its verdicts, but no page of the replay database beyond the second.
const writableBytes = 8 << 10

// fault is something wrong with the disk under a running node, and its cure.
type fault struct {
	name         string
	memory       bool // the node's files are on a small disk in memory
	strike, lift func(t *trial) error
}

// faults are those that can be made here.
func (s scale) faults() []fault {
	all := []fault{
		{"no room: a limit on the size of files", false, limit, unlimit},
		{"read-only after a write that failed", false, turnReadOnly, turnWritable},
		{"truncated in use, and put back", false, cut, putBack},
	}
	if s.fullDisk && os.Geteuid() == 0 {
		all = append(all, fault{"no room: a full disk in memory", true, fill, free})
	}
	return all
}

// setLimit sets the soft limit only, or it could not be lifted again.
func setLimit(t *trial, bytes uint64) error {
	hard := unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}
	return unix.Prlimit(t.node.process.cmd.Process.Pid, unix.RLIMIT_FSIZE, &hard, nil)
}

func limit(t *trial) error   { return setLimit(t, writableBytes) }
func unlimit(t *trial) error { return setLimit(t, unix.RLIM_INFINITY) }

// turnReadOnly lets the file be opened for reading only, and then has a write fail, because what is open stays writable.
func turnReadOnly(t *trial) error {
	return errors.Join(protect(t.node.database()), limit(t), t.expect("no room", 1, signing.ReasonHardware), unlimit(t))
}

func turnWritable(t *trial) error { return unprotect(t.node.database()) }

// protect makes a file read-only, for root too: by a mount of its own.
func protect(path string) error {
	if os.Geteuid() != 0 {
		return os.Chmod(path, 0o400)
	}
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", path, err)
	}
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return errors.Join(fmt.Errorf("mounting %s read-only: %w", path, err), unprotect(path))
	}
	return nil
}

func unprotect(path string) error {
	if os.Geteuid() != 0 {
		return os.Chmod(path, 0o600)
	}
	return unix.Unmount(path, unix.MNT_DETACH)
}

// cut truncates the database while it is mapped, and its log, and keeps copies.
func cut(t *trial) error {
	return t.node.eachStateFile(func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return errors.Join(overwrite(path+".copy", data), os.Truncate(path, 0))
	})
}

func (n *node) eachStateFile(do func(path string) error) error {
	return errors.Join(do(n.database()), do(n.databaseLog()))
}

// overwrite changes a file in place, as a disk does that goes wrong.
func overwrite(path string, data []byte) error {
	return os.WriteFile(path, data, 0o600) //nolint:gosec // in our own folder
}

func putBack(t *trial) error {
	return t.node.eachStateFile(func(path string) error {
		data, err := os.ReadFile(path + ".copy")
		if err != nil {
			return err
		}
		return overwrite(path, data)
	})
}

// fillAtMost is more than a disk in memory holds.
const fillAtMost = 64 << 20

func mountMemory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		return fmt.Errorf("mounting a disk in memory: %w", err)
	}
	return nil
}

// fill leaves no room. A node's log has room of its own, and that is enough for commands: it begins anew without one, and
// has none to make another.
func fill(t *trial) error {
	if err := errors.Join(t.end(syscall.SIGTERM), t.node.forgetLatest(), t.start(context.Background())); err != nil {
		return err
	}
	f, err := os.Create(t.node.path("filler"))
	if err != nil {
		return err
	}
	chunk := make([]byte, 4096)
	for written := 0; err == nil && written < fillAtMost; written += len(chunk) {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return errors.Join(err, f.Close(), errors.New("the disk does not fill"))
	}
	return f.Close()
}

func free(t *trial) error { return os.Remove(t.node.path("filler")) }
