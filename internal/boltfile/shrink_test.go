package boltfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"pinseal/internal/boltfile"
	"pinseal/internal/boltfile/disktest"
)

const least = 64 << 10

// bloated is a database of which little is left.
func bloated(t *testing.T, open boltfile.OpenFunc) (f *boltfile.File, path string) {
	t.Helper()
	path = create(t)
	f = boltfile.New(path, open)
	numbers := func(from, to uint32, do func(b *bbolt.Bucket, key []byte) error) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			for n := from; n < to; n++ {
				if err := do(tx.Bucket([]byte("b")), binary.BigEndian.AppendUint32(nil, n)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	fill := func(b *bbolt.Bucket, key []byte) error { return b.Put(key, bytes.Repeat(key, 100)) }
	nested := func(tx *bbolt.Tx) error {
		inner, err := tx.Bucket([]byte("b")).CreateBucket([]byte("inner"))
		return errors.Join(err, inner.Put([]byte("empty"), nil))
	}
	err := errors.Join(
		f.Open(), f.Update(put), f.Update(nested), f.Update(numbers(0, 2000, fill)), f.Update(numbers(50, 2000, (*bbolt.Bucket).Delete)),
		f.Close(), f.Open())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, path
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func dump(t *testing.T, f *boltfile.File) string {
	t.Helper()
	var b bytes.Buffer
	if err := f.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("b")).ForEach(func(k, v []byte) error {
			b.Write(append(append(k, ' '), v...))
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func noLeftovers(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestShrink(t *testing.T) {
	f, path := bloated(t, os.OpenFile)
	before, content := size(t, path), dump(t, f)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), ".x.db.shrunk"), []byte("of a process that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	if uid == 0 { // who looks at a service's database, which has to go on opening it
		uid = 12345
		if err := os.Chown(path, uid, 12346); err != nil {
			t.Fatal(err)
		}
	}
	if done, err := f.Shrink(least); !done || err != nil {
		t.Fatalf("%v, %v", done, err)
	}
	var after syscall.Stat_t
	if err := syscall.Stat(path, &after); err != nil || int(after.Uid) != uid {
		t.Errorf("its owner has changed: %d, %v", after.Uid, err)
	}
	if after := size(t, path); after > before/4 {
		t.Errorf("%d bytes, and %d before", after, before)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	noLeftovers(t, path)
	if got := dump(t, f); got != content {
		t.Error("the content has changed")
	}
	if err := boltfile.New(path, os.OpenFile).Open(); !errors.Is(err, boltfile.ErrInUse) {
		t.Errorf("the new file is not locked: %v", err)
	}
	if done, err := f.Shrink(least); done || err != nil {
		t.Errorf("once more: %v, %v", done, err)
	}
	if err := errors.Join(f.Update(put), f.Close(), f.Open(), f.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	})); err != nil {
		t.Error(err)
	}
	if got := dump(t, f); got != content {
		t.Error("opened again: the content has changed")
	}
}

// A file that is in use, or not worth it, or that only its name is here of, stays as it is.
func TestShrinkLeavesAlone(t *testing.T) {
	f, path := bloated(t, os.OpenFile)
	before := size(t, path)
	if done, err := f.Shrink(before); done || err != nil {
		t.Errorf("little to gain: %v, %v", done, err)
	}
	elsewhere := filepath.Join(t.TempDir(), "x.db")
	if err := errors.Join(os.Rename(path, elsewhere), os.Symlink(elsewhere, path)); err != nil {
		t.Fatal(err)
	}
	if done, err := f.Shrink(least); done || err != nil {
		t.Errorf("a symbolic link: %v, %v", done, err)
	}
	if size(t, path) != before {
		t.Error("it has changed")
	}
}

// A disk that is full leaves the database as it was.
func TestShrinkOnFullDisk(t *testing.T) {
	for _, name := range []string{"for files", "for what is in them"} {
		t.Run(name, func(t *testing.T) {
			d := &disktest.Disk{}
			made := false
			f, path := bloated(t, func(file string, flag int, perm os.FileMode) (*os.File, error) {
				f, err := d.Open(file, flag, perm)
				if filepath.Ext(file) == ".shrunk" && err == nil {
					made = true
					d.Fill(t)
				}
				return f, err
			})
			before, content := size(t, path), dump(t, f)
			if name == "for files" {
				d.Fill(t)
			}
			done, err := f.Shrink(least)
			if made != (name != "for files") {
				t.Errorf("the copy was begun: %v", made)
			}
			if done || !errors.Is(err, syscall.ENOSPC) || !f.IsOpen() {
				t.Errorf("%v, %v, open %v", done, err, f.IsOpen())
			}
			noLeftovers(t, path)
			if size(t, path) != before || dump(t, f) != content {
				t.Error("it has changed")
			}
			d.MakeRoom()
			if err := errors.Join(f.Close(), f.Open(), f.Update(put)); err != nil {
				t.Errorf("with room again: %v", err)
			}
		})
	}
}

// Who has waited for the lock of a file that was replaced meanwhile does not get to work on the old one.
func TestOpenAfterShrink(t *testing.T) {
	f, path := bloated(t, os.OpenFile)
	opened := false
	other := boltfile.New(path, func(name string, flag int, perm fs.FileMode) (*os.File, error) {
		old, err := os.OpenFile(filepath.Clean(name), flag, perm)
		if !opened {
			opened = true
			if done, err := f.Shrink(least); !done || err != nil {
				t.Errorf("%v, %v", done, err)
			}
		}
		return old, err
	})
	if err := other.Open(); !errors.Is(err, boltfile.ErrInUse) {
		t.Errorf("the file that has gone: %v", err)
	}
	if err := errors.Join(f.Close(), other.Open(), other.Close(), f.Open()); err != nil {
		t.Errorf("the new one: %v", err)
	}
}
