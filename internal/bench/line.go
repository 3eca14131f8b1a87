package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// change is a change of the line, and when it was seen.
type change struct {
	on bool
	at time.Time
}

// watch sees the line of a stack change, by inotify: the same for both, without asking either.
type watch struct {
	path    string
	inotify *os.File
	changes chan change
}

func watchLine(path string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching the line: %w", err)
	}
	w := &watch{path: path, inotify: os.NewFile(uintptr(fd), "inotify"), changes: make(chan change, 1024)}
	// The folder, so that a file which is replaced is watched as well as one that is written to.
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY|unix.IN_MOVED_TO); err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s: %w", path, err), w.inotify.Close())
	}
	go w.run()
	return w, nil
}

func (w *watch) run() {
	defer close(w.changes)
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(buffer)
		at := time.Now()
		if err != nil {
			return // closed
		}
		if !concerns(buffer[:n], filepath.Base(w.path)) {
			continue
		}
		level, err := os.ReadFile(w.path)
		if err != nil || len(level) == 0 {
			continue
		}
		select {
		case w.changes <- change{level[0] == '1', at}:
		default: // nobody waits for any
		}
	}
}

// concerns reports whether one of the events is about the file name; see inotify(7).
func concerns(events []byte, name string) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		length := binary.NativeEndian.Uint32(events[12:])
		end := unix.SizeofInotifyEvent + int(length)
		if string(bytes.TrimRight(events[unix.SizeofInotifyEvent:end], "\x00")) == name {
			return true
		}
		events = events[end:]
	}
	return false
}

// await waits until the line is seen to be on or off.
func (w *watch) await(ctx context.Context, on bool) (time.Time, error) {
	for {
		select {
		case c := <-w.changes:
			if c.on == on {
				return c.at, nil
			}
		case <-ctx.Done():
			return time.Time{}, errors.New("the line did not change in time")
		}
	}
}

func (w *watch) close() error { return w.inotify.Close() }
