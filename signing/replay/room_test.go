package replay_test

import (
	"fmt"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"pinseal/signing/replay"
)

// fileLimit lets no file of this process grow beyond so many bytes, as on a disk without room, until the function that it
// returns is called. What is in the files already can be written over. SIGXFSZ must be ignored.
func fileLimit(t *testing.T, bytes uint64) (lift func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(cur uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: cur, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	set(bytes)
	t.Cleanup(func() { set(before.Cur) })
	return func() { set(before.Cur) }
}

// Where there is no room for telemetry, commands go on, and each flush asks the disk once.
func TestNoRoomForTelemetry(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ) // whose default is to end the process
	defer signal.Reset(syscall.SIGXFSZ)
	synctest.Test(t, func(t *testing.T) {
		const every, topics = time.Hour, 800
		p := path(t)
		s := open(t, p, replay.Options{LogPages: logPages, FlushEvery: every})
		n, ask := uint64(0), command("k", "led")
		commands := func(when string) {
			t.Helper()
			for range 3 * logPages { // the log is full now and then
				n++
				if o, err := ask(s, n, digest("a")); o != replay.New || err != nil {
					t.Fatalf("%s, command %d: %v, %v", when, n, o, err)
				}
			}
		}
		flushed := func(when string, wantFailed uint64) {
			t.Helper()
			time.Sleep(every)
			synctest.Wait()
			if _, failed := s.Commits(); failed != wantFailed {
				t.Fatalf("%s: %d commits have failed, want %d", when, failed, wantFailed)
			}
		}
		known := func() (of int) {
			after := open(t, copyState(t, p), replay.Options{})
			if o, _ := ask(after, n, digest("a")); o != replay.Duplicate {
				t.Fatalf("after a power cut, command %d is %v", n, o)
			}
			for i := range topics {
				if after.Telemetry("k", fmt.Sprint("t", i), 1, digest("a")) == replay.Duplicate {
					of++
				}
			}
			return of
		}

		commands("with room")
		lift := fileLimit(t, 64<<10)
		for i := range topics {
			if o := s.Telemetry("k", fmt.Sprint("t", i), 1, digest("a")); o != replay.New {
				t.Fatal(o)
			}
		}
		for round := range uint64(3) {
			flushed("a flush without room", round+1)
			commands("after a flush without room")
		}
		if of := known(); of == topics {
			t.Error("there was room for all telemetry")
		}
		lift()
		flushed("with room again", 3)
		if of := known(); of != topics {
			t.Errorf("with room again, %d of %d topics are on disk", of, topics)
		}
	})
}

// Commands that never cease do not keep telemetry from the disk.
func TestTelemetryAmongCommands(t *testing.T) {
	inMemory(t)
	p := path(t)
	s := open(t, p, replay.Options{FlushEvery: time.Millisecond})
	var ended atomic.Bool
	var commands sync.WaitGroup
	for w := range 64 {
		commands.Go(func() {
			for n := uint64(0); !ended.Load(); n++ {
				if o, err := command("k", fmt.Sprint("out", w))(s, n, digest("a")); o != replay.New || err != nil {
					t.Errorf("%v, %v", o, err)
					return
				}
			}
		})
	}
	s.Telemetry("k", "t", 1, digest("a"))
	timeout := time.After(20 * time.Second)
	for known := false; !known; {
		d := t.TempDir() + "/state.db"
		copyFiles(t, p, d)
		after, err := replay.Open(d, replay.Options{}) // a copy that was made during a write may be of no use
		if err == nil {
			known = after.Telemetry("k", "t", 1, digest("a")) == replay.Duplicate
			_ = after.Close()
		}
		select {
		case <-timeout:
			t.Error("telemetry is not written")
			known = true
		default:
		}
	}
	ended.Store(true)
	commands.Wait()
}
