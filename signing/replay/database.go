package replay

import (
	"bytes"
	"crypto/rand"
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

// Errors of [Open] that a caller can act on.
var (
	// ErrInUse says that another process holds the database.
	ErrInUse = errors.New("in use by another process")
	// ErrDamaged says that the file is not a complete database of this package.
	ErrDamaged = errors.New("damaged or not a replay database")
)

type openFunc func(name string, flag int, perm os.FileMode) (*os.File, error)

// database is the file. It is used by one goroutine at a time.
type database struct {
	path     string
	openFile openFunc
	bolt     *bbolt.DB // nil after a failed commit, until the next one
	file     *os.File  // what bolt works on
	panicked bool      // bolt is in an unknown state and may hold its own locks

	// A file that is opened anew must still be the one we know: the last to
	// write to it was this run, or the one before it.
	run, lastRun []byte
}

// openDatabase opens the file at path, or makes it.
func openDatabase(path string, since time.Time, openFile openFunc) (*database, content, error) {
	d := &database{path: path, openFile: openFile, run: make([]byte, 16)}
	_, _ = rand.Read(d.run) // never returns an error
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := createDatabase(path, since, openFile); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, content{}, err
		}
	}
	c, err := d.open(false)
	if err != nil {
		return nil, content{}, err
	}
	d.lastRun = c.run
	return d, c, nil
}

// createDatabase puts an empty database at path in one step, so that a power
// cut leaves no half of one.
func createDatabase(path string, since time.Time, openFile openFunc) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { err = also(err, os.Remove(f.Name())) }()
	if err := f.Close(); err != nil {
		return err
	}
	bolt, err := bbolt.Open(f.Name(), 0o600, boltOptions(openFile))
	if err != nil {
		return err
	}
	err = bolt.Update(func(tx *bbolt.Tx) error { return putEmpty(tx, since) })
	if err := also(err, bolt.Close()); err != nil {
		return err
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	return atomicfile.Create(path, data, 0o600)
}

// boltOptions suit a small database on an SD card.
func boltOptions(openFile openFunc) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true, // one page less to write in each commit
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 64 << 10,
		PageSize:        pageSize, // also where the kernel's pages are bigger, as on a Pi 5
		NoStatistics:    true,
		OpenFile:        openFile,
	}
}

// open opens the existing file, checks it and reads it.
func (d *database) open(again bool) (content, error) {
	c, err := d.openAndRead(again)
	if err != nil {
		return c, also(err, d.close())
	}
	return c, nil
}

func (d *database) openAndRead(again bool) (c content, err error) {
	defer d.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	options := boltOptions(func(name string, _ int, perm os.FileMode) (*os.File, error) {
		return d.openLocked(name, perm, again)
	})
	if d.bolt, err = bbolt.Open(d.path, 0o600, options); err != nil {
		return c, err
	}
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		var err error
		c, err = read(tx)
		return err
	})
	return c, err
}

// openLocked opens the file for bbolt: never creating it, and only after the
// lock is held and the content was checked.
func (d *database) openLocked(name string, perm os.FileMode, again bool) (*os.File, error) {
	f, err := d.openFile(name, os.O_RDWR, perm)
	if err != nil {
		return nil, withoutPath(err)
	}
	err = lock(f)
	if err == nil && !again {
		err = settle(f)
	}
	if err == nil {
		err = checkFile(f)
	}
	if err == nil && again {
		err = rewriteMeta(f)
	}
	if err != nil {
		return nil, also(err, f.Close())
	}
	d.file = f
	return f, nil
}

// settle makes durable what a killed process left in the kernel's memory: its
// name, if it had just made the file, and a meta page that it wrote last. The
// next commit overwrites pages that this meta page no longer needs; a disk that
// had only the one before would then hold no complete state.
func settle(f *os.File) error {
	if err := f.Sync(); err != nil {
		return withoutPath(err)
	}
	return atomicfile.SyncFolder(filepath.Dir(f.Name()))
}

// also joins the error of cleaning up to the one that led there, on one line.
func also(err, cleanup error) error {
	if err == nil || cleanup == nil {
		return errors.Join(err, cleanup)
	}
	return fmt.Errorf("%w (and then: %w)", err, cleanup)
}

// withoutPath spares a file name that is named already.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
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

// write makes the changes durable, all or none. After an error the file is
// closed, and the next write opens it anew: that finds a disk that was mounted
// again, and it settles what the kernel may believe to be on disk and is not.
func (d *database) write(changes []change) (err error) {
	if d.bolt == nil {
		if err := d.reopen(); err != nil {
			return err
		}
	}
	if err := d.update(changes); err != nil {
		return also(err, d.close())
	}
	return nil
}

func (d *database) reopen() error {
	c, err := d.open(true)
	if err != nil {
		return err
	}
	if !bytes.Equal(c.run, d.run) && !bytes.Equal(c.run, d.lastRun) {
		return also(errors.New("another process wrote to it meanwhile"), d.close())
	}
	return nil
}

func (d *database) update(changes []change) (err error) {
	defer d.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return d.bolt.Update(func(tx *bbolt.Tx) error {
		if !bytes.Equal(tx.Bucket([]byte(metaBucket)).Get([]byte("run")), d.run) {
			changes = append(changes, change{metaBucket, []byte("run"), d.run})
		}
		return apply(tx, changes)
	})
}

// guard turns a panic of bbolt into an error, and so the SIGBUS of a file that
// shrank or cannot be read while it is mapped. It is deferred by what calls bbolt.
func (d *database) guard(err *error) {
	if p := recover(); p != nil {
		d.panicked = true
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// close closes what is open.
func (d *database) close() error {
	bolt, file := d.bolt, d.file
	d.bolt, d.file = nil, nil
	switch {
	case d.panicked && file != nil:
		// bbolt may hold the mutex that its Close waits for, so the mapping is
		// left behind. It keeps the file alive: the lock must be released.
		d.panicked = false
		return also(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
	case bolt != nil:
		return bolt.Close()
	}
	return nil
}
