package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"pinseal/internal/atomicfile"
)

// alone makes a change that begins with reading what is there: whoever else makes one in that folder waits, so that of two
// commands given at the same time neither takes back what the other has written. The lock ends with the process.
func alone(folder string, change func() error) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for its lock only, which goes with it
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	// NFS locks no folders.
	if err != nil && !errors.Is(err, syscall.EBADF) && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("locking %s: %w", folder, err)
	}
	return change()
}

// rewrite replaces what a file holds that its user has put there, and leaves the rest as he wants it: the owner, the
// permissions, and the links that lead to it.
func rewrite(path string, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // whoever uses a device or a pipe would find another one in its place
		return fmt.Errorf("%s is not a regular file, nothing was changed", path)
	}
	return atomicfile.WriteFor(path, path, text, info.Mode().Perm())
}
