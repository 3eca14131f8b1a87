package replay

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a Store can be told. The zero value is ready to use.
type Options struct {
	// Since is stored where Open makes the database, or finds it without the log
	// that it relies on, unless a later one is stored; otherwise it is ignored.
	// Zero says that nothing can be lost: where only one of the two files is
	// there that should be, Open fails. See [Store.Since].
	Since time.Time
	// FlushEvery is how long telemetry may stay in memory; 0 means 5 s.
	FlushEvery time.Duration
	// LogPages is how many pages of 4096 bytes a log is made with, at least 2;
	// 0 means 256.
	LogPages int
	// OpenFile opens the database and its log; nil means [os.OpenFile]. It is
	// the place for a file layer that injects faults.
	OpenFile func(name string, flag int, perm os.FileMode) (*os.File, error)
}

// maxRecordsPerKey bounds what one key can make the store remember.
const maxRecordsPerKey = 1024

// Store is the memory of one node. It is safe for concurrent use. Between Open
// and Close it runs a goroutine, which writes what nobody waits for.
type Store struct {
	since      time.Time
	flushEvery time.Duration
	settled    *Commit // of decisions that change nothing

	wake    chan struct{} // something urgent is waiting
	closing chan struct{}
	stopped chan struct{}
	once    sync.Once

	turn     chan struct{} // holds one while somebody writes, who alone may touch these:
	database *database
	lastErr  error // of the last commit
	ending   bool  // Close was called
	alone    int   // commits of one decision each, since the last of more

	commits, failures atomic.Uint64

	mu      sync.Mutex
	closed  bool
	records map[recordKey]*entries
	count   map[string]int // records by kid
	next    *Commit        // of the decisions not yet taken up
	refused refusals
	// What differs from the database. A key without a record is to be deleted there.
	urgent map[recordKey]struct{} // to be written at once
	logged map[recordKey]struct{} // in the log
	lazy   map[recordKey]struct{} // to be written in the next flush
	due    map[recordKey]struct{} // what the running flush has still to write
}

// Open opens the database at path, or makes it with mode 0600 where there is
// none. The caller closes it.
//
// The error names the file. It matches [ErrInUse] where another process holds
// the file for longer than a second, [ErrDamaged] where the content cannot be
// trusted: then only a person can decide to move the file away.
func Open(path string, o Options) (*Store, error) {
	if o.FlushEvery <= 0 {
		o.FlushEvery = 5 * time.Second
	}
	if o.LogPages <= 0 {
		o.LogPages = defaultLogPages
	}
	if o.OpenFile == nil {
		o.OpenFile = os.OpenFile
	}
	d, content, err := openDatabase(path, o)
	if err != nil {
		return nil, fmt.Errorf("opening replay state %s: %w", path, err)
	}
	s := &Store{
		since: content.since, database: d, flushEvery: o.FlushEvery, turn: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), stopped: make(chan struct{}),
		records: content.records, count: map[string]int{},
		refused: refusals{},
		urgent:  map[recordKey]struct{}{}, logged: map[recordKey]struct{}{}, lazy: map[recordKey]struct{}{}, due: map[recordKey]struct{}{},
	}
	s.settled = newCommit(s)
	s.settled.finish(nil)
	putKeys(s.logged, content.logged)
	for k := range s.records {
		s.count[k.kid]++
	}
	go s.run()
	return s, nil
}

// Since is the time of sealing at or before which commands must be refused,
// because the memory of them is lost: zero for a store made together with its
// node, later for one that replaces a lost file. Its precision is a microsecond.
func (s *Store) Since() time.Time { return s.since }

// Commits returns how often the store went to the disk since it was opened, and
// how often that failed.
func (s *Store) Commits() (all, failed uint64) { return s.commits.Load(), s.failures.Load() }

// Command judges a command for an output and, where it is New, uses its number
// up at once. It must be acted on only when it is New and [Commit.Wait] returned
// nil; after a Commit that failed the same command is New again. The Commit is
// never nil; with any outcome but New nothing is left to wait for.
func (s *Store) Command(kid, output string, seq uint64, digest [32]byte) (Outcome, *Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := recordKey{commands, kid, output}
	r := s.record(key)
	if r == nil {
		return Replay, s.settled
	}
	e := entry{seq, digest}
	return s.durably(key, e, r.acceptHighest(e, commands.most()))
}

// Legacy judges a message of the legacy format by the second it carries
// (since 1970, not negative), as Command does by the sequence number.
func (s *Store) Legacy(kid string, second int64, digest [32]byte) (Outcome, *Commit) {
	if second < 0 {
		return Replay, s.settled
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := recordKey{legacy, kid, ""}
	r := s.record(key)
	if r == nil {
		return Replay, s.settled
	}
	e := entry{uint64(second), digest}
	return s.durably(key, e, r.acceptSecond(e, legacy.most()))
}

// Telemetry judges a telemetry message and remembers it where it is New, on
// disk within [Options.FlushEvery].
func (s *Store) Telemetry(kid, topic string, seq uint64, digest [32]byte) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := recordKey{telemetry, kid, topic}
	r := s.record(key)
	if r == nil {
		return Replay
	}
	o := r.acceptHighest(entry{seq, digest}, telemetry.most())
	if o == New {
		s.lazy[key] = struct{}{}
	}
	return o
}

// Reset forgets everything of a key. It returns nil when that is on disk;
// otherwise it is forgotten in memory, and on disk with the next commit that
// succeeds.
func (s *Store) Reset(kid string) error {
	s.mu.Lock()
	for key := range s.records {
		if key.kid == kid {
			delete(s.records, key)
			delete(s.refused, key)
			s.urgent[key] = struct{}{}
		}
	}
	delete(s.count, kid)
	c := s.enqueue()
	s.mu.Unlock()
	return c.Wait()
}

// Close writes what is not yet on disk, ends the goroutine and closes the file.
// The error says that something accepted may be forgotten. Later calls return
// the same; what is decided after Close cannot become durable.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.closing)
	})
	<-s.stopped
	return s.lastErr
}

// record returns the entries of a key, new ones where there are none, or nil
// where the key may not have more. s.mu is held.
func (s *Store) record(key recordKey) *entries {
	if r := s.records[key]; r != nil {
		return r
	}
	if s.count[key.kid] >= maxRecordsPerKey || len(key.kid) > maxNameBytes || len(key.name) > maxNameBytes {
		return nil
	}
	s.count[key.kid]++
	r := new(entries)
	s.records[key] = r
	return r
}

// durably sends a change of the record on its way. A message whose commit has failed is New once more when it comes
// again, as long as its number is the highest: nobody was told to act on it, and nobody will be before this commit, which
// holds it again whatever of it is on disk. s.mu is held.
func (s *Store) durably(key recordKey, e entry, o Outcome) (Outcome, *Commit) {
	if o == Duplicate && s.refused.take(key, e) {
		o = New
	}
	if o != New {
		return o, s.settled
	}
	s.urgent[key] = struct{}{}
	c := s.enqueue()
	if !s.closed {
		c.accepted = append(c.accepted, accepted{key, e})
	}
	return o, c
}

// enqueue returns the commit that will hold everything decided so far. s.mu is held.
func (s *Store) enqueue() *Commit {
	if s.closed {
		c := newCommit(s)
		c.finish(errClosed)
		return c
	}
	if s.next == nil {
		s.next = newCommit(s)
	}
	s.signal()
	return s.next
}

var errClosed = errors.New("replay state is closed")
