package broker

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// sessions is the table of all sessions. One connection at a time owns a session.
type sessions struct {
	mu     sync.Mutex
	owners map[string]*conn
	all    map[string]*session
	node   atomic.Pointer[[]*session] // those owned by connections that Dial made; replaced as a whole
}

// acquire makes c the owner of the session with that name, a new one if there is none or clean is set; present tells
// which. The connection that owned it is closed, and acquire waits until that has let go of it, which takes no longer
// than closing it does.
func (b *Broker) acquire(c *conn, id string, clean bool) (s *session, present bool) {
	t := &b.sessions
	for {
		t.mu.Lock()
		owner := t.owners[id]
		if owner == nil {
			break
		}
		t.mu.Unlock()
		owner.kick(ReasonTakenOver, packets.ErrSessionTakenOver)
		<-owner.gone
	}
	var last *will
	ended := false
	if s = t.all[id]; s != nil && clean {
		last, ended = b.forget(s), true
		s = nil
	}
	if present = s != nil; !present {
		s = newSession(b, id, c.identity(), c.clientID)
		t.all[id] = s
	}
	t.owners[id] = c
	s.stay()
	c.session.Store(s)
	if c.listener == nil {
		t.listNode()
	}
	t.mu.Unlock()
	if ended {
		b.publishWill(s, last)
		b.keeper.settle() // or the old session could be back after a crash, and its client not know
	}
	return s, present
}

// stay takes back what was to happen to an absent client: its will, and the end of the session. The table's lock is held.
func (s *session) stay() {
	s.since, s.until = time.Time{}, time.Time{}
	if s.willTimer != nil {
		s.willTimer.Stop()
		s.willTimer = nil
	}
	s.takeWill()
}

// takeWill returns the will and leaves none.
func (s *session) takeWill() *will {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.will
	s.will = nil
	if w != nil {
		s.keepRecord()
	}
	return w
}

func (s *session) setWill(w *will) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.will = w
	s.keepRecord()
}

// listNode renews the list of the node's own sessions. t.mu is held.
func (t *sessions) listNode() {
	var list []*session
	for id, c := range t.owners {
		if c.listener == nil {
			list = append(list, t.all[id])
		}
	}
	t.node.Store(&list)
}

// release lets go of the session, if the connection had come to have one.
func (b *Broker) release(c *conn) bool {
	s := c.session.Load()
	if s == nil {
		return false
	}
	keep := b.keepFor(c)
	if !c.admitted.Load() && !s.lasting {
		keep = 0 // it was made for nothing
	}
	s.detach(keep)
	b.disconnected(c, s.id)
	due := b.leave(c, s, keep)
	for _, w := range due {
		b.publishWill(w.of, w.will)
	}
	return true
}

// dueWill is a will to be published once no lock is held.
type dueWill struct {
	of   *session
	will *will
}

// leave ends the ownership, and the session if it is not to be kept. It returns the wills that are due.
func (b *Broker) leave(c *conn, s *session, keep time.Duration) (due []dueWill) {
	t := &b.sessions
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.owners, s.id)
	if c.listener == nil {
		t.listNode()
	}
	if keep == 0 || b.policy.Load().denied[s.identity] {
		return []dueWill{{s, b.forget(s)}}
	}
	if evicted := b.limitStored(s.identity); evicted != nil {
		due = append(due, dueWill{evicted, b.forget(evicted)})
	}
	now := time.Now()
	s.since, s.until = now, now.Add(keep)
	if w := s.takeWill(); w != nil && w.delay > 0 {
		s.delayWill(w, min(w.delay, keep))
	} else if w != nil {
		due = append(due, dueWill{s, w})
	}
	return due
}

// delayWill publishes the will later, unless the client comes back before. The table's lock is held.
func (s *session) delayWill(w *will, left time.Duration) {
	s.setWill(w)
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		t := &s.broker.sessions
		t.mu.Lock()
		if s.willTimer != timer {
			t.mu.Unlock()
			return
		}
		s.willTimer = nil
		w := s.takeWill()
		t.mu.Unlock()
		s.broker.publishWill(s, w)
	})
	s.willTimer = timer
}

// publishWill publishes a will, unless the policy has changed and does not allow it any more. w may be nil.
func (b *Broker) publishWill(s *session, w *will) {
	if w == nil {
		return
	}
	m := &message{}
	*m = *w.message
	if m.origin = s.id; w.lifetime > 0 {
		m.expires = time.Now().Unix() + int64(w.lifetime)
	}
	if reason := s.grants().mayPublish(m.topic, m.qos, m.retain); reason != "" {
		b.denied(ReasonWill, s, m.topic)
		return
	}
	if _, reason := b.publish(m); reason != "" {
		b.denied(reason, s, m.topic)
	}
	b.expelLate(s.identity)
}

// keepFor is how long the session of a client that has gone is kept.
func (b *Broker) keepFor(c *conn) time.Duration {
	switch {
	case c.version < version5 && c.clean:
		return 0
	case c.version < version5:
		return b.limits.Load().MaxSessionExpiry
	}
	return min(time.Duration(c.expiry)*time.Second, b.limits.Load().MaxSessionExpiry)
}

// limitStored returns the session that must go if one more of the identity becomes absent.
func (b *Broker) limitStored(identity string) (oldest *session) {
	count := 0
	for _, s := range b.sessions.all {
		if s.identity == identity && !s.since.IsZero() {
			if count++; oldest == nil || s.since.Before(oldest.since) {
				oldest = s
			}
		}
	}
	if count < b.limits.Load().MaxStoredSessions {
		return nil
	}
	return oldest
}

// expire forgets what has had its time.
func (b *Broker) expire(now time.Time) {
	b.expireSessions(now)
	b.retained.expire(b, now.Unix())
	for _, s := range b.snapshotSessions() {
		s.expireQueue(now.Unix())
	}
}

func (b *Broker) expireSessions(now time.Time) {
	var due []dueWill
	t := &b.sessions
	t.mu.Lock()
	for _, s := range t.all {
		if !s.since.IsZero() && now.After(s.until) {
			due = append(due, dueWill{s, b.forget(s)})
			b.journal.traffic.expired.Add(1)
		}
	}
	t.mu.Unlock()
	for _, w := range due {
		b.publishWill(w.of, w.will)
	}
}

// forget ends a session. What it returns is the will, which is due then. The caller holds sessions.mu.
func (b *Broker) forget(s *session) *will {
	w := s.takeWill()
	s.stay()
	delete(b.sessions.all, s.id)
	s.end()
	return w
}

// end leaves nothing of the session.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept {
		s.broker.keeper.deleteSession(s)
	}
	for filter := range s.filters {
		s.broker.index.remove(s, filter)
	}
	clear(s.filters)
	clear(s.received)
	s.count(usage{}.minus(s.stored))
	s.lasting, s.passing, s.kept, s.willBytes = false, false, false, 0
	s.queue = queue{byID: map[uint16]*delivery{}}
}

func (b *Broker) snapshotSessions() []*session {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	list := make([]*session, 0, len(b.sessions.all))
	for _, s := range b.sessions.all {
		list = append(list, s)
	}
	return list
}

// sessionExpirySeconds is the limit as MQTT 5 counts it.
func (b *Broker) sessionExpirySeconds() uint32 {
	return clamp[uint32](b.limits.Load().MaxSessionExpiry/time.Second, math.MaxUint32-1)
}
