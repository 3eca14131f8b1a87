package replay_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"pinseal/signing/replay"
)

const logPages = 8

// state is a database and its log after a power cut: some commands, a batch
// each, the last of them in the log.
type state struct {
	db, log []byte
	last    uint64
}

// logged makes a state. There are epochs in it before the last.
func logged(tb testing.TB) state {
	tb.Helper()
	p := path(tb)
	s := open(tb, p, replay.Options{LogPages: logPages, FlushEvery: time.Hour})
	const last = 2*logPages + 4 // 17 is the last that a checkpoint makes durable
	for n := uint64(1); n <= last; n++ {
		if _, c := s.Command("kid", output(n), n, digest("a")); c.Wait() != nil {
			tb.Fatal(c.Wait())
		}
	}
	st := state{last: last}
	var err, logErr error
	st.db, err = os.ReadFile(p)
	st.log, logErr = os.ReadFile(replay.LogPath(p))
	if err := errors.Join(err, logErr); err != nil {
		tb.Fatal(err)
	}
	return st
}

// openAt writes a state to the same place as before, and opens it.
func (st state) openAt(tb testing.TB, p string, o replay.Options) (*replay.Store, error) {
	tb.Helper()
	err := errors.Join(os.WriteFile(p, st.db, 0o600), os.WriteFile(replay.LogPath(p), st.log, 0o600))
	if err != nil {
		tb.Fatal(err)
	}
	return replay.Open(p, o)
}

// output is what a command is for: each number has the same one as the fourth
// before it.
func output(n uint64) string { return fmt.Sprint("out", n%4) }

// remembers reports the last of the commands that is known: the last, or the
// one before. All others must be.
func remembers(t *testing.T, s *replay.Store, last uint64) uint64 {
	t.Helper()
	ask := func(n uint64) replay.Outcome {
		o, _ := s.Command("kid", output(n), n, digest("a"))
		return o
	}
	for n := last - min(last, 3); n < last; n++ {
		if o := ask(n); n > 0 && o != replay.Duplicate {
			t.Fatalf("command %d: %v", n, o)
		}
	}
	if last > 4 && ask(last-4) == replay.Duplicate && ask(last) == replay.New {
		return last - 1
	}
	if o := ask(last); o != replay.Duplicate {
		t.Fatalf("command %d: %v", last, o)
	}
	return last
}

