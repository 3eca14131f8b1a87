package replay

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// database is the two files. It is used by one goroutine at a time.
type database struct {
	path     string
	openFile openFunc
	logPages uint32    // of a log that is made
	bolt     *bbolt.DB // nil after a failure, until the next checkpoint
	file     *os.File  // what bolt works on
	panicked bool      // bolt is in an unknown state and may hold its own locks
	state    logState  // as bolt has it
	log      *logFile  // nil until the first checkpoint, and after a failure

	// A file that is opened anew must still be the one we know: the last to
	// write to it was this run, or the one before it.
	run, lastRun []byte
}

// openDatabase opens the file at path, or makes it, and reads the log.
func openDatabase(path string, o Options) (*database, content, error) {
	d := &database{path: path, openFile: o.OpenFile, logPages: uint32(o.LogPages), run: make([]byte, 16)} //nolint:gosec // a small number
	_, _ = rand.Read(d.run)                                                                               // never returns an error
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(LogPath(path)); err == nil && o.Since.IsZero() {
			return nil, content{}, fmt.Errorf("%w, but its log %s is there", fs.ErrNotExist, LogPath(path))
		}
		if err := createDatabase(path, o.Since, o.OpenFile); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, content{}, err
		}
	}
	c, err := d.open(false)
	if err != nil {
		return nil, content{}, err
	}
	d.lastRun = c.run
	if err := d.readLog(&c, o.Since); err != nil {
		return nil, content{}, also(err, d.close())
	}
	return d, c, nil
}

// readLog adds what is in the log. Where that is lost the database goes on
// without it, with since.
func (d *database) readLog(c *content, since time.Time) error {
	if d.state.pages == 0 {
		return nil
	}
	before := maps.Clone(c.records)
	err := readLog(LogPath(d.path), d.state, c.records, d.openFile)
	if errors.Is(err, fs.ErrNotExist) && !since.IsZero() {
		if since.After(c.since) {
			c.since = since.Truncate(time.Microsecond).UTC()
		}
		return d.update([]change{sinceChange(c.since)}, logState{id: d.state.id})
	}
	if err != nil {
		return inLog(LogPath(d.path), err)
	}
	for key, es := range c.records {
		if before[key] != es {
			c.logged = append(c.logged, key)
		}
	}
	return nil
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
	d.state = c.log
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
// name, if it had just made the file, and what it wrote last. That may be a meta
// page: the next commit overwrites pages that this meta page no longer needs; a
// disk that had only the one before would then hold no complete state.
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

// fits says whether log can take the changes; otherwise a checkpoint must.
func (d *database) fits(changes []change) bool { return d.log != nil && d.log.fits(changes) }

// append makes the changes durable in the log, all or none. After an error both
// files are closed, and the next checkpoint opens them anew: that finds a disk
// that was mounted again, and it settles what the kernel may believe to be on
// disk and is not.
func (d *database) append(changes []change) error {
	if err := d.log.append(changes); err != nil {
		return also(inLog(LogPath(d.path), err), d.close())
	}
	return nil
}

// checkpoint makes the changes durable in the database, all or none, and begins
// a new epoch of the log, whose content the changes must include. The last
// checkpoint leaves no log to be read. After an error it is as with append.
func (d *database) checkpoint(changes []change, last bool) error {
	if err := d.beginEpoch(changes, last); err != nil {
		return also(err, d.close())
	}
	return nil
}

func (d *database) beginEpoch(changes []change, last bool) (err error) {
	if d.bolt == nil {
		if err := d.reopen(); err != nil {
			return err
		}
	}
	if last {
		return d.update(changes, logState{id: d.state.id})
	}
	if d.log == nil {
		pages := cmp.Or(d.state.pages, d.logPages)
		if d.log, err = openLog(LogPath(d.path), d.state.id, pages, d.openFile); err != nil {
			return inLog(LogPath(d.path), err)
		}
	}
	if err := d.update(changes, d.log.state); err != nil {
		return err
	}
	d.log.begin(d.state)
	return nil
}

func (d *database) reopen() error {
	c, err := d.open(true)
	if err != nil {
		return err
	}
	if !bytes.Equal(c.run, d.run) && !bytes.Equal(c.run, d.lastRun) {
		return errors.New("another process wrote to it meanwhile")
	}
	return nil
}

// update commits the changes, and that the log is the one given, with the next
// epoch.
func (d *database) update(changes []change, log logState) (err error) {
	defer d.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	log.epoch = d.state.epoch + 1
	changes = append(changes, change{metaBucket, []byte("log"), log.marshal()}, change{metaBucket, []byte("run"), d.run})
	if err = d.bolt.Update(func(tx *bbolt.Tx) error { return apply(tx, changes) }); err == nil {
		d.state = log
	}
	return err
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
func (d *database) close() (err error) {
	if d.log != nil {
		err = d.log.file.Close()
		d.log = nil
	}
	return also(err, d.closeBolt())
}

func (d *database) closeBolt() error {
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
