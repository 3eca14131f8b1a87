package pki

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"pinseal/internal/atomicfile"
)

// maxEntryBytes is room for a certificate with an RSA key of 8192 bits several
// times over.
const maxEntryBytes = 32 << 10

// Journal is an append-only file of what an authority did: one [Entry] a line,
// JSON, each with the hash of the line before. A line that was changed or
// removed from the middle shows ([ReadJournal]); lines that were cut off the end
// show to whoever has kept a later [History.Head].
//
// It is safe for concurrent use, also by several processes.
type Journal struct{ path string }

// OpenJournal names the journal's file, which the first entry creates with mode
// 0600.
func OpenJournal(path string) *Journal { return &Journal{path} }

// Append puts an entry behind the last one. When it returns nil, the entry is
// on the disk: act afterwards. What a power cut left of a line that was never
// acknowledged is removed.
func (j *Journal) Append(e Entry) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the journal %s: %w", j.path, err)
		}
	}()
	// The folder may be a service's that was taken over: a link in it must not lead root astray.
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := lock(file, syscall.LOCK_EX); err != nil {
		return err
	}
	end, last, line, err := lastEntry(file)
	if err != nil {
		return err
	}
	text, err := e.after(last, line)
	if err != nil {
		return err
	}
	if err := file.Truncate(end); err != nil {
		return err
	}
	// The line before is written again: who appended it may have been told that
	// its sync failed. The kernel takes it for written then, and a sync without a
	// write says nothing about it (fsync(2), under EIO).
	from := end
	if len(line) > 0 {
		text = slices.Concat(line, []byte("\n"), text)
		from -= int64(len(line)) + 1
	}
	if _, err := file.WriteAt(append(text, '\n'), from); err != nil {
		return errors.Join(err, file.Truncate(end))
	}
	if err := file.Sync(); err != nil {
		// Whether the line is on the disk is unknown; there it would be in order.
		return errors.Join(err, file.Truncate(end))
	}
	return atomicfile.SyncFolder(filepath.Dir(j.path))
}

// lastEntry finds where the last whole line ends, and what it says.
func lastEntry(file *os.File) (end int64, last Entry, line []byte, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, Entry{}, nil, err
	}
	// The last line, its line feed, that of the line before it, and a torn line.
	from := max(0, info.Size()-2*maxEntryBytes-2)
	tail, err := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	if err != nil {
		return 0, Entry{}, nil, err
	}
	whole := bytes.LastIndexByte(tail, '\n')
	if whole < 0 {
		if from > 0 {
			return 0, Entry{}, nil, errors.New("its end is not a journal's")
		}
		return 0, Entry{}, nil, nil // empty, or the very first line was torn
	}
	line = tail[bytes.LastIndexByte(tail[:whole], '\n')+1 : whole]
	if last, err = parseEntry(line); err != nil {
		return 0, Entry{}, nil, fmt.Errorf("its last line: %w", err)
	}
	return from + int64(whole) + 1, last, line, nil
}

// NewJournal is the text of a journal that begins with these entries, for who
// makes all files of a new authority at once.
func NewJournal(entries ...Entry) ([]byte, error) {
	var text, line []byte
	var last Entry
	for _, e := range entries {
		next, err := e.after(last, line)
		if err != nil {
			return nil, err
		}
		last.Number++
		line = next
		text = append(append(text, next...), '\n')
	}
	return text, nil
}

// History is what a journal holds.
type History struct {
	Entries []Entry
	Head    string // SHA-256 of the last line, in hexadecimal; empty without entries
	Torn    bool   // a power cut left a part of a line that was never acknowledged
	hashes  map[string]bool
}

// Contains reports whether the line with this hash, the head of a shorter
// journal once, is still there.
func (h *History) Contains(hash string) bool { return h.hashes[hash] }

// ReadJournal reads a whole journal and verifies its chain. It is an error if
// any line is not as [Journal.Append] wrote it or does not follow the one
// before; the error names the line. A journal that does not exist is empty.
func ReadJournal(path string) (*History, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &History{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	if err := lock(file, syscall.LOCK_SH); err != nil {
		return nil, fmt.Errorf("reading the journal %s: %w", path, err)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	history, err := ParseJournal(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return history, nil
}

// ParseJournal is [ReadJournal] for a text; errors begin with the line's number.
func ParseJournal(text []byte) (*History, error) {
	h := &History{hashes: map[string]bool{}}
	for line := range bytes.Lines(text) {
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		if !whole {
			h.Torn = true
			break
		}
		number := len(h.Entries) + 1
		e, err := parseEntry(line)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", number, err)
		}
		if e.Number != int64(number) || e.Previous != h.Head {
			return nil, fmt.Errorf("%d: the entry does not follow the one before: something was changed or removed", number)
		}
		h.Entries = append(h.Entries, e)
		h.Head = hexSum(line)
		h.hashes[h.Head] = true
	}
	return h, nil
}

func lock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
