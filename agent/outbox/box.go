package outbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pinseal/internal/boltfile"
	"pinseal/signing"
)

// Window is how many messages may be on their way from the oldest that has no answer. It must be well below the 64 that
// a receiver remembers of a topic.
const Window = 32

// Message is a sealed message.
type Message struct {
	Topic  string
	Number uint64 // its seq
	Sealed []byte
}

// Options are what a Box can be told. The zero value is ready to use.
type Options struct {
	// Journal is the file that outlives a kill; the database's name with ".journal" added if empty. It should lie in
	// memory, as /run does.
	Journal string
	// MaxBytes is how much may wait, compressed on the disk and as it is in memory; 64 MiB if zero.
	MaxBytes int64
	// FlushEvery is how long a message waits for an answer before it is written to the disk; 5 minutes if zero.
	FlushEvery time.Duration
	// Rate is how many messages a second are published, 50 if zero, so that a backlog does not crowd out anything else.
	Rate float64
	// RetryAfter is how long an answer may take before a message is published again, twice as long each time up to 30
	// times that; 10 s if zero.
	RetryAfter time.Duration
	Log        *slog.Logger // may be nil
	// OpenFile opens the two files; nil means [os.OpenFile]. It is the place for a file layer that injects faults.
	OpenFile boltfile.OpenFunc
}

const (
	defaultMaxBytes   = 64 << 20
	defaultFlushEvery = 5 * time.Minute
	defaultRate       = 50
	// maxMemory bounds what waits in memory, whatever the disk does.
	maxMemory = 8 << 20
	// maxJournal is at how many bytes of the journal its messages go to the disk.
	maxJournal   = 256 << 10
	defaultRetry = 10 * time.Second
	// retryMost is the longest wait for an answer, as a multiple of the first.
	retryMost = 30
	// retryRefused is after how long to ask again what was refused for a reason that may pass.
	retryRefused = 30 * time.Second
)

// Stats counts since Open, but for what waits.
type Stats struct {
	Waiting      int    // messages
	WaitingBytes int64  // of them, as they lie
	Accepted     uint64 // answered by the receiver
	Refused      uint64 // refused by it for good
	Dropped      uint64 // given up for want of room
}

// item is a message and how far it is.
type item struct {
	Message
	position uint64
	put      time.Time
	chunk    *chunk // where it lies on the disk; nil: in the journal alone

	flight    uint64 // its place in the order of flying
	published bool   // handed over
	confirmed bool   // by the broker
	retry     time.Time
	wait      time.Duration
}

func (i *item) bytes() int64 { return int64(len(i.Sealed) + len(i.Topic)) }

// Box is an outbox. It is safe for concurrent use.
type Box struct {
	options Options
	log     *slog.Logger
	wake    chan struct{}
	pace    *rate.Limiter

	// What is told by those who must not wait for mu, under which a disk may take its time.
	telling sync.Mutex
	told    []func()

	mu      sync.Mutex
	store   *store
	journal *journal
	closed  bool
	last    uint64 // position
	flights uint64 // that there were

	// What waits, in its order: flying, loaded, chunks, recent.
	flying []*item  // in that order
	loaded []*item  // of a chunk, next to fly
	chunks []*chunk // on the disk, not loaded
	recent []*item

	done                                          map[uint64]bool // answered, of chunks that are still on the disk
	emptied                                       []*chunk        // to be deleted from the disk
	bytes                                         int64           // of all that waits
	memory                                        int64           // of recent
	exposed                                       bool            // something waits in memory alone
	dirty                                         time.Time       // since when done or emptied are not as on the disk; zero: they are
	toldDisk, toldRefused, toldWaits, toldDropped seldom
	again, unread                                 time.Time // not before then is a disk asked again that refused to be written, to be read
	stats                                         Stats
}

