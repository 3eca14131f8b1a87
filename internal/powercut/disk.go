package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// kind is what an event does.
type kind string

const (
	write    kind = "write"    // data at offset of file
	truncate kind = "truncate" // file to the length offset
	rename   kind = "rename"   // names in one folder change: made, linked, renamed, removed
	sync     kind = "sync"     // file, or the names in folder, are durable
	failed   kind = "failed"   // a sync has returned an error: what it spoke for is durable or not, and never synced again
	mark     kind = "mark"     // the child said something
)

// event is one thing that happened.
type event struct {
	kind   kind
	file   int
	offset int64
	data   []byte
	names  map[string]int // files by name, relative to the folder; 0: no longer
	folder string         // of a sync
	began  int            // of a sync: how many events it can speak for
	text   string
	number int // in the order of all
}

// disk is the content of a folder. Files are numbered from 1, whatever their
// names. Folders in it are there from the start.
type disk struct {
	files map[int][]byte
	names map[string]int
}

func (d *disk) clone() *disk { return &disk{maps.Clone(d.files), maps.Clone(d.names)} }

// apply does what an event says. Contents are never changed in place: clones share them.
func (d *disk) apply(e event) {
	switch e.kind {
	case write:
		end := max(len(d.files[e.file]), int(e.offset)+len(e.data))
		content := make([]byte, end)
		copy(content, d.files[e.file])
		copy(content[e.offset:], e.data)
		d.files[e.file] = content
	case truncate:
		content := make([]byte, e.offset)
		copy(content, d.files[e.file])
		d.files[e.file] = content
	case rename:
		for name, file := range e.names {
			if file == 0 {
				delete(d.names, name)
			} else {
				d.names[name] = file
			}
		}
	case sync, failed, mark:
	}
}

// settles says whether a sync makes an earlier event durable.
func (e event) settles(i int, earlier event) bool {
	if i >= e.began {
		return false
	}
	if earlier.kind != rename {
		return e.file != 0 && e.file == earlier.file
	}
	for name := range earlier.names {
		return filepath.Dir(name) == e.folder
	}
	return false
}

func (d *disk) equal(other *disk) bool { return d.sum() == other.sum() }

// sum identifies what can be seen of the disk.
func (d *disk) sum() [32]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		content := d.files[d.names[name]]
		var n [16]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(name)))
		binary.BigEndian.PutUint64(n[8:], uint64(len(content)))
		_, _ = h.Write(n[:]) // never returns an error
		_, _ = h.Write([]byte(name))
		_, _ = h.Write(content)
	}
	return [32]byte(h.Sum(nil))
}

// store writes the disk into a folder, in place of what is there.
func (d *disk) store(folder string) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for name, file := range d.names {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, d.files[file], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// readDisk reads a folder, and the kernel's numbers of its files.
func readDisk(folder string) (*disk, map[uint64]int, error) {
	d, inodes := &disk{map[int][]byte{}, map[string]int{}}, map[uint64]int{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path) //nolint:gosec // nobody else is in the folder
		if err != nil {
			return err
		}
		inode, _, err := inodeOf(path)
		if err != nil {
			return err
		}
		if inodes[inode] == 0 {
			inodes[inode] = len(inodes) + 1
			d.files[inodes[inode]] = bytes.Clone(content)
		}
		name, err := filepath.Rel(folder, path)
		d.names[name] = inodes[inode]
		return err
	})
	return d, inodes, err
}
