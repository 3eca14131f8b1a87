package replay

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"pinseal/internal/boltfile"
)

// The layout of the log: see the package comment.
const (
	defaultLogPages = 256

	batchHeader  = 32 // epoch uint64, page uint32, length uint32, sum
	summedHeader = 16 // the part of it before the sum

	loggedHeader = 1 + 2 + 2 // kind, length of the key, length of the value
)

// LogPath is where the log of the database at path lies.
func LogPath(path string) string { return strings.TrimSuffix(path, ".db") + ".log" }

// logID names one log; the database knows the name of its own.
type logID [16]byte

// logState is what the database says of its log.
type logState struct {
	id    logID
	epoch uint64 // of the records that are to be added to the database
	pages uint32 // of the file; 0: there is nothing in it
}

const logStateBytes = 16 + 8 + 4

func (l logState) marshal() []byte {
	b := append(make([]byte, 0, logStateBytes), l.id[:]...)
	b = binary.BigEndian.AppendUint64(b, l.epoch)
	return binary.BigEndian.AppendUint32(b, l.pages)
}

// parseLogState: nil is the state of a database that never had a log.
func parseLogState(b []byte) (l logState, err error) {
	if b != nil && len(b) != logStateBytes {
		return l, fmt.Errorf("%w: wrong meta data", ErrDamaged)
	}
	if b != nil {
		copy(l.id[:], b)
		l.epoch, l.pages = binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint32(b[24:])
	}
	return l, nil
}

// sum is over all of a batch but itself, and the log's name.
func (id logID) sum(batch []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{id[:], batch[:summedHeader], batch[batchHeader:]} {
		_, _ = h.Write(part) // never returns an error
	}
	return h.Sum(nil)[:batchHeader-summedHeader]
}

// seal fills in the header of a batch.
func (id logID) seal(batch []byte, epoch uint64, page uint32) {
	binary.BigEndian.PutUint64(batch, epoch)
	binary.BigEndian.PutUint32(batch[8:], page)
	binary.BigEndian.PutUint32(batch[12:], uint32(len(batch)-batchHeader)) //nolint:gosec // shorter than a log
	copy(batch[summedHeader:], id.sum(batch))
}

// parseBatch returns the batch at the beginning of data, ok if it is whole,
// belongs there and to this log.
func (id logID) parseBatch(data []byte, page uint32) (epoch uint64, records []byte, ok bool) {
	n := int64(binary.BigEndian.Uint32(data[12:]))
	if binary.BigEndian.Uint32(data[8:]) != page || n > int64(len(data)-batchHeader) {
		return 0, nil, false
	}
	batch := data[:batchHeader+n]
	return binary.BigEndian.Uint64(data), batch[batchHeader:], bytes.Equal(batch[summedHeader:batchHeader], id.sum(batch))
}

func pagesOf(batchBytes int) uint32 {
	return uint32((batchBytes + pageSize - 1) / pageSize) //nolint:gosec // shorter than a log
}

// read takes the batches of the database's epoch from the log's content into the
// records. One that is not whole was being written when the power failed:
// nobody was told that it is on disk, and nothing was written after it.
func (l logState) read(data []byte, records map[recordKey]*entries) error {
	if epoch, _, ok := l.id.parseBatch(data, 0); !ok || epoch != 0 {
		return fmt.Errorf("%w: not the log of this database", ErrDamaged)
	}
	ended := false
	for page := uint32(1); page < l.pages; {
		epoch, logged, ok := l.id.parseBatch(data[int(page)*pageSize:], page)
		switch {
		case ok && epoch > l.epoch:
			return fmt.Errorf("%w: page %d is newer than the database", ErrDamaged, page)
		case ok && epoch == l.epoch && ended:
			return fmt.Errorf("%w: what is before page %d is missing", ErrDamaged, page)
		case ok && epoch == l.epoch:
			if err := parseLogged(logged, records); err != nil {
				return err
			}
			page += pagesOf(batchHeader + len(logged))
		default:
			ended = true
			page++
		}
	}
	return nil
}

// parseLogged takes the records of one batch.
func parseLogged(b []byte, records map[recordKey]*entries) error {
	kinds := map[byte]kind{commands[0]: commands, legacy[0]: legacy}
	for len(b) > 0 {
		if len(b) < loggedHeader || kinds[b[0]] == "" {
			return fmt.Errorf("%w: a record of no known kind", ErrDamaged)
		}
		k, keyBytes, valueBytes := kinds[b[0]], int(binary.BigEndian.Uint16(b[1:])), int(binary.BigEndian.Uint16(b[3:]))
		if b = b[loggedHeader:]; len(b) < keyBytes+valueBytes {
			return fmt.Errorf("%w: a record is cut off", ErrDamaged)
		}
		key, err := parseRecordKey(k, b[:keyBytes])
		if err != nil {
			return err
		}
		es, err := parseEntries(k, b[keyBytes:keyBytes+valueBytes])
		if err != nil {
			return err
		}
		records[key] = &es
		b = b[keyBytes+valueBytes:]
	}
	return nil
}

