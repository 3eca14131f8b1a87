package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const bootIDPath = "/proc/sys/kernel/random/boot_id"

// link is what /proc says of one of the child's files, with its working folder
// as AT_FDCWD.
func link(pid int, fd uint64) string {
	if int32(fd) == unix.AT_FDCWD { //nolint:gosec // the kernel takes it as an int
		return fmt.Sprintf("/proc/%d/cwd", pid)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
}

// file returns our number of an open file, 0 for none of the folder's.
func (r *recorder) file(pid int, fd uint64) int {
	inode, _, err := inodeOf(link(pid, fd))
	if err != nil {
		return 0
	}
	return r.inodes[inode]
}

func inodeOf(path string) (inode uint64, folder bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false, errors.New("no inode numbers")
	}
	return stat.Ino, info.IsDir(), nil
}

// pathOf is the path of an open file, "" if it has none.
func pathOf(pid int, fd uint64) string {
	path, err := os.Readlink(link(pid, fd))
	if err != nil {
		return ""
	}
	return path
}

// inFolder returns a path relative to the folder, "" if it is outside.
func (r *recorder) inFolder(path string) string {
	if path == r.folder {
		return "."
	}
	if rest, ok := strings.CutPrefix(path, r.folder+"/"); ok {
		return rest
	}
	return ""
}

// name reads a path argument.
func (r *recorder) name(pid int, fd, address uint64) (string, error) {
	s, err := text(pid, address)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(s) {
		at, err := os.Readlink(link(pid, fd))
		if err != nil {
			return "", err
		}
		s = filepath.Join(at, s)
	}
	return r.inFolder(filepath.Clean(s)), nil
}

// enter reads what the call will do, as far as that can only be seen before.
func (r *recorder) enter(pid int, c *call) error {
	var err error
	switch c.number {
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		err = r.enterWrite(pid, c)
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT:
		var from, to string
		if from, err = r.name(pid, c.args[0], c.args[1]); err != nil {
			return err
		}
		if to, err = r.name(pid, c.args[2], c.args[3]); err != nil || from == "" && to == "" {
			return err
		}
		if filepath.Dir(from) != filepath.Dir(to) {
			return fmt.Errorf("%s and %s are in two folders", from, to)
		}
		names := map[string]int{to: r.now.names[from], from: 0}
		if c.number == unix.SYS_LINKAT {
			delete(names, from)
		}
		c.event = &event{kind: rename, names: names}
	case unix.SYS_UNLINKAT:
		var name string
		if name, err = r.name(pid, c.args[0], c.args[1]); err == nil && name != "" && c.args[2]&unix.AT_REMOVEDIR == 0 {
			c.event = &event{kind: rename, names: map[string]int{name: 0}}
		}
	}
	return err
}

// enterWrite takes what is written. A line on standard output is a mark.
func (r *recorder) enterWrite(pid int, c *call) error {
	const standardOutput = 1
	file := r.file(pid, c.args[0])
	if file == 0 && c.args[0] != standardOutput {
		return nil
	}
	data, err := memory(pid, c.args[1], int(c.args[2])) //nolint:gosec // what the child has in memory
	if err != nil {
		return err
	}
	if c.args[0] == standardOutput {
		r.add(event{kind: mark, text: strings.TrimSuffix(string(data), "\n")})
		return nil
	}
	offset := int64(c.args[3]) //nolint:gosec // an off_t
	if c.number == unix.SYS_WRITE {
		if offset, err = position(pid, c.args[0]); err != nil {
			return err
		}
	}
	c.event = &event{kind: write, file: file, offset: offset, data: data}
	return nil
}

// position is where the next write to a file will go.
func position(pid int, fd uint64) (int64, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(info), "\n")
	return strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(line, "pos:")), 10, 64)
}

// exit adds what the call has done.
func (r *recorder) exit(pid int, c call, result int) error {
	switch c.number {
	case unix.SYS_OPENAT:
		return r.opened(pid, c.args[2], result)
	case unix.SYS_READ:
		return r.pretendBoot(pid, c, result)
	case unix.SYS_FTRUNCATE:
		if file := r.file(pid, c.args[0]); file != 0 {
			r.add(event{kind: truncate, file: file, offset: int64(c.args[1])}) //nolint:gosec // an off_t
		}
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		return r.synced(pid, c, sync)
	default:
		if c.event == nil {
			return nil
		}
		if c.event.kind == write {
			c.event.data = c.event.data[:result]
		}
		r.add(*c.event)
	}
	return nil
}

// opened learns of a file that was made or emptied. A file of a folder that is
// new to the disk has the number of a file long gone, or one never seen.
func (r *recorder) opened(pid int, flags uint64, fd int) error {
	path, err := os.Readlink(link(pid, uint64(fd))) //nolint:gosec // not negative
	name := r.inFolder(path)
	if err != nil || name == "" || name == "." {
		return err
	}
	inode, folder, err := inodeOf(link(pid, uint64(fd))) //nolint:gosec // not negative
	if err != nil || folder {
		return err
	}
	switch file := r.now.names[name]; {
	case file == 0:
		file = len(r.now.files) + 1
		r.inodes[inode] = file
		r.now.files[file] = nil
		r.add(event{kind: rename, names: map[string]int{name: file}})
	case flags&unix.O_TRUNC != 0:
		r.add(event{kind: truncate, file: file})
	}
	return nil
}

// synced adds a sync, or one that has failed.
func (r *recorder) synced(pid int, c call, as kind) error {
	e := event{kind: as, began: c.events}
	path, err := os.Readlink(link(pid, c.args[0]))
	if err != nil {
		return err
	}
	_, folder, err := inodeOf(link(pid, c.args[0]))
	if err != nil {
		return err
	}
	if folder {
		e.folder = r.inFolder(path)
	} else {
		e.file = r.file(pid, c.args[0])
	}
	if e.folder != "" || e.file != 0 {
		r.add(e)
	}
	return nil
}

// pretendBoot lets the child read its boot id.
func (r *recorder) pretendBoot(pid int, c call, n int) error {
	if path, err := os.Readlink(link(pid, c.args[0])); err != nil || path != bootIDPath || n == 0 {
		return nil //nolint:nilerr // a file that is closed meanwhile is none that we want
	}
	b := []byte(r.bootID + "\n")
	if n != len(b) {
		return fmt.Errorf("a boot id of %d bytes", n)
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	_, err := unix.ProcessVMWritev(pid, local, []unix.RemoteIovec{{Base: uintptr(c.args[1]), Len: n}}, 0)
	return err
}

func (r *recorder) add(e event) {
	e.number = len(r.events)
	r.events = append(r.events, e)
	r.now.apply(e)
}
