package replay

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"
)

// Commit is one way to the disk, shared by all decisions that wait for it.
type Commit struct {
	store *Store
	done  chan struct{}
	err   error // written before done is closed

	accepted []accepted // what waits for it
}

// accepted is a message that was New.
type accepted struct {
	key   recordKey
	entry entry
}

// refusals are the entries of records whose commit has failed, and which were not New again since. All of them are in
// their records, which bounds them.
type refusals map[recordKey][]entry

// add notes what waited for a commit that has failed.
func (r refusals) add(list []accepted, records map[recordKey]*entries) {
	for _, a := range list {
		still := records[a.key]
		if still == nil {
			continue // it was reset meanwhile
		}
		r[a.key] = slices.DeleteFunc(append(r[a.key], a.entry), func(e entry) bool { return !slices.Contains(*still, e) })
		if len(r[a.key]) == 0 {
			delete(r, a.key)
		}
	}
}

// take reports whether the entry was refused, and is not any more.
func (r refusals) take(key recordKey, e entry) bool {
	i := slices.Index(r[key], e)
	if i < 0 {
		return false
	}
	if r[key] = slices.Delete(r[key], i, i+1); len(r[key]) == 0 {
		delete(r, key)
	}
	return true
}

func newCommit(s *Store) *Commit { return &Commit{store: s, done: make(chan struct{})} }

func (c *Commit) finish(err error) {
	c.err = err
	close(c.done)
}

func (c *Commit) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Wait returns nil once the decision is on disk, or why it is not: then the
// message must not be acted on. Its number is used up for any other, and the
// same message may come again. It may be called any number of times and from any goroutine.
//
// Who waits while nobody writes does it here: it would take longer to wake up
// the goroutine of the store and be woken by it.
func (c *Commit) Wait() error {
	select {
	case <-c.done:
		return c.err
	case c.store.turn <- struct{}{}:
		if !c.isDone() { // then it is the next
			c.store.gather()
			c.store.commit()
		}
		<-c.store.turn
	}
	<-c.done
	return c.err
}

// lookEvery is after how many commits of one decision each others are let run
// first, to see whether they have any.
const lookEvery = 8

// gather lets those whom the last commit has just released put their next
// decision into this one: twice the commands a second where many wait. With one
// processor they may show themselves in no other way. The caller has the turn.
func (s *Store) gather() {
	if s.alone%lookEvery == 0 {
		runtime.Gosched()
	}
}

// flushChunk is how many telemetry records make one checkpoint, about 80 kB, so
// that a command never waits long for a flush.
const flushChunk = 32

// wanted reports whether to write now: what the disk has refused waits for the
// next decision, or the next flush. The caller has the turn.
func (s *Store) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next != nil || s.lastErr == nil
}

// signal wakes the goroutine, which may be awake.
func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run commits, one transaction after the other, until Close: what nobody waits
// for yet, and telemetry.
func (s *Store) run() {
	defer close(s.stopped)
	flush := time.NewTicker(s.flushEvery)
	defer flush.Stop()
	for {
		select {
		case <-s.wake:
			runtime.Gosched() // who has decided may be about to wait, and then need not
			s.turn <- struct{}{}
			s.gather()
			if s.wanted() {
				s.commit()
			}
			s.flush()
			<-s.turn
		case <-flush.C:
			s.startFlush()
			s.turn <- struct{}{}
			s.commit()
			s.flush()
			<-s.turn
		case <-s.closing:
			s.finish()
			return
		}
	}
}

// finish writes everything that is left, as far as the disk lets it. It keeps
// the turn: nothing is written afterwards.
func (s *Store) finish() {
	s.startFlush()
	s.turn <- struct{}{}
	s.ending = true
	s.commit()
	for s.flush() {
	}
	if err := s.database.close(); s.lastErr == nil {
		s.lastErr = err
	}
}

// startFlush makes all telemetry due that is not on disk.
func (s *Store) startFlush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.due, s.lazy)
	clear(s.lazy)
}

