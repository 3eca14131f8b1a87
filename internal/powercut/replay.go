package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"time"

	"golang.org/x/sys/unix"

	"pinseal/signing/replay"
)

const (
	sessions  = 3
	perOutput = 3 // commands a session
	topics    = 40
)

func since() time.Time { return time.Unix(1700000000, 0).UTC() }

func digest(what string, n uint64) [32]byte { return sha256.Sum256(fmt.Appendf(nil, "%s %d", what, n)) }

func openStore(folder string, openFile func(string, int, os.FileMode) (*os.File, error)) (*replay.Store, error) {
	// Telemetry is written on Close alone, so that every run is the same. The log
	// is small, so that it is full several times in a life.
	o := replay.Options{Since: since(), FlushEvery: time.Hour, LogPages: 4, OpenFile: openFile}
	return replay.Open(filepath.Join(folder, "state.db"), o)
}

// actor does what the agent does with a command: it acts once the store says
// that it is new and on disk.
type actor struct {
	store *replay.Store
	tell  func(string, ...any)
}

// pair offers one number to two outputs at once, so that they share a commit,
// and reports whether it was new to both.
func (a actor) pair(n uint64) bool {
	led, ledCommit := a.store.Command("kid", "led", n, digest("led", n))
	fan, fanCommit := a.store.Command("kid", "fan", n, digest("fan", n))
	a.act("led", n, led, ledCommit)
	a.act("fan", n, fan, fanCommit)
	return led == replay.New && fan == replay.New
}

func (a actor) act(output string, n uint64, o replay.Outcome, c *replay.Commit) {
	if o == replay.New && c.Wait() == nil {
		a.tell("acted %s %d", output, n)
	}
}

// liveReplay is a node that is started some times and gets commands, telemetry
// of many topics, so that the tree has branches and pages are freed and used
// again, legacy messages, and the reset of a key.
func liveReplay(folder string, tell func(string, ...any)) error {
	for session := range uint64(sessions) {
		s, err := openStore(folder, nil)
		if err != nil {
			return err
		}
		tell("opened")
		a := actor{s, tell}
		for n, done := uint64(1), 0; done < perOutput; n++ {
			if a.pair(n) {
				done++
			}
		}
		for second := uint64(1); ; second++ {
			if o, c := s.Legacy("old", int64(second), digest("old", second)); o == replay.New {
				a.act("old", second, o, c)
				break
			}
		}
		for topic := range topics {
			for n := range session + 1 {
				what := fmt.Sprint("topic", topic)
				s.Telemetry("kid", what, n, digest(what, n))
			}
		}
		if err := resetLost(s, tell); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		tell("closed %d", session)
	}
	return nil
}

// resetLost uses a number of a key and resets it, each time the same.
func resetLost(s *replay.Store, tell func(string, ...any)) error {
	tell("using")
	if o, c := s.Command("lost", "led", 9, digest("lost", 9)); o == replay.New && c.Wait() == nil {
		tell("remembered")
	}
	tell("resetting")
	if err := s.Reset("lost"); err != nil {
		return err
	}
	tell("forgotten")
	return nil
}

// liveFullDisk is a node whose disk is full for a while, now for the database,
// now for its log.
func liveFullDisk(folder string, tell func(string, ...any)) error {
	var files gosync.Map // by extension; the store opens them anew from its own goroutine
	s, err := openStore(folder, func(name string, flag int, perm os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, perm)
		files.Store(filepath.Ext(name), f)
		return f, err
	})
	if err != nil {
		return err
	}
	tell("opened")
	a := actor{s, tell}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for n, done := uint64(1), 0; done < 17; n++ {
		if done%4 == 1 { // until the store notices, and opens the file anew
			file, _ := files.Load([]string{".log", ".db"}[done/4%2])
			if err := replaceBy(file.(*os.File), full); err != nil { //nolint:errcheck // nothing else was stored
				return err
			}
		}
		if a.pair(n) {
			done++
		}
	}
	// A database that is still full when the node stops is an error there, and promises nothing.
	_ = s.Close()
	return full.Close()
}

