package gpio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SimLabel is the label of the simulated chip.
const SimLabel = "sim"

// simConsumer is who holds a claimed line: only this program claims lines of a simulated chip.
const simConsumer = "pinseal"

type simChip struct{ dir string }

// OpenSim makes a simulated Raspberry Pi header, lines GPIO0 to GPIO27, in a folder, which is created if need be. The
// level of each line is one byte, 0 or 1, in the file named after it: the byte is replaced in place, so a reader never
// sees less than a level, and it is there before Out returns. It is not synced to disk, as a real level is not. Writing
// 0 or 1 into the file of an input moves it. A line is held against other processes as a real one is.
func OpenSim(dir string) (Chip, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // levels are no secret: any user may look at an LED
		return nil, fmt.Errorf("making the simulated chip: %w", err)
	}
	c := &simChip{dir: dir}
	for n := range lastHeaderNumber + 1 {
		f, err := c.open(simName(n))
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("making the simulated chip: %w", err)
		}
	}
	return c, nil
}

func simName(number int) string { return "GPIO" + strconv.Itoa(number) }

// open opens the file of a line; a new one starts low.
func (c *simChip) open(name string) (*os.File, error) {
	path := filepath.Join(c.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // as above; the name is one of our own
	if err != nil {
		return nil, fmt.Errorf("making the simulated chip: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.Size() == 0 {
		_, err = f.WriteAt([]byte("0"), 0)
		if err != nil {
			_ = f.Close() // reported is why it is of no use
			return nil, fmt.Errorf("making the simulated chip: %w", err)
		}
	}
	return f, nil
}

// Lines implements Chip.
func (c *simChip) Lines() ([]LineInfo, error) {
	lines := c.names()
	for i := range lines {
		if err := c.look(&lines[i]); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// names lists the lines without looking at who uses them.
func (c *simChip) names() []LineInfo {
	lines := make([]LineInfo, lastHeaderNumber+1)
	for n := range lines {
		lines[n] = LineInfo{Chip: SimLabel, Path: c.dir, Name: simName(n), Offset: n, Direction: In}
	}
	return lines
}

// look fills in whether the line is claimed and how. The kind of lock on the file says so: byte 0 is locked by any
// holder, byte 1 by one that made it an output. Asking takes no lock, so it disturbs no claim.
func (c *simChip) look(l *LineInfo) error {
	f, err := c.open(l.Name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only looked at
	if l.Used, err = lockedByte(f, 0); err != nil || !l.Used {
		return err
	}
	l.Consumer = simConsumer
	output, err := lockedByte(f, 1)
	if output {
		l.Direction = Out
	}
	return err
}

func lockedByte(f *os.File, at int64) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	err := control(f, func(fd uintptr) error { return unix.FcntlFlock(fd, unix.F_OFD_GETLK, &lock) })
	return lock.Type != unix.F_UNLCK, err
}

// Output implements Chip.
func (c *simChip) Output(line string, initial Level) (OutputLine, error) {
	l, err := c.claim(line, 2)
	if err != nil {
		return nil, err
	}
	if err := l.Out(initial); err != nil {
		_ = l.Close() // reported is why it is of no use
		return nil, err
	}
	return l, nil
}

// Input implements Chip. The bias decides the level until somebody moves the line.
func (c *simChip) Input(line string, pull Pull) (InputLine, error) {
	l, err := c.claim(line, 1)
	if err != nil {
		return nil, err
	}
	err = l.notice(c.dir)
	if err == nil && (pull == PullUp || pull == PullDown) {
		err = l.Out(pull == PullUp)
	}
	if err == nil {
		_, _, err = l.edge() // what it is now is no edge
	}
	if err != nil {
		_ = l.Close() // reported is why it is of no use
		return nil, err
	}
	return l, nil
}

// Close implements Chip.
func (c *simChip) Close() error { return nil }

// claim locks the first bytes of the line's file; see look. The lock belongs to the open file, so it also keeps out
// other claims in this process, and it ends with the process.
func (c *simChip) claim(line string, lockBytes int64) (*simLine, error) {
	info, err := FindLine(c.names(), line)
	if err != nil {
		return nil, err
	}
	f, err := c.open(info.Name)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: lockBytes}
	err = control(f, func(fd uintptr) error { return unix.FcntlFlock(fd, unix.F_OFD_SETLK, &lock) })
	if err == nil {
		return &simLine{file: f, turn: newTurn()}, nil
	}
	_ = f.Close() // reported is why it is of no use
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		info.Consumer = simConsumer
		return nil, busyError(info)
	}
	return nil, fmt.Errorf("claiming %s of the simulated chip: %w", info.Name, err)
}

// simLine is a claimed line: its open and locked file.
type simLine struct {
	file    *os.File
	turn    turn
	changes *os.File // inotify(7), of an input: something happened in the folder

	mu   sync.Mutex // of seen
	seen Level      // the level last driven, or returned by WaitEdge
}

// Out implements OutputLine.
func (l *simLine) Out(level Level) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := "0"
	if level {
		text = "1"
	}
	if _, err := l.file.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	l.seen = level
	return nil
}

// Level implements OutputLine and InputLine.
func (l *simLine) Level() (Level, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.level()
}

// level reads the file by its name, not the open one: others see that, and who moves an input may well replace the file.
func (l *simLine) level() (Level, error) {
	if _, err := l.file.Stat(); err != nil {
		return Low, err // closed
	}
	// Not os.ReadFile, which makes ten system calls: outputs read back whatever they drive.
	var text [1]byte
	fd, err := unix.Open(l.file.Name(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Low, fmt.Errorf("reading the simulated line: %w", err)
	}
	n, err := unix.Read(fd, text[:])
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return Low, fmt.Errorf("reading the simulated line: %w", err)
	}
	if n == 0 {
		return l.seen, nil // a shell's "echo 1 >" is about to fill it
	}
	return text[0] == '1', nil
}

// WaitEdge implements InputLine.
func (l *simLine) WaitEdge(ctx context.Context) (Edge, error) {
	if err := l.turn.take(ctx); err != nil {
		return Edge{}, err
	}
	defer l.turn.give()
	var events [4096]byte
	for {
		if level, edge, err := l.edge(); edge || err != nil {
			return Edge{Level: level, At: time.Now()}, err
		}
		if err := readUntil(ctx, l.changes, events[:]); err != nil {
			return Edge{}, err
		}
	}
}

// notice begins to watch the folder: who moves an input writes its file or puts another in its place.
func (l *simLine) notice(dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watching the simulated chip: %w", err)
	}
	l.changes = os.NewFile(uintptr(fd), "inotify:"+l.file.Name())
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_CREATE); err != nil {
		return fmt.Errorf("watching the simulated chip: %w", err)
	}
	return nil
}

// edge reports whether the level is another one than last time.
func (l *simLine) edge() (level Level, changed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	level, err = l.level()
	if err != nil || level == l.seen {
		return level, false, err
	}
	l.seen = level
	return level, true, nil
}

// Close implements OutputLine and InputLine.
func (l *simLine) Close() error {
	if l.changes != nil {
		_ = l.changes.Close() // nothing was written to it
	}
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