// layout reads the log as the package comment describes it.
func (st state) layout(t *testing.T) (id []byte, epoch uint64, batches [][2]int) {
	t.Helper()
	p := writeFile(t, st.db)
	db, err := bbolt.Open(p, 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = db.View(func(tx *bbolt.Tx) error {
		value := bytes.Clone(tx.Bucket([]byte("meta")).Get([]byte("log")))
		id, epoch = value[:16], binary.BigEndian.Uint64(value[16:])
		return nil
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	batches = append(batches, [2]int{0, 32})
	for at := 4096; at < len(st.log) && binary.BigEndian.Uint64(st.log[at:]) == epoch; {
		n := 32 + int(binary.BigEndian.Uint32(st.log[at+12:]))
		if !bytes.Equal(st.log[at:at+n], batch(id, epoch, at/4096, st.log[at+32:at+n])) {
			t.Fatalf("the batch at %d is not as described", at)
		}
		batches = append(batches, [2]int{at, at + n})
		at += (n + 4095) / 4096 * 4096
	}
	return id, epoch, batches
}

// batch is a batch as the package comment describes it.
func batch(id []byte, epoch uint64, page int, records []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, epoch)
	b = binary.BigEndian.AppendUint32(b, uint32(page))
	b = binary.BigEndian.AppendUint32(b, uint32(len(records)))
	h := sha256.Sum256(bytes.Join([][]byte{id, b, records}, nil))
	return append(append(b, h[:16]...), records...)
}

// logRecord is a command as the package comment describes it.
func logRecord(kid, output string, n uint64) []byte {
	d := digest("a")
	b := binary.BigEndian.AppendUint16([]byte{'c'}, uint16(2+len(kid)+len(output)))
	b = binary.BigEndian.AppendUint16(b, 40)
	b = binary.BigEndian.AppendUint16(b, uint16(len(kid)))
	b = append(append(b, kid...), output...)
	return append(binary.BigEndian.AppendUint64(b, n), d[:]...)
}

// checkLogRefused expects one line that names the log.
func checkLogRefused(t *testing.T, what, p string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), replay.LogPath(p)) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func TestTruncatedLogIsRefused(t *testing.T) {
	inMemory(t)
	st, p := logged(t), path(t)
	whole := st.log
	for n := 0; n < len(whole); n += 61 {
		st.log = whole[:n]
		_, err := st.openAt(t, p, replay.Options{})
		checkLogRefused(t, fmt.Sprint(n, " bytes"), p, err, replay.ErrDamaged)
	}
	st.log = append(bytes.Clone(whole), 0)
	_, err := st.openAt(t, p, replay.Options{})
	checkLogRefused(t, "a byte more", p, err, replay.ErrDamaged)
	st.log = whole
	s, err := st.openAt(t, p, replay.Options{})
	if err != nil || remembers(t, s, st.last) != st.last {
		t.Fatal("the whole log is not taken", err)
	}
	closeStore(t, s)
}

// Every bit that is flipped in the log is noticed, but for the last batch: that
// one is taken for torn.
func TestFlippedBitsOfTheLog(t *testing.T) {
	inMemory(t)
	st, p := logged(t), path(t)
	_, _, batches := st.layout(t)
	if len(batches) != 4 {
		t.Fatalf("%d batches", len(batches))
	}
	for i, b := range batches {
		for bit := 8 * b[0]; bit < 8*b[1]; bit++ {
			st.log[bit/8] ^= 1 << (bit % 8)
			s, err := st.openAt(t, p, replay.Options{})
			st.log[bit/8] ^= 1 << (bit % 8)
			if i < len(batches)-1 {
				checkLogRefused(t, fmt.Sprint("bit ", bit), p, err, replay.ErrDamaged)
				continue
			}
			if err != nil {
				t.Fatalf("bit %d: %v", bit, err)
			}
			if n := remembers(t, s, st.last); n != st.last-1 {
				t.Fatalf("bit %d: the last is %d", bit, n)
			}
			closeStore(t, s)
		}
	}
}

// What is behind the batches may be anything but a later epoch.
func TestFlippedBitsBehindTheLog(t *testing.T) {
	inMemory(t)
	st, p := logged(t), path(t)
	_, _, batches := st.layout(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		at := r.IntN(len(st.log))
		inBatch := false
		for _, b := range batches {
			inBatch = inBatch || b[0] <= at && at < b[1]
		}
		if inBatch {
			continue
		}
		old := st.log[at]
		st.log[at] ^= 1 << r.IntN(8)
		s, err := st.openAt(t, p, replay.Options{})
		st.log[at] = old
		if err != nil || remembers(t, s, st.last) != st.last {
			t.Fatalf("byte %d: %v", at, err)
		}
		closeStore(t, s)
	}
}

// A batch of several pages, of which a disk has written some sectors.
func TestTornBatch(t *testing.T) {
	inMemory(t)
	st, p := logged(t), path(t)
	id, epoch, batches := st.layout(t)
	var records []byte
	for n := range 160 {
		records = append(records, logRecord("kid", fmt.Sprint("new", n), 5)...)
	}
	at := (batches[len(batches)-1][1] + 4095) / 4096 * 4096
	torn := batch(id, epoch, at/4096, records)
	if len(torn) < 8192 || at+len(torn) > len(st.log) {
		t.Fatalf("%d bytes at %d", len(torn), at)
	}
	before := bytes.Clone(st.log)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		st.log = bytes.Clone(before)
		whole := true
		for from := 0; from < len(torn); from += 512 {
			if round == 0 || r.IntN(2) == 0 {
				copy(st.log[at+from:], torn[from:min(from+512, len(torn))])
			} else {
				whole = false
			}
		}
		s, err := st.openAt(t, p, replay.Options{})
		if err != nil || remembers(t, s, st.last) != st.last {
			t.Fatalf("round %d: %v", round, err)
		}
		want := replay.New
		if whole {
			want = replay.Duplicate
		}
		for n := range 160 {
			if o, _ := s.Command("kid", fmt.Sprint("new", n), 5, digest("a")); o != want {
				t.Fatalf("round %d: record %d is %v, want %v", round, n, o, want)
			}
		}
		closeStore(t, s)
	}
}

