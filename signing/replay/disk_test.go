package replay_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"pinseal/signing/replay"
)

// disk opens files for a store and can break under it.
type disk struct {
	mu    sync.Mutex
	files map[string]*os.File // as opened last, by ".db" and ".log"
	mode  string              // how the next file is opened: "", "read-only" or "gone"
	only  string              // what breaks; empty: both
}

func (d *disk) open(name string, flag int, perm os.FileMode) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.HasSuffix(name, d.only) {
		switch d.mode {
		case "gone":
			return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EIO}
		case "full":
			name = "/dev/full"
		case "read-only":
			flag &^= os.O_RDWR // writing fails, as to a disk that has become read-only
		}
	}
	f, err := os.OpenFile(name, flag, perm)
	if d.files == nil {
		d.files = map[string]*os.File{}
	}
	if ext := filepath.Ext(name); ext != ".tmp" {
		d.files[ext] = f
	}
	return f, err
}

// breaks makes the open files the one named by device, or read-only where that
// is empty, and the next as mode says.
func (d *disk) breaks(t *testing.T, device string, mode string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mode = mode
	for _, file := range d.files {
		if !strings.HasSuffix(file.Name(), d.only) || file.Fd() == ^uintptr(0) {
			continue // another, or closed
		}
		name, flag := device, os.O_RDWR
		if device == "" {
			name, flag = file.Name(), os.O_RDONLY
		}
		f, err := os.OpenFile(name, flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = syscall.Dup3(int(f.Fd()), int(file.Fd()), syscall.O_CLOEXEC)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *disk) comesBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mode = ""
}

func TestBrokenDisk(t *testing.T) {
	tests := []struct {
		name, device string // empty: the files themselves, read-only
		only         string
		first, then  error
		mode         string
	}{
		{"full, and then unreadable", "/dev/full", "", syscall.ENOSPC, syscall.EIO, "gone"},
		{"full, and then read-only", "/dev/full", "", syscall.ENOSPC, syscall.EBADF, "read-only"},
		{"read-only", "", "", syscall.EBADF, syscall.EBADF, "read-only"},
		{"the log alone is full, and then unreadable", "/dev/full", ".log", syscall.ENOSPC, syscall.EIO, "gone"},
		{"the log alone is full, and cannot be made", "/dev/full", ".log", syscall.ENOSPC, syscall.ENOSPC, "full"},
		{"the log alone is read-only", "", ".log", syscall.EBADF, syscall.EIO, "gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, d := path(t), &disk{only: tt.only}
			s := open(t, p, replay.Options{OpenFile: d.open, FlushEvery: time.Hour})
			commands := func(n uint64) (replay.Outcome, error) {
				o, c := s.Command("k", "led", n, digest("a"))
				return o, c.Wait()
			}
			if o, err := commands(1); o != replay.New || err != nil {
				t.Fatalf("%v, %v", o, err)
			}
			s.Telemetry("k", "t", 1, digest("a"))
			d.breaks(t, tt.device, tt.mode)
			for i, want := range []error{tt.first, tt.then, tt.then} {
				o, err := commands(uint64(2 + i))
				if o != replay.New || !errors.Is(err, want) || !strings.Contains(err.Error(), p) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("command %d on the broken disk: %v, %v, want %v", i, o, err, want)
				}
			}
			if o, err := commands(3); o != replay.Replay || err != nil {
				t.Errorf("a number used up by a failed commit: %v, %v", o, err)
			}
			if o, c := s.Legacy("k", 1700000000, digest("a")); o != replay.New || c.Wait() == nil {
				t.Errorf("legacy: %v, %v", o, c.Wait())
			}
			if err := s.Reset("lost"); err == nil {
				t.Error("Reset succeeds")
			}
			d.comesBack()
			// Another output: what failed before must be written with it.
			if o, c := s.Command("k", "fan", 1, digest("a")); o != replay.New || c.Wait() != nil {
				t.Fatalf("after the disk came back: %v, %v", o, c.Wait())
			}
			// As a power cut would find it: without a Close.
			after := open(t, copyState(t, p), replay.Options{})
			if o, _ := after.Command("k", "led", 4, digest("a")); o != replay.Duplicate {
				t.Errorf("the command of the failed commit: %v", o)
			}
			if o, _ := after.Command("k", "fan", 1, digest("a")); o != replay.Duplicate {
				t.Errorf("the command of the good commit: %v", o)
			}
			if o, _ := after.Legacy("k", 1700000000, digest("a")); o != replay.Duplicate {
				t.Errorf("the legacy message of the failed commit: %v", o)
			}
			closeStore(t, s)
			after = open(t, p, replay.Options{})
			if o := after.Telemetry("k", "t", 1, digest("a")); o != replay.Duplicate {
				t.Errorf("telemetry: %v", o)
			}
		})
	}
}

