package boltfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"pinseal/internal/boltfile"
	"pinseal/internal/boltfile/disktest"
)

func create(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	fill := func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err }
	if err := boltfile.Create(path, os.OpenFile, fill); err != nil {
		t.Fatal(err)
	}
	if err := boltfile.Create(path, os.OpenFile, fill); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	return path
}

func put(tx *bbolt.Tx) error { return tx.Bucket([]byte("b")).Put([]byte("k"), []byte("v")) }

// A File that failed is closed and opened again, and goes on with what it had.
func TestOpenAgain(t *testing.T) {
	d := &disktest.Disk{}
	f := boltfile.New(create(t), d.Open)
	if err := errors.Join(f.Open(), f.Update(put)); err != nil {
		t.Fatal(err)
	}
	d.Fill(t)
	if err := f.Update(put); err == nil {
		t.Error("a full disk took it")
	}
	d.MakeRoom()
	if err := errors.Join(f.Close(), f.Open(), f.Update(put)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	err := f.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket([]byte("b")).Get([]byte("k")); string(v) != "v" {
			t.Errorf("it holds %q", v)
		}
		return nil
	})
	if err := errors.Join(err, f.Close()); err != nil || f.IsOpen() {
		t.Errorf("%v, open %v", err, f.IsOpen())
	}
}

func TestOpenRefuses(t *testing.T) {
	path := create(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": nil, "cut": whole[:3*boltfile.PageSize], "something else": make([]byte, len(whole)),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f := boltfile.New(path, os.OpenFile)
		if err := f.Open(); !errors.Is(err, boltfile.ErrDamaged) || f.IsOpen() {
			t.Errorf("%s: %v, open %v", name, err, f.IsOpen())
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := boltfile.New(path, os.OpenFile).Open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestInUse(t *testing.T) {
	path := create(t)
	f := boltfile.New(path, os.OpenFile)
	if err := f.Open(); err != nil {
		t.Fatal(err)
	}
	if err := boltfile.New(path, os.OpenFile).Open(); !errors.Is(err, boltfile.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
