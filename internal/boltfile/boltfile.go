// Package boltfile opens bbolt databases that may have suffered: their structure is checked before bbolt maps them, and
// what bbolt answers with a panic or the death of the process is an error here.
//
// A [File] may be used by one goroutine at a time. Another process that has the database open is waited for, for a second.
package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"pinseal/internal/atomicfile"
)

// PageSize is that of the databases.
const PageSize = 4096

// Errors that a caller can act on.
var (
	// ErrInUse says that another process holds the database.
	ErrInUse = errors.New("in use by another process")
	// ErrDamaged says that the file is not a complete database.
	ErrDamaged = errors.New("damaged or not a database of this program")
)

// OpenFunc opens files as os.OpenFile does; tests replace it.
type OpenFunc func(name string, flag int, perm os.FileMode) (*os.File, error)

// File is a database on disk.
type File struct {
	path     string
	openFile OpenFunc
	bolt     *bbolt.DB // nil while it is not open
	file     *os.File  // what bolt works on
	used     int       // pages, when it was opened
	panicked bool      // bolt is in an unknown state and may hold its own locks
}

// New returns the File at path and does not open it.
func New(path string, open OpenFunc) *File { return &File{path: path, openFile: open} }

// Create puts a new database at path in one step, filled by fill, so that a power cut leaves no half of one. Where there
// is one already, the error matches fs.ErrExist.
func Create(path string, open OpenFunc, fill func(*bbolt.Tx) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { err = Also(err, os.Remove(f.Name())) }()
	if err := f.Close(); err != nil {
		return err
	}
	bolt, err := bbolt.Open(f.Name(), 0o600, options(open))
	if err != nil {
		return err
	}
	if err := Also(bolt.Update(fill), bolt.Close()); err != nil {
		return err
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	return atomicfile.Create(path, data, 0o600)
}

// options suit a small database on an SD card.
func options(open OpenFunc) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true, // one page less to write in each commit
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 64 << 10,
		PageSize:        PageSize, // also where the kernel's pages are bigger, as on a Pi 5
		NoStatistics:    true,
		OpenFile:        open,
	}
}

// IsOpen reports whether it is open.
func (f *File) IsOpen() bool { return f.bolt != nil }

// Open opens the existing file and checks its structure; what the buckets hold is not looked at. What the kernel may
// wrongly take for written is written again: this process, or one before it, may have been told of a sync that failed.
// After an error it is closed.
func (f *File) Open() error {
	if err := f.open(); err != nil {
		return Also(err, f.Close())
	}
	return nil
}

func (f *File) open() (err error) {
	defer f.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	f.bolt, err = bbolt.Open(f.path, 0o600, options(func(name string, _ int, perm os.FileMode) (*os.File, error) {
		return f.openLocked(name, perm)
	}))
	return err
}

// openLocked opens the file for bbolt: never creating it, and only after the
// lock is held and the content was checked.
func (f *File) openLocked(name string, perm os.FileMode) (*os.File, error) {
	file, err := f.openFile(name, os.O_RDWR, perm)
	if err != nil {
		return nil, WithoutPath(err)
	}
	err = lock(file)
	if err == nil {
		err = hasName(file)
	}
	if err == nil {
		err = Settle(file)
	}
	if err == nil {
		f.used, err = check(file)
	}
	if err == nil {
		err = rewriteMeta(file)
	}
	if err != nil {
		return nil, Also(err, file.Close())
	}
	f.file = file
	return file, nil
}

// Settle makes durable what a killed process left in the kernel's memory: its
// name, if it had just made the file, and what it wrote last. That may be a meta
// page: the next commit overwrites pages that this meta page no longer needs; a
// disk that had only the one before would then hold no complete state.
func Settle(f *os.File) error {
	if err := f.Sync(); err != nil {
		return WithoutPath(err)
	}
	return atomicfile.SyncFolder(filepath.Dir(f.Name()))
}

// lock takes the lock that bbolt takes, which it then finds held by itself.
// It gives another process, which may be about to end, a second.
func lock(f *os.File) error {
	for range 20 {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return ErrInUse
}

// hasName refuses a file that lost its name while its lock was waited for: who had the lock has put another in its
// place, as Shrink does.
func hasName(f *os.File) error {
	own, err := f.Stat()
	if err != nil {
		return WithoutPath(err)
	}
	named, err := os.Stat(f.Name())
	if err == nil && !os.SameFile(own, named) {
		err = ErrInUse
	}
	return WithoutPath(err)
}

// View reads.
func (f *File) View(read func(*bbolt.Tx) error) (err error) {
	defer f.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return f.bolt.View(read)
}

// Update writes, all or nothing. After an error the file should be closed and opened again before the next try: that
// finds a disk that was mounted again.
func (f *File) Update(write func(*bbolt.Tx) error) (err error) {
	defer f.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return f.bolt.Update(write)
}

// guard turns a panic of bbolt into an error, and so the SIGBUS of a file that
// shrank or cannot be read while it is mapped. It is deferred by what calls bbolt.
func (f *File) guard(err *error) {
	if p := recover(); p != nil {
		f.panicked = true
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// Close closes it, if it is open.
func (f *File) Close() error {
	bolt, file := f.bolt, f.file
	f.bolt, f.file = nil, nil
	switch {
	case f.panicked && file != nil:
		// bbolt may hold the mutex that its Close waits for, so the mapping is
		// left behind. It keeps the file alive: the lock must be released.
		f.panicked = false
		return Also(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
	case bolt != nil:
		return bolt.Close()
	}
	return nil
}

// Also joins the error of cleaning up to the one that led there, on one line.
func Also(err, cleanup error) error {
	if err == nil || cleanup == nil {
		return errors.Join(err, cleanup)
	}
	return fmt.Errorf("%w (and then: %w)", err, cleanup)
}

// WithoutPath spares a file name that is named already.
func WithoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