func TestResetOnABrokenDisk(t *testing.T) {
	p, d := path(t), &disk{}
	s := open(t, p, replay.Options{OpenFile: d.open})
	if _, c := s.Command("k", "led", 9, digest("a")); c.Wait() != nil {
		t.Fatal(c.Wait())
	}
	d.breaks(t, "/dev/full", "gone")
	if err := s.Reset("k"); err == nil {
		t.Fatal("Reset succeeds")
	}
	if o, c := s.Command("k", "led", 5, digest("a")); o != replay.New || c.Wait() == nil {
		t.Errorf("forgotten in memory: %v, %v", o, c.Wait())
	}
	d.comesBack()
	closeStore(t, s)
	s = open(t, p, replay.Options{})
	if o, _ := s.Command("k", "led", 5, digest("a")); o != replay.Duplicate {
		t.Errorf("the number after the Reset: %v", o)
	}
}

func TestCloseOnABrokenDisk(t *testing.T) {
	p, d := path(t), &disk{}
	s := open(t, p, replay.Options{OpenFile: d.open})
	s.Telemetry("k", "t", 1, digest("a"))
	d.breaks(t, "/dev/full", "gone")
	if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("again: %v", err)
	}
	closeStore(t, open(t, p, replay.Options{})) // and the lock is free
}

// A file that shrinks while it is mapped raises SIGBUS.
func TestFileTruncatedWhileOpen(t *testing.T) {
	p := path(t)
	s := open(t, p, replay.Options{})
	if err := os.Truncate(p, 0); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		o, c := s.Command("k", "led", i, digest("a"))
		if err := c.Wait(); o != replay.New || !errors.Is(err, replay.ErrDamaged) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%v, %v", o, err)
		}
	}
	if err := s.Close(); !errors.Is(err, replay.ErrDamaged) {
		t.Errorf("closing: %v", err)
	}
}

// After a failed commit the file is not ours for a moment. What another process
// wrote then must not be overwritten from our memory.
func TestAnotherProcessTakesTheFile(t *testing.T) {
	p, d := path(t), &disk{}
	s := open(t, p, replay.Options{OpenFile: d.open, FlushEvery: time.Hour})
	d.breaks(t, "/dev/full", "")
	command := func(n uint64) error {
		_, c := s.Command("k", "led", n, digest("a"))
		return c.Wait()
	}
	if err := command(1); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	other := open(t, p, replay.Options{})
	if err := command(2); !errors.Is(err, replay.ErrInUse) {
		t.Errorf("while it holds the file: %v", err)
	}
	if _, c := other.Command("k", "led", 100, digest("a")); c.Wait() != nil {
		t.Fatal(c.Wait())
	}
	closeStore(t, other)
	if err := command(3); err == nil || !strings.Contains(err.Error(), "another process wrote") {
		t.Errorf("after it wrote: %v", err)
	}
	if err := s.Close(); err == nil {
		t.Error("closing succeeds")
	}
	after := open(t, p, replay.Options{})
	if o, _ := after.Command("k", "led", 100, digest("a")); o != replay.Duplicate {
		t.Errorf("what the other process wrote: %v", o)
	}
}