func TestWrongLogIsRefused(t *testing.T) {
	inMemory(t)
	st, other := logged(t), logged(t)
	id, epoch, batches := st.layout(t)
	free := (batches[len(batches)-1][1] + 4095) / 4096
	with := func(page int, b []byte) []byte {
		log := bytes.Clone(st.log)
		copy(log[page*4096:], b)
		return log
	}
	raw := func(records ...byte) []byte { return with(free, batch(id, epoch, free, records)) }
	tests := []struct {
		name string
		log  []byte
	}{
		{"of another database", other.log},
		{"zeros", make([]byte, len(st.log))},
		{"random", bytes.Repeat([]byte{0xa5, 3}, len(st.log)/2)},
		{"a later epoch than the database", with(logPages-1, batch(id, epoch+1, logPages-1, nil))},
		{"a batch behind a gap", with(logPages-1, batch(id, epoch, logPages-1, nil))},
		{"a record of no kind", raw('x', 0, 3, 0, 40)},
		{"telemetry", raw(append([]byte{'t'}, logRecord("kid", "new", 5)[1:]...)...)},
		{"half a record", raw('c', 0, 3)},
		{"a record cut off", raw('c', 0, 3, 0, 40, 0, 1, 'k')},
		{"a record without a key", raw('c', 0, 0, 0, 0)},
		{"a record without an entry", raw('l', 0, 2, 0, 0, 0, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, st := path(t), st
			st.log = tt.log
			_, err := st.openAt(t, p, replay.Options{Since: time.Unix(1700000000, 0)})
			checkLogRefused(t, tt.name, p, err, replay.ErrDamaged)
			if now, _ := os.ReadFile(replay.LogPath(p)); !bytes.Equal(now, tt.log) {
				t.Error("the refused log was changed")
			}
		})
	}
	t.Run("a batch more", func(t *testing.T) {
		st := st
		st.log = with(free, batch(id, epoch, free, logRecord("kid", "new", 5)))
		s, err := st.openAt(t, path(t), replay.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if o, _ := s.Command("kid", "new", 5, digest("a")); o != replay.Duplicate {
			t.Errorf("%v", o)
		}
		closeStore(t, s)
	})
}

func TestLostLog(t *testing.T) {
	st, p := logged(t), path(t)
	since := time.Date(2026, 11, 5, 10, 20, 30, 0, time.UTC)
	if err := os.WriteFile(p, st.db, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := replay.Open(p, replay.Options{})
	checkLogRefused(t, "nobody says since when", p, err, os.ErrNotExist)
	for _, o := range []replay.Options{{Since: since}, {Since: since.Add(time.Hour)}, {}} {
		s := open(t, p, o) // the second time, nothing is lost any more
		if !s.Since().Equal(since) {
			t.Errorf("since %v", s.Since())
		}
		closeStore(t, s)
	}
}

func TestLogOutlivesDatabase(t *testing.T) {
	st, p := logged(t), path(t)
	if err := os.WriteFile(replay.LogPath(p), st.log, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := replay.Open(p, replay.Options{})
	checkLogRefused(t, "nobody says since when", p, err, os.ErrNotExist)
	s := open(t, p, replay.Options{Since: time.Unix(1700000000, 0)})
	if _, c := s.Command("kid", "led", 1, digest("a")); c.Wait() != nil {
		t.Fatal(c.Wait())
	}
	s = open(t, copyState(t, p), replay.Options{})
	if o, _ := s.Command("kid", "led", 1, digest("a")); o != replay.Duplicate {
		t.Errorf("%v", o)
	}
}

// After a clean end the log is not needed.
func TestClosedStoreNeedsNoLog(t *testing.T) {
	st, p := logged(t), path(t)
	s, err := st.openAt(t, p, replay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if err := os.Remove(replay.LogPath(p)); err != nil {
		t.Fatal(err)
	}
	s = open(t, p, replay.Options{})
	if n := remembers(t, s, st.last); n != st.last {
		t.Errorf("the last is %d", n)
	}
}

// Whenever the power fails, everything confirmed is there, through many epochs.
func TestLogIsFull(t *testing.T) {
	inMemory(t)
	p := path(t)
	s := open(t, p, replay.Options{LogPages: 3, FlushEvery: time.Hour})
	for n := uint64(1); n <= 20; n++ {
		if n%7 == 0 { // larger than the log
			for i := range 200 {
				s.Command("kid", fmt.Sprint("many", i), n, digest("a"))
			}
		}
		if _, c := s.Command("kid", output(n), n, digest("a")); c.Wait() != nil {
			t.Fatal(c.Wait())
		}
		after := open(t, copyState(t, p), replay.Options{})
		if last := remembers(t, after, n); last != n {
			t.Fatalf("command %d is lost", n)
		}
		closeStore(t, after)
	}
}

// A log that somebody truncates or removes is noticed and made anew.
func TestLogTruncatedWhileOpen(t *testing.T) {
	p := path(t)
	s := open(t, p, replay.Options{LogPages: logPages})
	ask := command("kid", "led")
	for n := range uint64(2) {
		if _, err := ask(s, n, digest("a")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(replay.LogPath(p), 0); err != nil {
		t.Fatal(err)
	}
	_, err := ask(s, 2, digest("a"))
	checkLogRefused(t, "truncated", p, err, replay.ErrDamaged)
	for n := uint64(3); n < 6; n++ {
		if _, err := ask(s, n, digest("a")); err != nil {
			t.Fatal(err)
		}
	}
	after := open(t, copyState(t, p), replay.Options{})
	if o, _ := ask(after, 5, digest("a")); o != replay.Duplicate {
		t.Errorf("%v", o)
	}
}

func TestLogCannotBeMade(t *testing.T) {
	p, d := path(t), &disk{only: ".log", mode: "full"}
	s := open(t, p, replay.Options{OpenFile: d.open})
	ask := command("kid", "led")
	for n := range uint64(2) {
		o, err := ask(s, n, digest("a"))
		if o != replay.New {
			t.Errorf("%v", o)
		}
		checkLogRefused(t, "a full disk", p, err, syscall.ENOSPC)
	}
	d.comesBack()
	if o, err := ask(s, 0, digest("a")); o != replay.Replay || err != nil {
		t.Errorf("a number that is used up: %v, %v", o, err)
	}
	if o, err := ask(s, 2, digest("a")); o != replay.New || err != nil {
		t.Errorf("after the disk came back: %v, %v", o, err)
	}
}

// Telemetry that comes while its key is being reset does not get into the log, which is for commands.
func TestTelemetryDuringReset(t *testing.T) {
	opened, goOn := make(chan struct{}), make(chan struct{})
	openFile := func(name string, flag int, perm os.FileMode) (*os.File, error) {
		if flag&os.O_CREATE != 0 && strings.HasSuffix(name, ".log") {
			close(opened)
			<-goOn
		}
		return os.OpenFile(name, flag, perm)
	}
	p := path(t)
	s := open(t, p, replay.Options{OpenFile: openFile, FlushEvery: time.Hour})
	s.Telemetry("k", "t", 1, digest("a"))
	first, reset := make(chan error), make(chan error)
	go func() {
		_, err := command("other", "led")(s, 1, digest("a"))
		first <- err
	}()
	<-opened // the next commit waits for this one
	go func() { reset <- s.Reset("k") }()
	for s.Telemetry("k", "t", 1, digest("a")) != replay.New {
		runtime.Gosched()
	}
	close(goOn)
	if err := errors.Join(<-first, <-reset); err != nil {
		t.Fatal(err)
	}
	after := open(t, copyState(t, p), replay.Options{})
	if o := after.Telemetry("k", "t", 1, digest("a")); o != replay.Duplicate {
		t.Errorf("%v", o)
	}
}
