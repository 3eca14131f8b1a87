// Package filewatch tells when files have changed, however that was done: written in place, replaced by a rename as
// editors and package atomicfile do it, by way of a symbolic link that leads elsewhere now, made anew together with their
// folder.
//
// The kernel (inotify(7)) only wakes it. Whether something has changed is told by the files themselves: device, inode,
// size and times. So no event can be misunderstood or lost for good: a look once in a while finds what none was for, on a
// file system of another machine for example.
package filewatch

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	quiet      = 150 * time.Millisecond // nothing has happened for so long: who changes several files has done so
	patience   = 500 * time.Millisecond // from the first event, whatever follows
	lookEvery  = 10 * time.Second       // without an event
	blindEvery = time.Second            // where the kernel gives us none
)

// events are those that a change of a file causes when it is complete; what is being written is not. A file that is held
// open and written to, such as a database in the same folder, causes none.
const events = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CREATE | unix.IN_DELETE | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// Watcher compares files with what they were. It is safe for concurrent use.
type Watcher struct {
	other chan struct{} // a word to Run that there are other paths

	mu   sync.Mutex
	seen map[string]string // by path
}

// New makes a watcher of files and folders; of a folder, what it holds counts. None need exist. What they are now counts
// as seen.
func New(paths []string) *Watcher {
	w := &Watcher{other: make(chan struct{}, 1)}
	w.Set(paths)
	return w
}

// Set watches these paths from now on. Of those that were watched before, what is seen stays as it is; what the others
// are now counts as seen: who will read them calls Set before.
func (w *Watcher) Set(paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[string]string{}
	for _, path := range paths {
		was, known := w.seen[path]
		if !known {
			was = state(path)
		}
		seen[path] = was
	}
	w.seen = seen
	select {
	case w.other <- struct{}{}:
	default: // it has been told
	}
}

// See takes the files as they are now for seen, and reports whether that is news. Who reads them for another reason calls
// it before, so as not to be told of what it has read.
func (w *Watcher) See() (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for path, was := range w.seen {
		if is := state(path); is != was {
			w.seen[path], news = is, true
		}
	}
	return news
}

func (w *Watcher) paths() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.seen))
}

// state tells two states of a file apart, or of a folder.
func state(path string) string {
	text := stat(path)
	entries, err := os.ReadDir(path)
	if err != nil {
		return text // a file, most of the time
	}
	for _, e := range entries {
		text += " " + e.Name() + "=" + stat(filepath.Join(path, e.Name()))
	}
	return text
}

func stat(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return strings.TrimPrefix(err.Error(), "stat "+path)
	}
	text := fmt.Sprintf("%v %d %d", info.Mode(), info.Size(), info.ModTime().UnixNano())
	if info.IsDir() {
		text = info.Mode().String() // what is in it has its own
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && !info.IsDir() {
		text += fmt.Sprintf(" %d %d %d.%d", s.Dev, s.Ino, s.Ctim.Sec, s.Ctim.Nsec)
	}
	return text
}

// Run calls changed after each change, one call at a time, until ctx ends. It gives up on nothing: where the kernel has no
// more watches to give, it looks every second.
func (w *Watcher) Run(ctx context.Context, changed func()) {
	for ctx.Err() == nil {
		folders := w.folders()
		woken, stop, every := wake(folders)
		for ctx.Err() == nil {
			settle(ctx, woken) // at first, too: nobody told of what happened before
			if ctx.Err() == nil && w.See() {
				changed()
			}
			if !slices.Equal(folders, w.folders()) {
				break // one is there now, has been made anew, or has begun to matter
			}
			select {
			case <-ctx.Done():
			case <-time.After(every):
			case <-woken:
			case <-w.other:
			}
		}
		stop()
	}
}

// settle waits until whoever changes files is done.
func settle(ctx context.Context, woken <-chan struct{}) {
	last := time.After(patience)
	for {
		select {
		case <-woken:
		case <-time.After(quiet):
			return
		case <-last:
			return
		case <-ctx.Done():
			return
		}
	}
}

// folder is one that has to be watched. Made anew under the same name it is another.
type folder struct{ path, identity string }

// maxLinks is how many symbolic links a path may lead over.
const maxLinks = 16

// folders are those of each path, or the nearest one above where they are not there, and those of the symbolic links on
// the way.
func (w *Watcher) folders() []folder {
	var list []folder
	add := func(path string) { list = append(list, folder{path, identity(path)}) }
	var follow func(path string, links int)
	follow = func(path string, links int) {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			add(path)
		}
		above := filepath.Dir(path)
		for identity(above) == "" && above != filepath.Dir(above) {
			above = filepath.Dir(above)
		}
		add(above)
		for part := path; part != filepath.Dir(part) && links > 0; part = filepath.Dir(part) {
			target, err := os.Readlink(part)
			if err != nil {
				continue
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(part), target)
			}
			add(filepath.Dir(part))
			follow(target+path[len(part):], links-1)
		}
	}
	for _, path := range w.paths() {
		follow(path, maxLinks)
	}
	slices.SortFunc(list, func(a, b folder) int { return strings.Compare(a.path, b.path) })
	return slices.Compact(list)
}

// identity is empty for a folder that is not there.
func identity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "there"
	}
	return fmt.Sprintf("%d %d", s.Dev, s.Ino)
}

// wake has the kernel tell of events in the folders, until stop is called, and says how often to look without.
func wake(folders []folder) (woken <-chan struct{}, stop func(), every time.Duration) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}, blindEvery
	}
	every = lookEvery
	for _, f := range folders {
		if _, err := unix.InotifyAddWatch(fd, f.path, events); err != nil && f.identity != "" {
			every = blindEvery
		}
	}
	file := os.NewFile(uintptr(fd), "inotify")
	told, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 16<<10)
		for {
			if _, err := file.Read(buf); err != nil {
				return // stop was called
			}
			select {
			case told <- struct{}{}:
			default: // it has been told
			}
		}
	}()
	return told, func() { _ = file.Close(); <-ended }, every
}