// Many that wait share few commits, and those are to the log.
func TestCommitsAreShared(t *testing.T) {
	p := path(t)
	s := open(t, p, replay.Options{LogPages: 2048})
	var wg sync.WaitGroup
	var wrong atomic.Int32
	const waiters, each = 64, 8
	for w := range waiters {
		wg.Go(func() {
			for i := range uint64(each) {
				if o, c := s.Command("k", fmt.Sprint("out", w), i, digest("a")); o != replay.New || c.Wait() != nil {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d commands went wrong", n)
	}
	data, err := os.ReadFile(replay.LogPath(p))
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(data, "\x00"))/4096 + 1
	if used < 3 || used > waiters*each/2 {
		t.Errorf("%d pages for %d commands", used, waiters*each)
	}
	closeStore(t, s)
	db, err := bbolt.Open(p, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.ID() > 6 {
			t.Errorf("%d transactions", tx.ID())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Of one number offered by many at once, one is new.
func TestOneOfManyIsNew(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"), replay.Options{})
	var commands, telemetry, legacy atomic.Int32
	var wg sync.WaitGroup
	count := func(o replay.Outcome, n *atomic.Int32) {
		if o == replay.New {
			n.Add(1)
		}
	}
	for range 16 {
		wg.Go(func() {
			for i := range uint64(100) {
				o, _ := s.Command("k", "led", i, digest("a"))
				count(o, &commands)
				count(s.Telemetry("k", "t", i, digest("a")), &telemetry)
				o, _ = s.Legacy("k", 1700000000+int64(i), digest("a"))
				count(o, &legacy)
			}
		})
	}
	wg.Wait()
	// Nobody offers a number before the one below it, so none is passed over.
	if c, l := commands.Load(), legacy.Load(); c != 100 || l != 100 || telemetry.Load() != 100 {
		t.Errorf("new: %d commands, %d telemetry, %d legacy, want 100 each", c, telemetry.Load(), l)
	}
}

// A command that was not acted on, because it could not be recorded, is New again; nothing else is, and it is so once.
func TestRefusedCommandComesAgain(t *testing.T) {
	p, d := path(t), &disk{}
	s := open(t, p, replay.Options{OpenFile: d.open, FlushEvery: time.Hour})
	kinds := map[string]func(n uint64, text string) (replay.Outcome, *replay.Commit){
		"command": func(n uint64, text string) (replay.Outcome, *replay.Commit) {
			return s.Command("k", "led", n, digest(text))
		},
		"legacy": func(n uint64, text string) (replay.Outcome, *replay.Commit) {
			return s.Legacy("k", int64(n), digest(text))
		},
	}
	for name, send := range kinds {
		want := func(what string, n uint64, text string, want replay.Outcome, durable bool) {
			t.Helper()
			if o, c := send(n, text); o != want || (c.Wait() == nil) != durable {
				t.Errorf("%s, %s: %v, %v, want %v", name, what, o, c.Wait(), want)
			}
		}
		want("before", 1, "a", replay.New, true)
		d.breaks(t, "/dev/full", "gone")
		want("not recorded", 2, "a", replay.New, false)
		want("and again", 2, "a", replay.New, false)
		if name == "command" {
			want("another with its number", 2, "b", replay.Equivocation, true)
		}
		want("what was recorded before", 1, "a", replay.Replay, true)
		d.comesBack()
		want("with room again", 2, "a", replay.New, true)
		want("and once more", 2, "a", replay.Duplicate, true)

		d.breaks(t, "/dev/full", "gone")
		want("not recorded", 3, "a", replay.New, false)
		d.comesBack()
		want("a newer one", 4, "a", replay.New, true)
		want("the older of the two", 3, "a", replay.Replay, true)
		want("the newer one", 4, "a", replay.Duplicate, true)
	}
	after := open(t, copyState(t, p), replay.Options{})
	if o, _ := after.Command("k", "led", 4, digest("a")); o != replay.Duplicate {
		t.Errorf("after a power cut: %v", o)
	}
}

// A disk that refuses is asked once a command: whoever puts it right finds the files closed.
func TestRefusedCommandIsTriedOnce(t *testing.T) {
	d := &disk{}
	s := open(t, path(t), replay.Options{OpenFile: d.open, FlushEvery: time.Hour})
	if _, c := s.Command("k", "led", 1, digest("a")); c.Wait() != nil {
		t.Fatal(c.Wait())
	}
	d.breaks(t, "/dev/full", "gone")
	const commands = 200
	for n := range uint64(commands) {
		if _, c := s.Command("k", "led", n+2, digest("a")); c.Wait() == nil {
			t.Fatal("recorded on a disk that is gone")
		}
	}
	if _, failed := s.Commits(); failed != commands {
		t.Errorf("%d attempts for %d commands", failed, commands)
	}
}

// Of many copies that come at once one is acted on.
func TestRefusedCommandComesManyTimes(t *testing.T) {
	d := &disk{}
	s := open(t, path(t), replay.Options{OpenFile: d.open, FlushEvery: time.Hour})
	for n := range uint64(10) {
		d.breaks(t, "/dev/full", "gone")
		var acted atomic.Int64
		var all sync.WaitGroup
		send := func() {
			if o, c := s.Command("k", "led", n+1, digest("a")); o == replay.New && c.Wait() == nil {
				acted.Add(1)
			}
		}
		for range 20 {
			all.Go(send)
		}
		d.comesBack()
		all.Wait()
		send() // at least now
		if acted.Load() != 1 {
			t.Fatalf("number %d was acted on %d times", n+1, acted.Load())
		}
	}
}

// Whatever the disk does, restarts and power cuts too: nothing is acted on twice, nothing after a newer one, and no two
// messages with one number.
func TestNothingIsActedOnTwice(outer *testing.T) {
	inMemory(outer)
	rapid.Check(outer, func(t *rapid.T) {
		dir, files, d := outer.TempDir(), 0, &disk{}
		var s *replay.Store
		start := func() {
			var err error
			if s, err = replay.Open(filepath.Join(dir, fmt.Sprint(files)), replay.Options{OpenFile: d.open, FlushEvery: time.Hour, LogPages: 4}); err != nil {
				t.Fatal(err)
			}
		}
		start()
		defer func() { _ = s.Close() }()
		acted, newest := map[uint64]byte{}, uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				n, text := newest+rapid.Uint64Range(0, 3).Draw(t, "above")-min(newest, 1), rapid.ByteRange('a', 'b').Draw(t, "text")
				o, c := s.Command("k", "led", n, digest(string(text)))
				if o != replay.New || c.Wait() != nil {
					return
				}
				if before, twice := acted[n]; twice || len(acted) > 0 && n < newest {
					t.Fatalf("%d %c was acted on after %d, and before as %c", n, text, newest, before)
				}
				acted[n], newest = text, max(n, newest)
			},
			"break":   func(*rapid.T) { d.breaks(outer, "/dev/full", "gone") },
			"repair":  func(*rapid.T) { d.comesBack() },
			"restart": func(*rapid.T) { d.comesBack(); _ = s.Close(); start() }, // a disk that was broken until now is an error of Close
			"power cut": func(*rapid.T) {
				d.comesBack()
				from := filepath.Join(dir, fmt.Sprint(files))
				files++
				copyFiles(t, from, filepath.Join(dir, fmt.Sprint(files)))
				_ = s.Close()
				start()
			},
		})
	})
}
