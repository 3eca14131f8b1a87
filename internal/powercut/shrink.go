package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"pinseal/internal/boltfile"
)

const (
	bulk     = 40 << 10 // bytes that come and go
	toShrink = 8 << 10  // free bytes that are worth it here
)

func openBolt(folder string) (*boltfile.File, error) {
	path := filepath.Join(folder, "bolt.db")
	err := boltfile.Create(path, os.OpenFile, func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("b"))
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f := boltfile.New(path, os.OpenFile)
	return f, f.Open()
}

// liveShrink is a database that gets large, is emptied but for a value, and shrinks; and then gets another value.
func liveShrink(folder string, tell func(string, ...any)) error {
	for range 2 {
		f, err := openBolt(folder)
		if err != nil {
			return err
		}
		inBucket := func(do func(b *bbolt.Bucket) error) error {
			return f.Update(func(tx *bbolt.Tx) error { return do(tx.Bucket([]byte("b"))) })
		}
		put := func(key string) error {
			if err := inBucket(func(b *bbolt.Bucket) error { return b.Put([]byte(key), []byte(key)) }); err != nil {
				return err
			}
			tell("%s", key)
			return nil
		}
		come := func(b *bbolt.Bucket) error { return b.Put([]byte("bulk"), make([]byte, bulk)) }
		gone := func(b *bbolt.Bucket) error { return b.Delete([]byte("bulk")) }
		if err := errors.Join(put("before"), inBucket(come), inBucket(gone), f.Close(), f.Open()); err != nil {
			return err
		}
		if done, err := f.Shrink(toShrink); !done || err != nil {
			return fmt.Errorf("shrunk: %v, %w", done, err)
		}
		if err := errors.Join(put("after"), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// judgeShrink: all that was put is there, and the database goes on, also through one more shrinking.
func judgeShrink(folder string, marks []string) error {
	f, err := openBolt(folder)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	look := func(tx *bbolt.Tx) error {
		for _, key := range marks {
			if got := tx.Bucket([]byte("b")).Get([]byte(key)); !bytes.Equal(got, []byte(key)) {
				return fmt.Errorf("%s was on the disk and is %q", key, got)
			}
		}
		return nil
	}
	if err = f.View(look); err == nil {
		_, err = f.Shrink(toShrink)
	}
	return errors.Join(err, f.View(look), f.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("b")).Put([]byte("k"), nil) }), f.Close())
}