// readLog takes what the log at path adds to the records of its database.
func readLog(path string, l logState, records map[recordKey]*entries, openFile openFunc) error {
	f, err := openFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = boltfile.Settle(f)
	if err == nil {
		err = checkLogSize(f, l.pages)
	}
	var data []byte
	if err == nil {
		data = make([]byte, int(l.pages)*pageSize)
		_, err = f.ReadAt(data, 0)
	}
	if err == nil {
		err = l.read(data, records)
	}
	return also(err, f.Close())
}

func checkLogSize(f *os.File, pages uint32) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != int64(pages)*pageSize {
		return fmt.Errorf("%w: not a file of %d pages", ErrDamaged, pages)
	}
	return nil
}

// logFile is a log that is open for writing.
type logFile struct {
	file  *os.File
	state logState
	next  uint32 // page of the next batch
	batch []byte // kept for its memory
}

// openLog opens the log with an id and a size, or makes it, with another id,
// where there is none like it. It is durable then, and so is its name: the
// database may rely on it.
func openLog(path string, id logID, pages uint32, openFile openFunc) (*logFile, error) {
	f, err := openFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &logFile{file: f, state: logState{id: id, pages: pages}}
	if err = l.check(); errors.Is(err, ErrDamaged) {
		err = l.fill()
	}
	if err == nil {
		err = boltfile.Settle(f)
	}
	if err != nil {
		return nil, also(err, f.Close())
	}
	return l, nil
}

// check: is it the file that it should be?
func (l *logFile) check() error {
	if err := checkLogSize(l.file, l.state.pages); err != nil {
		return err
	}
	first := make([]byte, pageSize)
	if _, err := l.file.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if epoch, _, ok := l.state.id.parseBatch(first, 0); !ok || epoch != 0 {
		return fmt.Errorf("%w: not the log of this database", ErrDamaged)
	}
	return nil
}

// fill makes the file anew. Zeros are written, so that the file system has
// nothing to note when they are written over.
func (l *logFile) fill() error {
	_, _ = rand.Read(l.state.id[:]) // never returns an error
	data := make([]byte, int(l.state.pages)*pageSize)
	l.state.id.seal(data[:batchHeader], 0, 0)
	if _, err := l.file.WriteAt(data, 0); err != nil {
		return err
	}
	return l.file.Truncate(int64(len(data)))
}

// checkEnd notices that somebody has truncated the file. It does not ask for
// the file's attributes: who does makes Linux, from 6.13 on, note the time of
// the next write exactly, and that goes to the disk too.
func (l *logFile) checkEnd() error {
	end, err := l.file.Seek(0, io.SeekEnd)
	if err == nil && end != int64(l.state.pages)*pageSize {
		err = fmt.Errorf("%w: not a file of %d pages", ErrDamaged, l.state.pages)
	}
	return err
}

// begin empties the log: all that is in it belongs to former epochs.
func (l *logFile) begin(state logState) { l.state, l.next = state, 1 }

// fits says whether the changes can be a batch: there is room for it, and none
// of them is a deletion, or telemetry, which after a Reset is urgent as well.
func (l *logFile) fits(changes []change) bool {
	n := batchHeader
	for _, c := range changes {
		if c.value == nil || c.bucket == telemetry {
			return false
		}
		n += loggedHeader + len(c.key) + len(c.value)
	}
	return uint64(n) <= uint64(l.state.pages-l.next)*pageSize
}

// append makes a batch of the changes durable, with one sync and without a
// change to what the file system knows of the file. It begins a page: what was
// confirmed earlier is never written again.
func (l *logFile) append(changes []change) error {
	b := append(l.batch[:0], make([]byte, batchHeader)...)
	for _, c := range changes {
		b = append(b, c.bucket[0])
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.key)))   //nolint:gosec // two names of maxNameBytes
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.value))) //nolint:gosec // at most 64 entries
		b = append(append(b, c.key...), c.value...)
	}
	l.state.id.seal(b, l.state.epoch, l.next)
	pages := pagesOf(len(b))
	b = append(b, make([]byte, int(pages)*pageSize-len(b))...)
	l.batch = b
	if _, err := l.file.WriteAt(b, int64(l.next)*pageSize); err != nil {
		return err
	}
	if err := syscall.Fdatasync(int(l.file.Fd())); err != nil {
		return err
	}
	l.next += pages
	return l.checkEnd()
}

// inLog names the log in an error.
func inLog(path string, err error) error {
	return fmt.Errorf("its log %s: %w", path, withoutPath(err))
}