// Open opens the outbox at path, or makes it with mode 0600, and reads what waits. The caller closes it.
func Open(path string, o Options) (*Box, error) {
	if o.Journal == "" {
		o.Journal = path + ".journal"
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.FlushEvery <= 0 {
		o.FlushEvery = defaultFlushEvery
	}
	if o.Rate <= 0 {
		o.Rate = defaultRate
	}
	if o.RetryAfter <= 0 {
		o.RetryAfter = defaultRetry
	}
	if o.OpenFile == nil {
		o.OpenFile = os.OpenFile
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Box{
		options: o, log: o.Log, wake: make(chan struct{}, 1), pace: rate.NewLimiter(rate.Limit(o.Rate), Window),
		done: map[uint64]bool{},
	}
	var err error
	if b.store, err = openStore(path, o); err != nil {
		return nil, fmt.Errorf("opening the outbox: %w", err)
	}
	if err := b.restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the outbox: %w", err), b.store.close())
	}
	return b, nil
}

// restore reads the index of the database, and the journal.
func (b *Box) restore() error {
	chunks, done, err := b.store.index()
	if err != nil {
		return err
	}
	b.chunks = chunks
	for _, position := range done {
		b.done[position] = true
	}
	for _, c := range chunks {
		b.last = max(b.last, c.last())
		b.bytes += c.bytes
	}
	stored := b.last
	journal, records, err := openJournal(b.options.Journal, b.options.OpenFile)
	if err != nil {
		return err
	}
	b.journal = journal
	for _, r := range records {
		b.last = max(b.last, r.position)
		switch {
		case r.done:
			b.done[r.position] = true
		case r.position > stored: // or it went to the disk before the journal was emptied
			i := &item{Message: r.Message, position: r.position, put: time.Now()}
			b.recent = append(b.recent, i)
		}
	}
	b.forgetDone()
	return nil
}

// forgetDone leaves out what was answered before the start, and counts the rest.
func (b *Box) forgetDone() {
	kept := b.recent[:0]
	for _, i := range b.recent {
		if b.done[i.position] {
			delete(b.done, i.position)
			continue
		}
		kept = append(kept, i)
		b.bytes += i.bytes()
		b.memory += i.bytes()
	}
	b.recent = kept
	for position := range b.done {
		c := b.chunkOf(position)
		if c == nil {
			delete(b.done, position)
			continue
		}
		c.left--
	}
	for _, c := range slices.Clone(b.chunks) {
		if c.left == 0 { // killed before it was deleted
			b.discard(c)
		}
	}
}

func (b *Box) chunkOf(position uint64) *chunk {
	for _, c := range b.chunks {
		if c.first <= position && position <= c.last() {
			return c
		}
	}
	return nil
}

// Put keeps a message and has it published. It returns when the message outlives a kill, or when the disk refused and
// it is kept in memory alone, which is logged. It fails on what is not a sealed message, and after Close.
func (b *Box) Put(m Message) error {
	if _, err := appendMessage(nil, &item{Message: m}, 0); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("the outbox is closed")
	}
	b.last++
	i := &item{Message: m, position: b.last, put: time.Now()}
	if err := b.journal.add(i); err != nil {
		b.exposed = true
		b.disk("the outbox's journal cannot be written; what waits is in memory alone", err)
	}
	b.recent = append(b.recent, i)
	b.bytes += i.bytes()
	b.memory += i.bytes()
	b.makeRoom()
	b.signal()
	return nil
}

// Accepted takes the receiver's word that it has a message. It does not wait for a disk.
func (b *Box) Accepted(topic string, number uint64) {
	b.answered(topic, number, func(i *item) {
		b.stats.Accepted++
		b.finish(i)
	})
}

// Refused takes the receiver's refusal of a message. A reason that may pass has the message published again later; any
// other gives it up. It does not wait for a disk.
func (b *Box) Refused(topic string, number uint64, reason signing.Reason) {
	b.answered(topic, number, func(i *item) {
		switch reason {
		case signing.ReasonDuplicate, signing.ReasonReplay: // see the package comment
			b.stats.Accepted++
			b.finish(i)
		case signing.ReasonStale, signing.ReasonEquivocation, signing.ReasonMalformed, signing.ReasonWrongTopic, signing.ReasonBadCommand, signing.ReasonUnknownKey:
			b.stats.Refused++
			if n := b.toldRefused.due(1); n > 0 {
				b.log.Error("telemetry given up: its receiver refuses it", "messages", n, "topic", topic, "seq", number, "reason", string(reason))
			}
			b.finish(i)
		case signing.ReasonRateLimited:
			i.retry = time.Now().Add(time.Second)
		default:
			if n := b.toldWaits.due(1); n > 0 {
				b.log.Warn("telemetry waits: its receiver refuses it for now", "topic", topic, "seq", number, "reason", string(reason))
			}
			i.retry = time.Now().Add(retryRefused)
		}
	})
}

// maxTold bounds the answers that wait to be heard. What is beyond is forgotten: its message is sent once more.
const maxTold = 4096

// answered finds what flies by its topic and number.
func (b *Box) answered(topic string, number uint64, do func(*item)) {
	b.telling.Lock()
	full := len(b.told) >= maxTold
	b.telling.Unlock()
	if full {
		return
	}
	b.tell(func() {
		for _, i := range b.flying {
			if i.Number == number && i.Topic == topic {
				do(i)
				b.signal()
				return
			}
		}
	})
}

// tell has f called with b.mu held: at once or, while somebody else has it who may be waiting for a disk, by Run or Close
// afterwards.
func (b *Box) tell(f func()) {
	b.telling.Lock()
	b.told = append(b.told, f)
	b.telling.Unlock()
	if b.mu.TryLock() {
		b.hear()
		b.mu.Unlock()
		return
	}
	b.signal()
}

// hear does what was told. b.mu is held.
func (b *Box) hear() {
	b.telling.Lock()
	told := b.told
	b.told = nil
	b.telling.Unlock()
	for _, f := range told {
		f()
	}
}