// batch is what is written at one time.
type batch struct {
	urgent, logged, due []recordKey
	changes             []change
	toLog               bool
	commit              *Commit // nil if nobody waits
}

// commit writes all that is urgent, and tells those who wait. The caller has the turn.
func (s *Store) commit() {
	b := s.take()
	err := s.write(b)
	s.settle(b, err)
	if b.commit != nil {
		b.commit.finish(err)
	}
}

// flush writes a chunk of what is due, by itself: telemetry makes the database
// grow, for which there may be no room where there is enough for a command. It
// reports whether there is more to write and a point in trying, and wakes the
// goroutine for that. The caller has the turn.
func (s *Store) flush() (more bool) {
	b := s.takeDue()
	if len(b.due) == 0 {
		return false
	}
	if more = s.settle(b, s.write(b)); more {
		s.signal()
	}
	return more
}

// write writes a batch, if there is anything in it, or if at the end the log is to
// be emptied all the same.
func (s *Store) write(b batch) (err error) {
	switch {
	case len(b.changes) == 0 && (!s.ending || s.database.log == nil):
		return nil
	case b.toLog:
		err = s.database.append(b.changes)
	default:
		err = s.database.checkpoint(b.changes, s.ending)
	}
	s.commits.Add(1)
	if err != nil {
		s.failures.Add(1)
		err = fmt.Errorf("recording in replay state %s: %w", s.database.path, err)
	}
	s.lastErr = err
	return err
}

// take takes what is urgent: to the log, where that can hold it, or else to the
// database, together with what is in the log.
func (s *Store) take() (b batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.commit, s.next = s.next, nil
	if b.commit != nil {
		if s.alone++; len(b.commit.accepted) > 1 {
			s.alone = 0
		}
	}
	b.urgent = takeKeys(s.urgent, len(s.urgent))
	b.changes = s.changes(nil, b.urgent)
	b.toLog = !s.ending && s.database.fits(b.changes)
	if !b.toLog && len(b.urgent) > 0 || s.ending {
		for _, key := range b.urgent {
			delete(s.logged, key)
		}
		b.logged = takeKeys(s.logged, len(s.logged))
		b.changes = s.changes(b.changes, b.logged)
	}
	return b
}

// takeDue takes a chunk of telemetry, if any is due, and what is in the log.
func (s *Store) takeDue() (b batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.due = takeKeys(s.due, flushChunk); len(b.due) > 0 {
		b.logged = takeKeys(s.logged, len(s.logged))
		b.changes = s.changes(s.changes(nil, b.due), b.logged)
	}
	return b
}

// settle notes what has become of a batch, and reports whether more is due.
func (s *Store) settle(b batch, err error) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil { // the next commit tries again, and telemetry the next flush
		if b.commit != nil {
			s.refused.add(b.commit.accepted, s.records)
		}
		putKeys(s.urgent, b.urgent)
		putKeys(s.logged, b.logged)
		putKeys(s.lazy, b.due)
		maps.Copy(s.lazy, s.due)
		clear(s.due)
	} else if b.toLog {
		putKeys(s.logged, b.urgent)
	}
	return len(s.due) > 0
}

// changes appends what the file must learn about keys. s.mu is held.
func (s *Store) changes(to []change, keys []recordKey) []change {
	for _, key := range keys {
		c := change{bucket: key.kind, key: key.bytes()}
		if r := s.records[key]; r != nil {
			c.value = r.marshal()
		}
		to = append(to, c)
	}
	return to
}

func takeKeys(from map[recordKey]struct{}, most int) []recordKey {
	keys := make([]recordKey, 0, min(most, len(from)))
	for key := range from {
		if len(keys) == most {
			break
		}
		keys = append(keys, key)
		delete(from, key)
	}
	return keys
}

func putKeys(to map[recordKey]struct{}, keys []recordKey) {
	for _, key := range keys {
		to[key] = struct{}{}
	}
}
