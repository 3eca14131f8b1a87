// Package disktest has a disk that runs full, for tests of what stores on it.
package disktest

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
)

// Disk opens files and can be full. The zero Disk has room. It is safe for concurrent use.
type Disk struct {
	mu   sync.Mutex
	file *os.File // opened last
	full bool
}

// Open is os.OpenFile on a disk that has room, and fails on one that is full.
func (d *Disk) Open(name string, flag int, perm os.FileMode) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	f, err := os.OpenFile(name, flag, perm)
	d.file = f
	return f, err
}

// Fill lets every write to the file opened last fail, and every Open.
func (d *Disk) Fill(tb testing.TB) {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
	f, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	err = syscall.Dup3(int(f.Fd()), int(d.file.Fd()), syscall.O_CLOEXEC)
	if err := errors.Join(err, f.Close()); err != nil {
		tb.Fatal(err)
	}
}

// MakeRoom lets Open succeed again. The file that was open stays full: it must be opened anew.
func (d *Disk) MakeRoom() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = false
}
