package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"pinseal/internal/boltfile"
)

// journal is the file that outlives a kill. Nothing in it is synced, so what a power cut leaves of it may be of any age,
// and belongs to positions that mean other messages by now: it begins with the boot in which it was written, and another
// boot takes nothing from it. Box.mu guards it.
type journal struct {
	path     string
	openFile boltfile.OpenFunc
	boot     string   // the first line
	file     *os.File // nil after a failure, until the next empty
	size     int64
}

// entry is a record of the journal.
type entry struct {
	Message
	position uint64
	done     bool
}

const (
	bootIDPath = "/proc/sys/kernel/random/boot_id" // random(4): new with every boot

	entryHeader = 8 // length, checksum
	maxEntry    = 1 << 20
	kindMessage = 'm'
	kindDone    = 'd'
)

// openJournal reads the journal, and cuts off what is not whole.
func openJournal(path string, openFile boltfile.OpenFunc) (*journal, []entry, error) {
	boot, err := os.ReadFile(bootIDPath)
	if err != nil {
		return nil, nil, fmt.Errorf("telling this run of the kernel from others: %w", err)
	}
	j := &journal{path: filepath.Clean(path), openFile: openFile, boot: string(boot)}
	if err := j.open(); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(j.file)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reading the journal: %w", err), j.close())
	}
	var entries []entry
	if strings.HasPrefix(string(data), j.boot) {
		j.size = int64(len(j.boot))
	}
	for j.size > 0 {
		e, length := parseEntry(data[j.size:])
		if length == 0 {
			break
		}
		entries = append(entries, e)
		j.size += int64(length)
	}
	if err := j.file.Truncate(j.size); err != nil {
		return nil, nil, errors.Join(err, j.close())
	}
	return j, entries, nil
}

func (j *journal) open() (err error) {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	j.file, err = j.openFile(j.path, os.O_RDWR|os.O_CREATE, 0o600)
	return err
}

// parseEntry reads the first record; length 0 says that there is none that is whole.
func parseEntry(b []byte) (e entry, length int) {
	if len(b) < entryHeader {
		return e, 0
	}
	size := binary.BigEndian.Uint32(b)
	if size < 9 || size > maxEntry || int(size) > len(b)-entryHeader {
		return e, 0
	}
	body := b[entryHeader : entryHeader+int(size)]
	if checksum(body) != binary.BigEndian.Uint32(b[4:]) {
		return e, 0
	}
	e.position = binary.BigEndian.Uint64(body[1:])
	rest := body[9:]
	switch {
	case body[0] == kindDone && len(rest) == 0:
		e.done = true
	case body[0] == kindMessage && len(rest) >= 10:
		e.Number = binary.BigEndian.Uint64(rest)
		topic := int(binary.BigEndian.Uint16(rest[8:]))
		if topic > len(rest)-10 {
			return e, 0
		}
		e.Topic, e.Sealed = string(rest[10:10+topic]), rest[10+topic:]
	default:
		return e, 0
	}
	return e, entryHeader + int(size)
}

// add notes a message.
func (j *journal) add(i *item) error {
	if len(i.Topic) > 1<<16-1 || len(i.Sealed) > maxEntry/2 {
		return errors.New("the message is too large")
	}
	body := make([]byte, entryHeader, entryHeader+19+len(i.Topic)+len(i.Sealed))
	body = append(body, kindMessage)
	body = binary.BigEndian.AppendUint64(body, i.position)
	body = binary.BigEndian.AppendUint64(body, i.Number)
	body = binary.BigEndian.AppendUint16(body, uint16(len(i.Topic))) //nolint:gosec // checked above
	body = append(body, i.Topic...)
	return j.append(append(body, i.Sealed...))
}

// done notes that a message waits no more.
func (j *journal) done(position uint64) error {
	body := append(make([]byte, entryHeader, entryHeader+9), kindDone)
	return j.append(binary.BigEndian.AppendUint64(body, position))
}

// append writes a record, whose header is still to be filled in. What could not be written whole is cut off again; if
// that fails too, nothing more is written until the journal is emptied, because it would lie behind a broken record.
func (j *journal) append(b []byte) error {
	if j.file == nil {
		return errors.New("the journal is broken")
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-entryHeader)) //nolint:gosec // at most maxEntry
	binary.BigEndian.PutUint32(b[4:], checksum(b[entryHeader:]))
	if j.size == 0 {
		b = append([]byte(j.boot), b...)
	}
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		if cut := j.file.Truncate(j.size); cut != nil {
			err = errors.Join(err, cut, j.close())
			j.file = nil
		}
		return err
	}
	j.size += int64(len(b))
	return nil
}

// renew writes what still waits into a new journal in the place of the old.
func (j *journal) renew(waiting []*item, done []uint64) (err error) {
	next := &journal{path: j.path + ".new", openFile: j.openFile, boot: j.boot}
	if err := next.open(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, next.close())
		}
	}()
	if err := next.empty(); err != nil {
		return err
	}
	for _, i := range waiting {
		if err := next.add(i); err != nil {
			return err
		}
	}
	for _, position := range done {
		if err := next.done(position); err != nil {
			return err
		}
	}
	if err := os.Rename(next.path, j.path); err != nil {
		return err
	}
	old := *j
	j.file, j.size = next.file, next.size
	return old.close()
}

// empty begins anew: everything is on the disk, or nothing waits.
func (j *journal) empty() error {
	if j.file == nil {
		if err := j.open(); err != nil {
			j.file = nil
			return err
		}
	}
	if err := j.file.Truncate(0); err != nil {
		return err
	}
	j.size = 0
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