// replaceBy puts other in the place of what file has open. A file that is closed already stays so: the
// store is still recovering from the last time.
func replaceBy(file, other *os.File) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var dup error
	// Control fails for a closed file, and for nothing else.
	_ = conn.Control(func(fd uintptr) { dup = unix.Dup3(int(other.Fd()), int(fd), unix.O_CLOEXEC) })
	return dup
}

// said is what the marks of a node say.
type said struct {
	opened     bool
	acted      map[string]uint64 // the highest number by output
	closed     int               // the last session whose telemetry was written, or -1
	remembered bool              // the lost key's number: must it be known?
	forgotten  bool              // must it be new?
}

func readMarks(marks []string) (said, error) {
	s := said{acted: map[string]uint64{}, closed: -1}
	seen := map[string]bool{}
	for _, m := range marks {
		if strings.HasPrefix(m, "acted") && seen[m] {
			return s, errors.New(m + " twice")
		}
		seen[m] = true
		var output string
		var n uint64
		switch m {
		case "opened":
			s.opened = true
		case "using":
			s.forgotten = false
		case "remembered":
			s.remembered = true
		case "resetting":
			s.remembered = false
		case "forgotten":
			s.forgotten = true
		default:
			if _, err := fmt.Sscanf(m, "acted %s %d", &output, &n); err == nil {
				s.acted[output] = max(s.acted[output], n)
			} else if _, err := fmt.Sscanf(m, "closed %d", &n); err == nil {
				s.closed = max(s.closed, int(n))
			}
		}
	}
	return s, nil
}

// judgeReplay starts the node again, sends it all commands once more, and a
// fresh one.
func judgeReplay(folder string, marks []string) error {
	before, err := readMarks(marks)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(folder, "state.db")); before.opened && err != nil {
		return err
	}
	s, err := openStore(folder, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if err := errors.Join(before.judge(s), s.Close()); err != nil {
		return err
	}
	if s, err = openStore(folder, nil); err != nil {
		return fmt.Errorf("opening once more: %w", err)
	}
	if o, _ := s.Command("kid", "led", 1000, digest("led", 1000)); o != replay.Duplicate {
		err = fmt.Errorf("the command after the cut is %v", o)
	}
	return errors.Join(err, s.Close())
}

func (before said) judge(s *replay.Store) error {
	if !s.Since().Equal(since()) {
		return fmt.Errorf("since %v", s.Since())
	}
	for _, output := range []string{"led", "fan", "old"} {
		if err := before.judgeOutput(s, output); err != nil {
			return err
		}
	}
	for topic := range topics {
		for n := range before.closed + 1 {
			what := fmt.Sprint("topic", topic)
			if o := s.Telemetry("kid", what, uint64(n), digest(what, uint64(n))); o != replay.Duplicate {
				return fmt.Errorf("%s %d was on disk and is %v", what, n, o)
			}
		}
	}
	// While it was new or being forgotten, either is right.
	o, _ := s.Command("lost", "led", 9, digest("lost", 9))
	if before.remembered && o != replay.Duplicate || before.forgotten && o != replay.New || o == replay.Equivocation {
		return fmt.Errorf("the number of the key that was reset is %v", o)
	}
	o, c := s.Command("kid", "led", 1000, digest("led", 1000))
	if err := c.Wait(); o != replay.New || err != nil {
		return fmt.Errorf("a fresh command is %v, %w", o, err)
	}
	return nil
}

// judgeOutput sends all that was acted on again, the newest first: the store
// may know a newer one, which nobody was told of.
func (before said) judgeOutput(s *replay.Store, output string) error {
	for n := before.acted[output]; n > 0; n-- {
		var o replay.Outcome
		if output == "old" {
			o, _ = s.Legacy(output, int64(n), digest(output, n)) //nolint:gosec // small
		} else {
			o, _ = s.Command("kid", output, n, digest(output, n))
		}
		if o != replay.Duplicate && o != replay.Replay {
			return fmt.Errorf("%s %d was acted on and is %v", output, n, o)
		}
	}
	return nil
}
