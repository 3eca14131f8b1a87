// Package sequence gives out the sequence numbers of one signing key, each at
// most once, to every process on the machine that shares the key.
//
// The numbers are kept in a file beside the key. Each is at least the
// microseconds since 1970, so that a lost file does no harm to a sender with a
// good clock, and always above the last, so that a bad clock does none either.
//
// Power may go at any time, and a sync for each number would wear out a memory
// card. So numbers are used only below a ceiling that has been synced, and
// after a restart of the machine they continue above it.
package sequence

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/signing"

	"golang.org/x/sys/unix"
)

const (
	bootIDPath = "/proc/sys/kernel/random/boot_id" // random(4): new with every boot
	noBoot     = "00000000-0000-0000-0000-000000000000"

	// block is how far the ceiling is raised: a minute of microseconds, so that
	// a sender with a clock syncs at most once a minute.
	block = uint64(time.Minute / time.Microsecond)

	// recordFormat is one line of fixed length, so that a later one covers it
	// whole: last number, ceiling, boot id, CRC-32 of all before.
	recordFormat = "pinseal-sequence 1 %016d %016d %36s"
	recordBytes  = len("pinseal-sequence 1 ") + 16 + 1 + 16 + 1 + 36 + len(" 01234567\n")
)

// Counter gives out numbers. It is safe for concurrent use, also by several
// processes and by several counters in one.
type Counter struct {
	mu     sync.Mutex
	file   *os.File
	bootID string
}

// state is what the file holds.
type state struct {
	last    uint64 // given out; right only during the boot that wrote it
	ceiling uint64 // synced; no number above it was ever given out
	bootID  string
}

// Open opens the file, usually the key's own name with ".seq" added, and makes
// it with mode 0600 if there is none. The caller closes the counter.
func Open(path string) (*Counter, error) {
	id, err := os.ReadFile(bootIDPath)
	if err != nil {
		return nil, fmt.Errorf("opening sequence: %w", err)
	}
	bootID := strings.TrimSpace(string(id))
	// A new file appears with its content or not at all: an empty one is a
	// damaged one.
	first := state{bootID: bootID}
	if err := atomicfile.Create(path, first.marshal(), 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making sequence: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening sequence: %w", err)
	}
	c := &Counter{file: file, bootID: bootID}
	if err := c.locked(func() error { _, err := c.read(); return err }); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return c, nil
}

// Close releases the file. Next fails from then on.
func (c *Counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.file.Close(); err != nil {
		return fmt.Errorf("closing sequence: %w", err)
	}
	return nil
}

// Next returns a number that was never given out before: the microseconds from
// 1970 to now, or one above the last number if that is more. On an error there
// is no number.
func (c *Counter) Next(now time.Time) (uint64, error) { return c.Reserve(now, 1) }

// Reserve is Next for n numbers in a row, at least 1, and returns the first.
func (c *Counter) Reserve(now time.Time, n uint64) (first uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var after state
	err = c.locked(func() error {
		before, err := c.read()
		if err != nil {
			return err
		}
		if after, err = before.advance(now, n, c.bootID); err != nil {
			return err
		}
		return c.write(before, after)
	})
	if err != nil {
		return 0, err
	}
	return after.last - n + 1, nil
}

// advance takes the next n numbers.
func (s state) advance(now time.Time, n uint64, bootID string) (state, error) {
	if s.bootID != bootID {
		// What was given out below the ceiling may not have reached the disk.
		s.last = s.ceiling
	}
	next := s.last + 1
	// A clock outside the range says nothing.
	if micros := now.UnixMicro(); micros > 0 && micros <= signing.MaxSequence {
		next = max(next, uint64(micros))
	}
	last := next + n - 1
	if last > signing.MaxSequence {
		return state{}, errors.New("sequence numbers are used up: make a new signing key")
	}
	after := state{last: last, ceiling: s.ceiling, bootID: bootID}
	if last > after.ceiling {
		after.ceiling = min(last+block, signing.MaxSequence)
	}
	return after, nil
}

// locked calls f while no other process and no other counter does. It finds out
// when the file was replaced: another process may have the new one.
func (c *Counter) locked(f func() error) (err error) {
	fd := int(c.file.Fd())
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("locking sequence %s: %w", c.file.Name(), err)
	}
	defer func() { err = errors.Join(err, unix.Flock(fd, unix.LOCK_UN)) }()
	mine, err := c.file.Stat()
	if err != nil {
		return fmt.Errorf("reading sequence: %w", err)
	}
	current, err := os.Stat(c.file.Name())
	if err != nil {
		return fmt.Errorf("reading sequence: %w", err)
	}
	if !os.SameFile(mine, current) {
		return fmt.Errorf("sequence file %s was replaced while in use", c.file.Name())
	}
	return f()
}

func (c *Counter) read() (state, error) {
	b := make([]byte, recordBytes+1)
	n, err := c.file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return state{}, fmt.Errorf("reading sequence: %w", err)
	}
	s, ok := parseState(string(b[:n]))
	if !ok {
		return state{}, fmt.Errorf("sequence file %s is damaged: make a new signing key, or delete the file and reset this signer at the receivers", c.file.Name())
	}
	return s, nil
}

// write stores the state. Where that fails the old one is put back, so that a
// disk that refuses for a while does not use up numbers.
func (c *Counter) write(before, after state) error {
	var err error
	if after.ceiling != before.ceiling {
		err = c.raise(after)
	}
	if err == nil {
		_, err = c.file.WriteAt(after.marshal(), 0)
	}
	if err != nil {
		_, undo := c.file.WriteAt(before.marshal(), 0)
		return fmt.Errorf("writing sequence: %w", errors.Join(err, undo))
	}
	return nil
}

// raise makes a higher ceiling durable, and the file's name, which a killed
// process may have left in the kernel's memory. Meanwhile the file names no
// boot: if this process is killed before the sync, the next one must not trust
// a ceiling that is not on disk, and begins above it with a sync of its own.
func (c *Counter) raise(s state) error {
	s.bootID = noBoot
	if _, err := c.file.WriteAt(s.marshal(), 0); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return err
	}
	return atomicfile.SyncFolder(filepath.Dir(c.file.Name()))
}

func (s state) marshal() []byte {
	line := fmt.Sprintf(recordFormat, s.last, s.ceiling, s.bootID)
	return fmt.Appendf(nil, "%s %08x\n", line, crc32.ChecksumIEEE([]byte(line)))
}

func parseState(line string) (state, bool) {
	if len(line) != recordBytes {
		return state{}, false
	}
	var s state
	if _, err := fmt.Sscanf(line, recordFormat, &s.last, &s.ceiling, &s.bootID); err != nil {
		return state{}, false
	}
	// Written again it must be the same line: that checks the sum and the form.
	return s, string(s.marshal()) == line && s.last <= s.ceiling && s.ceiling <= signing.MaxSequence
}
