// Package atomicfile writes whole files so that a reader, or a power cut at
// any moment, finds the old content or the new one, and nothing in between.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Write replaces the file at path with data, creating it where it is missing.
// When it returns nil the new content is durable: the data were synced before
// the rename, and the folder after it.
//
// The file has exactly the mode perm, whatever the umask. The folder must
// exist and be writable. A symbolic link at path is replaced, not followed. On
// an error before the rename nothing changed and no temporary file is left.
// Concurrent writers of one path do not disturb each other: the last rename wins.
func Write(path string, data []byte, perm os.FileMode) error {
	return publish(path, data, perm, nil, os.Rename)
}

// WriteFor is Write for a file that belongs with the one at like, which must
// exist and may be at path itself: what root writes is its owner's and group's
// from the beginning, and root locks nobody out of what is his.
func WriteFor(like, path string, data []byte, perm os.FileMode) error {
	info, err := os.Lstat(like)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return publish(path, data, perm, info, os.Rename)
}

// SameOwner gives an open file to the owner and the group of another. Who is not
// root cannot, and need not: everything he makes is his own.
func SameOwner(f *os.File, like os.FileInfo) error {
	if to, ok := like.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return f.Chown(int(to.Uid), int(to.Gid))
	}
	return nil
}

// Create is Write for a file that must not exist yet: where path exists, even
// as a dangling symbolic link, it is left alone and the error matches
// [os.ErrExist]. Of several concurrent calls one succeeds.
func Create(path string, data []byte, perm os.FileMode) error {
	// A check first only spares the write; the link below is what decides.
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("creating %s: %w", path, os.ErrExist)
	}
	return publish(path, data, perm, nil, func(tmp, path string) error {
		// Unlike rename, link never replaces.
		if err := os.Link(tmp, path); err != nil {
			return err
		}
		return os.Remove(tmp)
	})
}

// publish writes a synced temporary file beside path, moves it to its name and
// syncs the folder. like is whose it is to be, nil being our own.
func publish(path string, data []byte, perm os.FileMode, like os.FileInfo, move func(tmp, path string) error) error {
	folder := filepath.Dir(path)
	tmp, err := writeTemporary(folder, filepath.Base(path), data, perm, like)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := move(tmp, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, removeLeftover(tmp)))
	}
	if err := SyncFolder(folder); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// writeTemporary returns the name of a new synced file in folder. The name
// begins with a dot, so that a pattern such as *.pem does not see it.
func writeTemporary(folder, base string, data []byte, perm os.FileMode, like os.FileInfo) (name string, err error) {
	f, err := os.CreateTemp(folder, "."+base+".*.tmp")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeLeftover(f.Name()))
		}
	}()
	// The mode comes before the data: they are never readable by others in between.
	err = f.Chmod(perm)
	if err == nil && like != nil {
		err = SameOwner(f, like)
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return f.Name(), err
}

func removeLeftover(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncFolder makes the names in a folder durable. Who relies on a file that it
// found needs it: another process may have made the file and been killed before
// it got this far.
func SyncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
