package flash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// File is a file of a volume, a symbolic link or, with fs.ModeDir, a folder.
type File struct {
	Path string      // relative to the volume, with slashes
	Mode fs.FileMode // permissions; a FAT volume keeps none
	Data []byte
	Link string // what a symbolic link points to; empty for a file
}

// Volume is a file system of the card. A file that is not there is fs.ErrNotExist.
type Volume interface {
	Read(name string) (File, error)
	// Write makes or replaces a file whole, and the folders above it. A folder that is there stays as it is.
	Write(f File) error
	// Sync returns when everything written is on the card and Read reads it from there.
	Sync() error
	// Rollback undoes every Write, newest first, and names the files for which it could not.
	Rollback() (left []string)
}

// Folder is a mounted volume. Nothing outside of it can be reached, whatever links the card holds.
type Folder struct {
	root *os.Root
	made []undo // what Write did
}

// undo is what was there before a Write.
type undo struct {
	path  string
	old   File
	isNew bool
}

// OpenFolder is the volume that is mounted at dir.
func OpenFolder(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the card's folder: %w", err)
	}
	return &Folder{root: root}, nil
}

// Close lets go of the folder, so that it can be unmounted.
func (v *Folder) Close() error { return v.root.Close() }

// Read is Volume's; a folder's Mode has fs.ModeDir.
func (v *Folder) Read(name string) (File, error) {
	info, err := v.root.Lstat(name)
	if err != nil {
		return File{}, err
	}
	f := File{Path: name, Mode: info.Mode() & (fs.ModePerm | fs.ModeDir)}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		f.Link, err = v.root.Readlink(name)
	case !info.IsDir():
		f.Data, err = v.root.ReadFile(name)
	}
	return f, err
}

// Write is Volume's.
func (v *Folder) Write(f File) error {
	if f.Mode.IsDir() {
		return v.makeFolder(f.Path, f.Mode.Perm())
	}
	if err := v.makeFolder(path.Dir(f.Path), 0o755); err != nil {
		return err
	}
	old, err := v.Read(f.Path)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isNew {
		return err
	}
	if err := v.put(f); err != nil {
		return err
	}
	v.made = append(v.made, undo{f.Path, old, isNew})
	return nil
}

// put makes a file beside the one it then replaces.
func (v *Folder) put(f File) error {
	beside := f.Path + ".pinseal-new"
	if err := v.removeIfThere(beside); err != nil {
		return err
	}
	err := v.writeNew(beside, f)
	if err == nil {
		err = v.root.Rename(beside, f.Path)
	}
	if err != nil {
		return errors.Join(err, v.removeIfThere(beside))
	}
	return nil
}

func (v *Folder) writeNew(name string, f File) (err error) {
	if f.Link != "" {
		return v.root.Symlink(f.Link, name)
	}
	file, err := v.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Chmod(f.Mode); err != nil && !errors.Is(err, fs.ErrPermission) { // FAT refuses modes
		return err
	}
	if _, err := file.Write(f.Data); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	// What is read back must come from the card and not from memory. It is advice: where it is not
	// taken, as on a tmpfs, nothing is lost.
	_ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

func (v *Folder) removeIfThere(name string) error {
	if err := v.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (v *Folder) makeFolder(dir string, mode fs.FileMode) error {
	info, err := v.root.Stat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := v.makeFolder(path.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := v.root.Mkdir(dir, mode); err != nil {
		return err
	}
	v.made = append(v.made, undo{path: dir, isNew: true})
	if err := v.root.Chmod(dir, mode); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// Rollback is Volume's.
func (v *Folder) Rollback() (left []string) {
	for _, u := range slices.Backward(v.made) {
		var err error
		if u.isNew {
			err = v.removeIfThere(u.path)
		} else {
			err = v.put(u.old)
		}
		if err != nil {
			left = append(left, u.path)
		}
	}
	v.made = nil
	if err := v.Sync(); err != nil {
		left = append(left, err.Error())
	}
	return left
}

// Sync is Volume's.
func (v *Folder) Sync() error {
	dir, err := v.root.Open(".")
	if err != nil {
		return err
	}
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return errors.Join(fmt.Errorf("syncing: %w", err), dir.Close())
	}
	return dir.Close()
}
