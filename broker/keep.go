package broker

import (
	"fmt"
	"sync"

	"pinseal/broker/internal/store"
)

// mark says how much must be on disk.
type mark = store.Mark

// Every change is noted by itself, and a commit may come between any two: what refers to something is deleted before that,
// and stored after it. Then a crash leaves nothing worse than what nobody refers to, which the next start deletes.

// keeper stores what must survive a restart: the sessions that outlive their connection, with their subscriptions and
// messages, and the retained messages. The node says its own retained messages anew at every start, so that switching an
// output costs no write. The methods that store something return what must be on disk before anyone may rely on it.
type keeper struct {
	config Persistence
	store  *store.Store // nil: nothing survives

	mu         sync.Mutex
	lastNumber uint64 // of messages
}

// kept is where a message is stored that waits for sessions; all of them refer to the same. The keeper guards it.
type kept struct {
	number     uint64
	references int
}

// Buckets of the store.
const (
	bucketSessions      = "sessions"      // session
	bucketSubscriptions = "subscriptions" // session, filter
	bucketMessages      = "messages"      // number
	bucketDeliveries    = "deliveries"    // session, number
	bucketReceived      = "received"      // session, packet identifier
	bucketRetained      = "retained"      // topic
)

func buckets() []string {
	return []string{bucketSessions, bucketSubscriptions, bucketMessages, bucketDeliveries, bucketReceived, bucketRetained}
}

func (k *keeper) stores() bool { return k.store != nil }

func (k *keeper) durable(m mark) bool { return k.store == nil || k.store.Durable(m) }

// after calls then when so much is on disk, or with an error after a try that failed. It may call at once.
func (k *keeper) after(m mark, then func(error)) {
	if k.store == nil {
		then(nil)
		return
	}
	k.store.After(m, then)
}

// close writes what is left.
func (k *keeper) close() error {
	if k.store == nil {
		return nil
	}
	if err := k.store.Close(); err != nil {
		return fmt.Errorf("closing the broker's store: %w", err)
	}
	return nil
}

// settle waits until all that was noted is on disk, or cannot be brought there.
func (k *keeper) settle() {
	done := make(chan struct{})
	k.after(k.latest(), func(error) { close(done) })
	<-done
}

// latest is what everything up to now needs.
func (k *keeper) latest() mark {
	if k.store == nil {
		return 0
	}
	return k.store.Latest()
}

func (k *keeper) putRetained(m *message) mark {
	if k.store == nil {
		return 0
	}
	return k.store.Put(bucketRetained, m.topic, appendMessage(nil, m), false)
}

func (k *keeper) deleteRetained(topic string) mark {
	if k.store == nil {
		return 0
	}
	return k.store.Delete(bucketRetained, topic)
}

// begin has all that is stored until end come to the disk at once, or not at all. See store.Store.Begin.
func (k *keeper) begin() {
	if k.store != nil {
		k.store.Begin()
	}
}

func (k *keeper) end() {
	if k.store != nil {
		k.store.End()
	}
}

// The following are for sessions that are kept, and so there is a store. The session's lock is held.

func (k *keeper) putSession(s *session) {
	r := &sessionRecord{attached: s.conn != nil, version: s.version, keep: s.keep, away: s.away, lastSent: s.queue.lastSent, will: s.will}
	k.store.Put(bucketSessions, s.id, r.marshal(), false)
}

// deleteSession leaves nothing of it.
func (k *keeper) deleteSession(s *session) {
	k.store.Delete(bucketSessions, s.id)
	for filter := range s.filters {
		k.deleteSubscription(s, filter)
	}
	for id := range s.received {
		k.deleteReceived(s, id)
	}
	for d := s.queue.first; d != nil; d = d.next {
		k.deleteDelivery(s, d)
	}
}

func (k *keeper) putSubscription(s *session, sub *subscription) mark {
	return k.store.Put(bucketSubscriptions, sessionKey(s.id, sub.filter), marshalSubscription(sub), false)
}

func (k *keeper) deleteSubscription(s *session, filter string) mark {
	return k.store.Delete(bucketSubscriptions, sessionKey(s.id, filter))
}

func (k *keeper) putReceived(s *session, id uint16) mark {
	return k.store.Put(bucketReceived, sessionKey(s.id, identifierKey(id)), []byte{}, false)
}

func (k *keeper) deleteReceived(s *session, id uint16) mark {
	return k.store.Delete(bucketReceived, sessionKey(s.id, identifierKey(id)))
}

func (k *keeper) putDelivery(s *session, d *delivery) mark {
	number := k.refer(d.message)
	return k.store.Put(bucketDeliveries, sessionKey(s.id, numberKey(d.number)), marshalDelivery(d, number), true)
}

// releaseDelivery stores that the client has a QoS 2 message, which was m.
func (k *keeper) releaseDelivery(s *session, d *delivery, m *message) mark {
	need := k.store.Put(bucketDeliveries, sessionKey(s.id, numberKey(d.number)), marshalDelivery(d, 0), false)
	k.letGo(m)
	return need
}

func (k *keeper) deleteDelivery(s *session, d *delivery) {
	k.store.Delete(bucketDeliveries, sessionKey(s.id, numberKey(d.number)))
	k.letGo(d.message)
}

// refer stores a message for one more session.
func (k *keeper) refer(m *message) (number uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m.kept.references++; m.kept.references == 1 {
		k.lastNumber++
		m.kept.number = k.lastNumber
		k.store.Put(bucketMessages, numberKey(m.kept.number), appendMessage(nil, m), true)
	}
	return m.kept.number
}

// letGo is called when a session does not need the message any more.
func (k *keeper) letGo(m *message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m.kept.references == 0 {
		return // only its identifier was left
	}
	if m.kept.references--; m.kept.references == 0 {
		k.store.Delete(bucketMessages, numberKey(m.kept.number))
	}
}
