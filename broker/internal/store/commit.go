package store

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// run commits until the store is closed.
func (s *Store) run() {
	defer close(s.closed)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	armed := false
	for {
		select {
		case <-s.wake:
		case <-timer.C:
			armed = false
			s.commit()
		case <-s.closing:
			if s.commit(); s.failing != nil {
				s.commit() // the disk may have come back
			}
			return
		}
		wait := s.due()
		switch {
		case wait == 0:
			timer.Stop()
			armed = false
			s.commit()
			if s.due() >= 0 { // more was noted meanwhile, or it failed
				s.mu.Lock()
				s.signal()
				s.mu.Unlock()
			}
		case wait > 0 && !armed:
			timer.Reset(wait)
			armed = true
		}
	}
}

// due is how long the next commit may wait, negative if there is nothing to commit.
func (s *Store) due() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.pending)+len(s.waiting) == 0:
		return -1
	case s.failing != nil:
		return retryDelay
	case len(s.waiting) > 0:
		return 0
	}
	return s.cfg.Delay
}

// commit writes everything that is noted, all or nothing, and tells those who wait.
func (s *Store) commit() {
	s.whole.Lock()
	s.mu.Lock()
	batch := s.pending
	s.pending = map[place]change{}
	s.writing, s.behind, s.waiting = s.next, s.waiting, nil
	s.next++
	s.mu.Unlock()
	s.whole.Unlock()

	err := s.write(batch)

	s.mu.Lock()
	told := s.behind
	before := s.failing
	s.behind, s.failing = nil, err
	if err == nil {
		s.durable = s.writing
	} else {
		s.keep(batch)
	}
	s.writing = 0
	s.mu.Unlock()
	if (before == nil) != (err == nil) {
		s.cfg.Failed(err)
	}
	for _, then := range told {
		then(err)
	}
}

// keep notes again what could not be written, unless something newer was noted. It may have reached the disk in part.
func (s *Store) keep(batch map[place]change) {
	for at, c := range s.pending {
		c.fresh = false
		s.pending[at] = c
	}
	for at, c := range batch {
		if _, newer := s.pending[at]; !newer {
			s.pending[at] = change{value: c.value}
		}
	}
}

func (s *Store) write(batch map[place]change) error {
	if len(batch) == 0 {
		return nil
	}
	if s.reopen {
		if err := s.openAgain(); err != nil {
			return err
		}
	}
	order := slices.SortedFunc(maps.Keys(batch), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.key, b.key))
	})
	err := s.file.Update(func(tx *bbolt.Tx) error {
		for _, at := range order {
			if err := apply(tx, at, batch[at].value); err != nil {
				return err
			}
		}
		return nil
	})
	s.reopen = err != nil
	return err
}

func (s *Store) openAgain() error {
	if err := s.file.Close(); err != nil {
		return err
	}
	if err := s.file.Open(); err != nil {
		return err
	}
	return s.file.View(s.check)
}

func apply(tx *bbolt.Tx, at place, value []byte) error {
	b := tx.Bucket([]byte(at.bucket))
	if value == nil {
		return b.Delete([]byte(at.key))
	}
	return b.Put([]byte(at.key), seal(at, value))
}
