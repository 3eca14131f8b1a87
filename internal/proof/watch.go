package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lines is how many lines the simulated chip has.
const lines = 28

// watch counts every write to the lines of a node, whichever process makes it and however it ends: the kernel keeps the
// record (inotify). So an action cannot hide, not even one that the node did not live to tell.
//
// The kernel merges an event with the one before it if they are the same. Therefore the folder is watched beside its
// files: each write gives one event of either, and no two of a kind come together. newWatch tries it out.
type watch struct {
	dir     string
	inotify *os.File
	fence   *os.File
	lineOf  map[int32]int // watch descriptor: line, -1 for the fence

	mu      sync.Mutex
	passed  sync.Cond
	writes  [lines]int
	waiting [lines]chan time.Time
	fences  int // how many writes to the fence were seen
	raised  int // and made
	err     error
}

const (
	fenceFile = "fence"
	probes    = 100
	eventSize = unix.SizeofInotifyEvent
)

func lineName(line int) string { return fmt.Sprintf("GPIO%d", line) }

// newWatch makes the files of the lines, low, and watches them.
func newWatch(dir string) (*watch, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as the node makes it
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching the lines: %w", err)
	}
	w := &watch{dir: dir, inotify: os.NewFile(uintptr(fd), "inotify"), lineOf: map[int32]int{}}
	w.passed.L = &w.mu
	if err := w.addAll(fd); err != nil {
		return nil, errors.Join(err, w.close())
	}
	for range probes {
		if err := w.raise(); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	go w.run()
	if err := w.settle(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	if w.fences != w.raised {
		return nil, errors.Join(fmt.Errorf("the kernel reports %d of %d writes: they cannot be counted here", w.fences, w.raised), w.close())
	}
	return w, nil
}

func (w *watch) addAll(fd int) (err error) {
	if w.fence, err = os.Create(filepath.Join(w.dir, fenceFile)); err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, w.dir, unix.IN_MODIFY); err != nil {
		return fmt.Errorf("watching %s: %w", w.dir, err)
	}
	for line := range lines {
		if err := os.WriteFile(filepath.Join(w.dir, lineName(line)), []byte("0"), 0o644); err != nil { //nolint:gosec // as the node makes it
			return err
		}
	}
	for line := -1; line < lines; line++ {
		name := fenceFile
		if line >= 0 {
			name = lineName(line)
		}
		wd, err := unix.InotifyAddWatch(fd, filepath.Join(w.dir, name), unix.IN_MODIFY)
		if err != nil {
			return fmt.Errorf("watching %s: %w", name, err)
		}
		w.lineOf[int32(wd)] = line //nolint:gosec // the kernel's are small
	}
	return nil
}

func (w *watch) run() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(buffer)
		at := time.Now()
		if err != nil {
			w.end(err)
			return
		}
		for events := buffer[:n]; len(events) >= eventSize; {
			wd := int32(binary.NativeEndian.Uint32(events)) //nolint:gosec // inotify(7)
			if binary.NativeEndian.Uint32(events[4:])&unix.IN_Q_OVERFLOW != 0 {
				w.end(errors.New("more writes to the lines than the kernel could report"))
				return
			}
			w.count(wd, at)
			events = events[eventSize+int(binary.NativeEndian.Uint32(events[12:])):]
		}
	}
}

func (w *watch) count(wd int32, at time.Time) {
	line, ok := w.lineOf[wd]
	if !ok {
		return // the folder's
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if line < 0 {
		w.fences++
		w.passed.Broadcast()
		return
	}
	w.writes[line]++
	if waiting := w.waiting[line]; waiting != nil {
		waiting <- at
		w.waiting[line] = nil
	}
}

func (w *watch) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	w.passed.Broadcast()
}

func (w *watch) raise() error {
	w.raised++
	_, err := w.fence.WriteAt([]byte{'0'}, 0)
	return err
}

// settle returns when every write that was made before is counted.
func (w *watch) settle() error {
	if err := w.raise(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.fences < w.raised && w.err == nil {
		w.passed.Wait()
	}
	return w.err
}

// snapshot is how often each line was written to so far.
func (w *watch) snapshot() (counts [lines]int, err error) {
	err = w.settle()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes, err
}

// level reads a line as anybody may.
func (w *watch) level(line int) (on bool, err error) {
	text, err := os.ReadFile(filepath.Join(w.dir, lineName(line)))
	switch {
	case err != nil:
		return false, err
	case bytes.Equal(text, []byte("0")), bytes.Equal(text, []byte("1")):
		return text[0] == '1', nil
	}
	return false, fmt.Errorf("%s holds %q", lineName(line), text)
}

// next tells when the line is written to next. Only the latest caller for a line is told.
func (w *watch) next(line int) <-chan time.Time {
	at := make(chan time.Time, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[line] = at
	return at
}

func (w *watch) close() error {
	return errors.Join(w.inotify.Close(), w.fence.Close())
}
