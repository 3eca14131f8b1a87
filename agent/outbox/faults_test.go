package outbox_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"pinseal/agent/outbox"
	"pinseal/signing"
)

// fillable is a disk that can be full: what is open then is /dev/full, and nothing can be opened.
type fillable struct {
	mu   sync.Mutex
	full bool
	open []*os.File
}

func (d *fillable) OpenFile(name string, flag int, perm os.FileMode) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	f, err := os.OpenFile(filepath.Clean(name), flag, perm)
	d.open = append(d.open, f)
	return f, err
}

func (d *fillable) fill(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close() //nolint:errcheck // its copies are what counts
	for _, f := range d.open {
		raw, err := f.SyscallConn()
		if err != nil {
			continue // closed
		}
		_ = raw.Control(func(fd uintptr) { // calls nothing on a closed file
			if err := unix.Dup3(int(full.Fd()), int(fd), unix.O_CLOEXEC); err != nil {
				t.Error(err)
			}
		})
	}
}

func (d *fillable) empty() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = false
}

// On a full disk everything goes on in memory, in order.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disk fillable
		key, b := newKey(t), open(t, database(t), outbox.Options{OpenFile: disk.OpenFile, FlushEvery: time.Minute, Rate: fast})
		for n := range uint64(50) {
			put(t, b, seal(t, key, n+1))
		}
		disk.fill(t)
		for n := range uint64(50) {
			put(t, b, seal(t, key, n+51))
		}
		r, stop := receive(t, b, nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		wantNumbers(t, r.numbers(), 100)
		if s := b.Stats(); s.Accepted != 100 || s.Dropped != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		stop()
		if err := b.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("closing on a full disk: %v", err)
		}
	})
}

// When there is room again, what waited in memory alone is written within seconds, and outlives a kill.
func TestFullDiskWithRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disk fillable
		path := database(t)
		key, b := newKey(t), open(t, path, outbox.Options{OpenFile: disk.OpenFile, FlushEvery: time.Hour, Rate: fast})
		_, stop := receive(t, b, silent)
		for n := range uint64(50) {
			put(t, b, seal(t, key, n+1))
		}
		disk.fill(t)
		for n := range uint64(50) {
			put(t, b, seal(t, key, n+51))
			time.Sleep(time.Second)
		}
		disk.empty()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		again := open(t, clone(t, path), outbox.Options{Rate: fast})
		r, stopAgain := receive(t, again, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		wantNumbers(t, r.numbers(), 100)
		stopAgain()
		closeBox(t, again)
		stop()
		closeBox(t, b)
	})
}

// What lies on a disk that cannot be read for a while is not lost, and comes before what is newer.
func TestDiskAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disk fillable
		path, key := database(t), newKey(t)
		for n := range uint64(3) { // three chunks
			b := open(t, path, outbox.Options{})
			put(t, b, seal(t, key, n+1))
			closeBox(t, b)
		}
		b := open(t, path, outbox.Options{OpenFile: disk.OpenFile, Rate: fast})
		disk.fill(t)
		put(t, b, seal(t, key, 4)) // cannot be written, so that the database is opened anew for the rest
		r, stop := receive(t, b, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := b.Stats(); s.Waiting != 4 || s.Dropped != 0 {
			t.Errorf("%+v", s)
		}
		disk.empty()
		time.Sleep(time.Minute)
		synctest.Wait()
		wantNumbers(t, r.numbers(), 4)
		stop()
		closeBox(t, b)
	})
}

// While the database has no room the journal, which lies elsewhere, grows; it is not written anew for every message.
func TestFullDiskAndJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disk fillable
		journal, renewed := filepath.Join(t.TempDir(), "journal"), 0
		b := open(t, database(t), outbox.Options{Journal: journal, OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
			switch name {
			case journal + ".new":
				renewed++
				fallthrough
			case journal:
				return os.OpenFile(filepath.Clean(name), flag, perm)
			}
			return disk.OpenFile(name, flag, perm)
		}})
		_, stop := receive(t, b, silent)
		disk.fill(t)
		m := seal(t, newKey(t), 1)
		for m.Number = 1; m.Number <= 1000; m.Number++ { // 450 kB
			put(t, b, m)
			synctest.Wait()
		}
		if renewed > 2 {
			t.Errorf("the journal was written anew %d times", renewed)
		}
		stop()
		_ = b.Close() // the disk is full
	})
}

// Who brings answers, and confirmations, does not wait for a disk: commands come the same way.
func TestAnswersDoNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disk fillable
		opening := make(chan struct{})
		var stalled atomic.Bool
		key, b := newKey(t), open(t, database(t), outbox.Options{OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
			if stalled.Load() {
				<-opening
			}
			return disk.OpenFile(name, flag, perm)
		}})
		confirms := make(chan func(error), 100)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { b.Run(ctx, func(_ outbox.Message, done func(error)) { confirms <- done }) })
		put(t, b, seal(t, key, 1))
		synctest.Wait()
		disk.fill(t)
		put(t, b, seal(t, key, 2)) // cannot be written, so that the database is opened anew
		synctest.Wait()
		stalled.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, tell := range []func(){
			func() { (<-confirms)(nil) }, b.Again, func() { b.Accepted(topic, 1) }, func() { b.Refused(topic, 2, signing.ReasonStale) },
		} {
			tell() // or it waits for ever
		}
		stalled.Store(false)
		disk.empty()
		close(opening)
		synctest.Wait()
		if s := b.Stats(); s.Accepted != 1 || s.Refused != 1 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		cancel()
		running.Wait()
		closeBox(t, b)
	})
}

// A disk that stays full does not fill the memory: the oldest go.
func TestFullDiskAndMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disk fillable
		b := open(t, database(t), outbox.Options{OpenFile: disk.OpenFile, Rate: fast})
		_, stop := receive(t, b, silent)
		disk.fill(t)
		m := seal(t, newKey(t), 1)
		const messages = 30000
		for m.Number = 1; m.Number <= messages; m.Number++ {
			put(t, b, m)
		}
		synctest.Wait()
		if s := b.Stats(); s.WaitingBytes > 9<<20 || s.Dropped == 0 || int(s.Dropped)+s.Waiting != messages {
			t.Errorf("%+v", s)
		}
		stop()
		_ = b.Close() // the disk is full
	})
}
