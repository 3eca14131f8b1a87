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
	"time"

	"go.etcd.io/bbolt"

	"pinseal/internal/boltfile"
)

// Errors of [Open] that a caller can act on.
var (
	// ErrInUse says that another process holds the database.
	ErrInUse = boltfile.ErrInUse
	// ErrDamaged says that the file is not a complete database of this package.
	ErrDamaged = boltfile.ErrDamaged
)

type openFunc = boltfile.OpenFunc

const pageSize = boltfile.PageSize

// database is the two files. It is used by one goroutine at a time.
type database struct {
	path     string
	openFile openFunc
	logPages uint32         // of a log that is made
	bolt     *boltfile.File // closed after a failure, until the next checkpoint
	state    logState       // as bolt has it
	log      *logFile       // nil until the first checkpoint, and after a failure

	// A file that is opened anew must still be the one we know: the last to
	// write to it was this run, or the one before it.
	run, lastRun []byte
}

// openDatabase opens the file at path, or makes it, and reads the log.
func openDatabase(path string, o Options) (*database, content, error) {
	d := &database{path: path, openFile: o.OpenFile, logPages: uint32(o.LogPages), bolt: boltfile.New(path, o.OpenFile), run: make([]byte, 16)} //nolint:gosec // a small number
	_, _ = rand.Read(d.run)                                                                                                                     // never returns an error
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(LogPath(path)); err == nil && o.Since.IsZero() {
			return nil, content{}, fmt.Errorf("%w, but its log %s is there", fs.ErrNotExist, LogPath(path))
		}
		if err := boltfile.Create(path, o.OpenFile, func(tx *bbolt.Tx) error { return putEmpty(tx, o.Since) }); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, content{}, err
		}
	}
	c, err := d.open()
	if err != nil {
		return nil, content{}, err
	}
	// It may stay as large as it is.
	if _, err := d.bolt.Shrink(boltfile.WorthShrinking); !d.bolt.IsOpen() {
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

// open opens the existing file, checks it and reads it.
func (d *database) open() (content, error) {
	c, err := d.openAndRead()
	if err != nil {
		return c, also(err, d.close())
	}
	return c, nil
}

func (d *database) openAndRead() (c content, err error) {
	if err := d.bolt.Open(); err != nil {
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

// also joins the error of cleaning up to the one that led there, on one line.
func also(err, cleanup error) error { return boltfile.Also(err, cleanup) }

// withoutPath spares a file name that is named already.
func withoutPath(err error) error { return boltfile.WithoutPath(err) }

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
	if !d.bolt.IsOpen() {
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
	c, err := d.open()
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
func (d *database) update(changes []change, log logState) error {
	log.epoch = d.state.epoch + 1
	changes = append(changes, change{metaBucket, []byte("log"), log.marshal()}, change{metaBucket, []byte("run"), d.run})
	err := d.bolt.Update(func(tx *bbolt.Tx) error { return apply(tx, changes) })
	if err == nil {
		d.state = log
	}
	return err
}

// close closes what is open.
func (d *database) close() (err error) {
	if d.log != nil {
		err = d.log.file.Close()
		d.log = nil
	}
	return also(err, d.bolt.Close())
}
