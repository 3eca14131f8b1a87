package broker

import (
	"strings"
	"sync"
)

// stored counts what the sessions hold that outlive their connections, on disk where there is a store and in memory in
// any case. The node's own are not among them, so nothing that others have stored keeps a command from it.
type stored struct {
	mu    sync.Mutex
	total usage
	of    map[string]usage // by identity
}

// usage is what a session or several hold.
type usage struct {
	messages int // that wait for an acknowledgement, in every session that they wait for
	bytes    int // with all that goes with them
}

func (u usage) plus(v usage) usage  { return usage{u.messages + v.messages, u.bytes + v.bytes} }
func (u usage) minus(v usage) usage { return usage{u.messages - v.messages, u.bytes - v.bytes} }

func (u usage) within(v usage) bool { return u.messages <= v.messages && u.bytes <= v.bytes }

const (
	// itemOverhead is what a message, a subscription, an identifier or a session itself takes beside its content and the
	// name of the session, which is part of every key: in the file, or in memory where that is more.
	itemOverhead = 64
	// alwaysRoom is how many bytes of it a session may have in any case, so that nobody is locked out by what others have
	// stored.
	alwaysRoom = 4 << 10
)

// count counts in, without asking whether there is room.
func (t *stored) count(identity string, u usage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(identity, u)
}

func (t *stored) add(identity string, u usage) {
	t.total = t.total.plus(u)
	if t.of[identity] = t.of[identity].plus(u); t.of[identity] == (usage{}) {
		delete(t.of, identity)
	}
}

// claim counts in if there is room: an identity may hold as much as it leaves to all others. So one alone gets half, two
// get a third each, and however many want everything there is something left for the next.
func (t *stored) claim(most usage, identity string, u usage) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := most.minus(t.total).minus(u)
	if !t.of[identity].plus(u).within(left) {
		return false
	}
	t.add(identity, u)
	return true
}

func (t *stored) held() usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// The following are the session's part. s.mu is held.

// item is what something of so many bytes takes.
func (s *session) item(bytes int) usage { return usage{0, bytes + len(s.id) + itemOverhead} }

func (s *session) costOf(d *delivery) usage { return s.item(d.message.size()).plus(usage{messages: 1}) }

// costOfFilter counts what each level of a subscription takes, beside its name.
func (s *session) costOfFilter(filter string) usage {
	return s.item(len(filter) + itemOverhead*strings.Count(filter, "/"))
}

// count counts in, or out what is negative.
func (s *session) count(u usage) {
	switch {
	case s.lasting:
		s.stored = s.stored.plus(u)
		s.broker.stored.count(s.identity, u)
	case s.passing:
		if s.stored = s.stored.plus(u); s.stored.weight() <= freeRoom {
			s.tab.pay(s.broker)
		}
	}
}

// claim counts in if there is room. own is how much of what the session has is to be looked at for alwaysRoom.
func (s *session) claim(u, own usage) bool {
	l := s.broker.limits.Load()
	switch {
	case !s.lasting && !s.passing:
		return true
	case !s.lasting:
		if !s.tab.reach(s.broker, s.identity, s.stored.plus(u).weight()) {
			return false
		}
	case own.bytes+u.bytes <= alwaysRoom:
		s.broker.stored.count(s.identity, u)
	case !s.broker.stored.claim(usage{l.MaxStoredMessages, l.MaxStoredBytes}, s.identity, u):
		return false
	}
	s.stored = s.stored.plus(u)
	return true
}

// claimBeside is claim for what is no message: a client with many messages may still subscribe, to come by them.
func (s *session) claimBeside(u usage) bool {
	waiting := usage{bytes: s.queue.bytes + s.queue.length*s.item(0).bytes}
	return s.claim(u, s.stored.minus(waiting))
}

// full is what there was no room for in a session.
func (s *session) full() Reason {
	if s.lasting {
		return ReasonStoredFull
	}
	return ReasonWaitingFull
}

// outlive makes the session one that outlives its connection. It is new, or comes from the store.
func (s *session) outlive() {
	s.lasting = true
	u := s.item(0)
	for filter := range s.filters {
		u = u.plus(s.costOfFilter(filter))
	}
	for range s.received {
		u = u.plus(s.item(0))
	}
	for d := s.queue.first; d != nil; d = d.next {
		u = u.plus(s.costOf(d))
	}
	s.count(u)
	s.countWill()
}

// countWill is called when the will has changed.
func (s *session) countWill() {
	if !s.lasting && !s.passing {
		return
	}
	bytes := 0
	if s.will != nil {
		bytes = s.will.message.size()
	}
	s.count(usage{bytes: bytes - s.willBytes})
	s.willBytes = bytes
}

// dropLargeWill reports whether there was no room for the will, which there is none any more then.
func (s *session) dropLargeWill() bool {
	if s.willBytes <= alwaysRoom || s.claim(usage{}, s.stored) {
		return false
	}
	s.will = nil
	s.keepRecord()
	return true
}

// displace makes room for a message by others that were not sent yet, no more than it takes.
func (s *session) displace(cost usage) bool {
	for before := s.stored; !cost.within(before.minus(s.stored)); {
		oldest := s.queue.neverSent()
		if oldest == nil {
			return false
		}
		s.remove(oldest)
	}
	s.count(cost)
	return true
}
