package boltfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"

	"pinseal/internal/atomicfile"
)

// WorthShrinking is how many bytes of a file must be free before it is worth a copy of the rest.
const WorthShrinking = 1 << 20

// copyBytes is how much of a database is copied in one transaction, which lies in memory.
const copyBytes = 1 << 20

// Shrink gives the disk back what the open database does not use, where that is three quarters of the file and at least
// so many bytes: bbolt itself never makes a file smaller. It reports whether it did.
//
// The content is copied to a new file, which is synced and then takes the name of the old: a power cut leaves the one or
// the other, and both say the same. Where the disk has no room for both, nothing is done. After an error the database is
// open as it was, or, where it is not known which of the two files a power cut would leave, [File.IsOpen] is false.
func (f *File) Shrink(least int64) (done bool, err error) {
	if err := removeLeftover(f.copyPath()); err != nil {
		return false, err
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		return false, err
	}
	used := int64(f.used) * PageSize
	free := info.Size() - used
	if !info.Mode().IsRegular() || free < least || used > info.Size()/4 || !hasRoomFor(f.path, used) {
		return false, nil
	}
	next, err := f.copy()
	if err != nil {
		return false, Also(err, removeLeftover(f.copyPath()))
	}
	if err = atomicfile.SameOwner(next.file, info); err == nil { // root may be looking at a service's database
		err = os.Rename(f.copyPath(), f.path)
	}
	if err != nil {
		return false, Also(Also(err, next.Close()), removeLeftover(f.copyPath()))
	}
	err = f.Close()
	f.bolt, f.file, f.used = next.bolt, next.file, next.used
	if err = Also(err, atomicfile.SyncFolder(filepath.Dir(f.path))); err != nil {
		return false, Also(err, f.Close())
	}
	return true, nil
}

// copyPath is always the same, so that no number of kills leaves more than one file behind.
func (f *File) copyPath() string {
	return filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+".shrunk")
}

func removeLeftover(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// hasRoomFor reports whether the disk would still have as much left after a copy: bbolt makes files up to twice as large
// as what is in them.
func hasRoomFor(path string, used int64) bool {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return false
	}
	return s.Bavail > uint64(3*used+copyBytes)/uint64(s.Bsize) //nolint:gosec // neither is negative
}

// copy makes a synced copy of the content. It is open, and so it is locked before it has the name that others open.
func (f *File) copy() (*File, error) {
	next := New(f.copyPath(), f.openFile)
	if err := f.fill(next); err != nil {
		return nil, Also(err, next.Close())
	}
	next.bolt.NoSync, next.bolt.NoGrowSync = false, false
	return next, nil
}

func (f *File) fill(next *File) (err error) {
	defer next.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	o := options(func(name string, _ int, perm os.FileMode) (file *os.File, err error) {
		file, err = f.openFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
		next.file = file
		return file, err
	})
	o.NoSync, o.NoGrowSync = true, true // once, at the end
	if next.bolt, err = bbolt.Open(next.path, 0o600, o); err != nil {
		return err
	}
	if err := bbolt.Compact(next.bolt, f.bolt, copyBytes); err != nil {
		return err
	}
	if err := next.file.Sync(); err != nil {
		return err
	}
	next.used, err = check(next.file)
	return err
}
