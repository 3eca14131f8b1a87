package outbox

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"pinseal/internal/boltfile"
)

const (
	chunksBucket = "chunks"
	stateBucket  = "state"
	doneKey      = "done"
)

// store is the database. Box.mu guards it.
type store struct{ file *boltfile.File }

// openStore opens the database, or makes it; one that cannot be read is moved away.
func openStore(path string, o Options) (*store, error) {
	path = filepath.Clean(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	s := &store{boltfile.New(path, o.OpenFile)}
	if err := create(path, o); err != nil {
		return nil, err
	}
	err := s.file.Open()
	if err == nil {
		_, _, err = s.index()
	}
	if err == nil {
		return s, s.shrink(o)
	}
	if !errors.Is(err, boltfile.ErrDamaged) {
		return s, err
	}
	aside := path + ".damaged"
	o.Log.Error("the outbox cannot be read and is moved away; what waited in it is lost", "to", aside, "error", err)
	_ = s.file.Close() // it is of no use
	if err := os.Rename(path, aside); err != nil {
		return nil, err
	}
	if err := create(path, o); err != nil {
		return nil, err
	}
	return s, s.file.Open()
}

// shrink gives back what a backlog took that is gone.
func (s *store) shrink(o Options) error {
	_, err := s.file.Shrink(boltfile.WorthShrinking)
	if err != nil && s.file.IsOpen() {
		o.Log.Warn("the outbox's file stays as large as it is", "error", err)
		return nil
	}
	return err
}

// create makes the database where there is none.
func create(path string, o Options) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return boltfile.Create(path, o.OpenFile, func(tx *bbolt.Tx) error {
		for _, name := range []string{chunksBucket, stateBucket} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// index reads which chunks there are, and what is done of them.
func (s *store) index() (chunks []*chunk, done []uint64, err error) {
	err = s.file.View(func(tx *bbolt.Tx) error {
		bucket, state := tx.Bucket([]byte(chunksBucket)), tx.Bucket([]byte(stateBucket))
		if bucket == nil || state == nil {
			return boltfile.ErrDamaged
		}
		for b := state.Get([]byte(doneKey)); len(b) >= 8; b = b[8:] {
			done = append(done, binary.BigEndian.Uint64(b))
		}
		return bucket.ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return boltfile.ErrDamaged
			}
			c, err := parseChunkHeader(binary.BigEndian.Uint64(k), v)
			chunks = append(chunks, c)
			return err
		})
	})
	return chunks, done, err
}

// load reads the messages of a chunk.
func (s *store) load(c *chunk) (items []*item, err error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	err = s.file.View(func(tx *bbolt.Tx) (err error) {
		items, err = c.unpack(tx.Bucket([]byte(chunksBucket)).Get(key(c)))
		return err
	})
	return items, err
}

// write deletes chunks, adds others, and replaces what is done, in one commit.
func (s *store) write(emptied, added []*chunk, done []uint64) error {
	if err := s.ready(); err != nil {
		return err
	}
	err := s.file.Update(func(tx *bbolt.Tx) error {
		chunks := tx.Bucket([]byte(chunksBucket))
		chunks.FillPercent = 1 // the keys ascend
		for _, c := range emptied {
			if err := chunks.Delete(key(c)); err != nil {
				return err
			}
		}
		for _, c := range added {
			if err := chunks.Put(key(c), c.value); err != nil {
				return err
			}
		}
		list := make([]byte, 0, 8*len(done))
		for _, position := range done {
			list = binary.BigEndian.AppendUint64(list, position)
		}
		return tx.Bucket([]byte(stateBucket)).Put([]byte(doneKey), list)
	})
	if err != nil {
		// What the disk has of it is unknown; opened anew, the file says.
		return boltfile.Also(err, s.file.Close())
	}
	return nil
}

// ready opens the database again after a failure.
func (s *store) ready() error {
	if s.file.IsOpen() {
		return nil
	}
	return s.file.Open()
}

func key(c *chunk) []byte { return binary.BigEndian.AppendUint64(nil, c.first) }

func (s *store) close() error { return s.file.Close() }