// finish takes a message out. b.mu is held.
func (b *Box) finish(i *item) {
	b.flying = slices.DeleteFunc(b.flying, func(other *item) bool { return other == i })
	if i.chunk == nil {
		b.bytes -= i.bytes()
	}
	b.settle(i.position, i.chunk)
	if err := b.journal.done(i.position); err != nil {
		b.disk("the outbox's journal cannot be written", err)
	}
	// What is in the database must be known to be answered until it is deleted there.
	if len(b.flying)+len(b.recent)+len(b.loaded)+len(b.chunks)+len(b.emptied)+len(b.done) == 0 {
		if err := b.journal.empty(); err != nil {
			b.disk("the outbox's journal cannot be emptied", err)
		}
	}
}

// settle notes that nothing more is to be done for a position of a chunk. b.mu is held.
func (b *Box) settle(position uint64, c *chunk) {
	if c == nil || c.gone {
		return
	}
	if b.dirty.IsZero() {
		b.dirty = time.Now()
	}
	b.done[position] = true
	if c.left--; c.left == 0 {
		b.discard(c)
	}
}

// discard has a chunk deleted from the disk. b.mu is held.
func (b *Box) discard(c *chunk) {
	c.gone = true
	b.bytes -= c.bytes
	b.emptied = append(b.emptied, c)
	b.chunks = slices.DeleteFunc(b.chunks, func(other *chunk) bool { return other == c })
	for position := c.first; position <= c.last(); position++ {
		delete(b.done, position)
	}
	for _, i := range b.flying {
		if i.chunk == c { // still awaits its answer, and needs another place
			i.chunk = nil
			b.bytes += i.bytes()
			b.exposed = true
		}
	}
	if b.dirty.IsZero() {
		b.dirty = time.Now()
	}
}

// makeRoom gives up the oldest that do not fly, until what waits is within its bounds. b.mu is held.
func (b *Box) makeRoom() {
	before := b.stats.Dropped
	for b.bytes > b.options.MaxBytes && b.dropOldest() {
	}
	for b.memory > maxMemory && len(b.recent) > 0 {
		b.dropRecent()
	}
	if n := b.toldDropped.due(b.stats.Dropped - before); n > 0 {
		b.log.Warn("telemetry given up: too much waits for its receiver", "messages", n, "bytes", b.bytes)
	}
}

func (b *Box) dropOldest() bool {
	switch {
	case len(b.loaded) > 0:
		i := b.loaded[0]
		b.loaded = b.loaded[1:]
		b.stats.Dropped++
		b.settle(i.position, i.chunk)
	case len(b.chunks) > 0:
		c := b.chunks[0]
		b.stats.Dropped += b.resting(c)
		b.discard(c)
	case len(b.recent) > 0:
		b.dropRecent()
	default:
		return false // all of it flies
	}
	return true
}

// resting is how many messages of a chunk wait and do not fly.
func (b *Box) resting(c *chunk) uint64 {
	n := c.left
	for _, i := range b.flying {
		if i.chunk == c {
			n--
		}
	}
	return uint64(max(n, 0))
}

func (b *Box) dropRecent() {
	i := b.recent[0]
	b.recent = b.recent[1:]
	b.bytes -= i.bytes()
	b.memory -= i.bytes()
	b.stats.Dropped++
	if err := b.journal.done(i.position); err != nil {
		b.disk("the outbox's journal cannot be written", err)
	}
}

// Stats returns the counts.
func (b *Box) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hear()
	s := b.stats
	s.WaitingBytes = b.bytes
	s.Waiting = len(b.flying) + len(b.loaded) + len(b.recent)
	for _, c := range b.chunks {
		s.Waiting += int(b.resting(c)) //nolint:gosec // a count
	}
	return s
}

// Close writes what waits to the disk. The error says that it is not all there. Run must have ended.
func (b *Box) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.hear()
	err := errors.Join(b.flush(), b.store.close())
	if err != nil {
		return errors.Join(fmt.Errorf("closing the outbox: %w", err), b.journal.close())
	}
	return b.journal.close()
}

func (b *Box) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// disk tells of a disk that refuses, not at every message. b.mu is held.
func (b *Box) disk(what string, err error) {
	if b.toldDisk.due(1) > 0 {
		b.log.Error(what, "error", err) //nolint:sloglint // every text is a constant at its caller
	}
}

// seldom keeps the log short: what happens often is told of once a minute.
type seldom struct {
	at    time.Time
	count uint64
}

// due counts n more, and returns how many there were since the last time if it is time to tell, else 0.
func (s *seldom) due(n uint64) uint64 {
	s.count += n
	now := time.Now()
	if s.count == 0 || now.Sub(s.at) < time.Minute {
		return 0
	}
	n, s.at, s.count = s.count, now, 0
	return n
}
