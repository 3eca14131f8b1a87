package broker

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// session is what the broker knows of a client, beyond a connection if the client asked for that (MQTT 5.0 section 4.1).
type session struct {
	broker             *Broker
	id                 string // "identity:clientid"
	identity, clientID string
	granted            atomic.Pointer[grants]
	connected          atomic.Bool

	mu       sync.Mutex
	room     sync.Cond     // something was taken out of the queue, or the connection has gone
	conn     *conn         // nil while the client is away
	lasting  bool          // it outlives its connection
	passing  bool          // it does not, and is not the node's
	kept     bool          // it is stored
	version  byte          // of the last connection
	keep     time.Duration // after the client has gone
	away     time.Time     // when it went; zero while it is there
	filters  map[string]*subscription
	received map[uint16]mark // QoS 2 identifiers of the client's that were not released yet, and what their messages need
	queue    queue
	awaiting bool // the disk will have the queue's first unsent message, and then it goes on
	will     *will

	stored    usage // what is counted in Broker.stored if it is lasting, or in the tab
	tab       tab
	willBytes int // of it

	// Of the table of sessions, and guarded by its lock.
	since, until time.Time // while the client is away
	willTimer    *time.Timer
}

// will is a Will Message (section 3.1.2.5).
type will struct {
	message  *message
	delay    time.Duration
	lifetime uint32 // in seconds from being published, 0 for ever
}

func newSession(b *Broker, id, identity, clientID string) *session {
	s := &session{
		broker: b, id: id, identity: identity, clientID: clientID,
		filters: map[string]*subscription{}, received: map[uint16]mark{},
		queue: queue{byID: map[uint16]*delivery{}},
	}
	s.room.L = &s.mu
	return s
}

func (s *session) grants() *grants {
	p := s.broker.policy.Load()
	g := s.granted.Load()
	if g == nil || g.policy != p {
		g = p.grants(s.identity, s.clientID)
		s.granted.Store(g)
	}
	return g
}

func (s *session) mayReceive(topic string) bool { return s.grants().mayReceive(topic) }

// keepRecord stores what there is to know of the session beside its subscriptions and messages. s.mu is held.
func (s *session) keepRecord() {
	s.countWill()
	if s.kept {
		s.broker.keeper.putSession(s)
	}
}

// attrs names the session in the log.
func (s *session) attrs() slog.Attr {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c != nil {
		return c.attrs()
	}
	return slog.Group("client", slog.String("identity", s.identity), slog.String("session", s.id))
}

// attach gives the session a connection. What waits for an acknowledgement is sent again, in its order, before anything
// new (section 4.4).
func (s *session) attach(c *conn, version byte, window uint16, keep time.Duration) {
	if full := s.take(c, version, window, keep); full != "" {
		c.kick(full, packets.ErrQuotaExceeded)
	}
}

// take returns what there was no room for the will in, if so it was.
func (s *session) take(c *conn, version byte, window uint16, keep time.Duration) (full Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.version, s.keep, s.away = c, version, keep, time.Time{}
	s.queue.rewind(window)
	s.connected.Store(true)
	// The node's own session ends with the node: who waits for the node's answer asks again, and a command costs one
	// write to the disk, not three.
	if !s.lasting && keep > 0 && c.listener != nil {
		s.outlive()
		s.kept = s.broker.keeper.stores()
	}
	s.passing = !s.lasting && c.listener != nil
	s.keepRecord()
	if s.dropLargeWill() {
		full = s.full()
	}
	s.pump()
	return full
}

// detach takes the connection away. keep is how long the session stays.
func (s *session) detach(keep time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.keep, s.away = nil, keep, time.Now()
	s.connected.Store(false)
	s.drop(func(d *delivery) bool { return d.revoked && !d.released })
	s.room.Broadcast()
	s.keepRecord()
}

// deliver sends a message to the client, or queues it: at QoS 1 and 2, and only there, a message waits for a client that
// is away or behind. retained says that it is sent because of a new subscription. need is what must be on disk before
// the publisher may be told that its message is safe.
func (s *session) deliver(m *message, t *target, retained bool) (d *delivery, need mark) {
	g := s.grants()
	if !g.mayReceive(m.topic) {
		s.broker.withheld(s, m.topic)
		return nil, 0
	}
	d = &delivery{message: m, qos: min(m.qos, t.qos), retain: retained || m.retain && t.retainAsPublished, identifiers: t.identifiers}
	var lost Reason
	if d.qos > 0 {
		need, lost = s.enqueue(d)
		if s.broker.policy.Load() != g.policy { // it has changed since it was asked, and SetPolicy may have been here before
			s.dropForbidden()
		}
	} else if !s.sendOnce(d) {
		lost = ReasonQueueFull
	}
	if lost != "" {
		s.broker.denied(lost, s, m.topic)
	}
	return d, need
}

func (s *session) sendOnce(d *delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return true // nobody expects it
	}
	return s.conn.writeMessage(s.version, d, time.Now().Unix()) != outboxFull
}

// enqueue reports why a message was dropped for it, or it itself.
func (s *session) enqueue(d *delivery) (need mark, lost Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.hasRoomFor(d) {
		lost = ReasonQueueFull
		oldest := s.queue.neverSent()
		if oldest == nil {
			return 0, lost
		}
		s.remove(oldest)
	}
	if cost := s.costOf(d); !s.claim(cost, s.stored) {
		lost = s.full()
		if !s.displace(cost) {
			return 0, lost
		}
	}
	s.queue.push(d)
	if s.kept {
		d.need = s.broker.keeper.putDelivery(s, d)
	}
	s.pump()
	return d.need, lost
}

func (s *session) hasRoomFor(d *delivery) bool {
	l := s.broker.limits.Load()
	q := &s.queue
	return q.length == 0 || q.length < min(l.MaxInflight, math.MaxUint16) && q.bytes+d.message.size() <= l.MaxInflightBytes
}

// remove takes a delivery out of the queue, for good. s.mu is held.
func (s *session) remove(d *delivery) {
	s.queue.remove(d)
	s.count(usage{}.minus(s.costOf(d)))
	if s.kept {
		s.broker.keeper.deleteDelivery(s, d)
	}
	s.room.Broadcast()
}

// withdraw takes a delivery back whose publisher is told that it failed.
func (s *session) withdraw(d *delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.byID[d.id] == d && !d.sent {
		s.remove(d)
	}
}

// pump sends what the client can take: its receive maximum bounds what it has not acknowledged. s.mu is held.
func (s *session) pump() {
	now := time.Now().Unix()
	q := &s.queue
	for d := q.unsent; d != nil && s.conn != nil; d = q.unsent {
		switch {
		case !d.sent && d.message.expired(now):
			s.remove(d)
			continue
		case q.underway >= q.window:
			return
		case d.qos == 2 && !s.broker.keeper.durable(d.need):
			// A client that has seen an identifier must not be sent another message under it after a crash, nor the same
			// one again after its PUBREL.
			s.pumpWhenDurable(d.need)
			return
		case d.released:
			_, _ = s.conn.Write(ackPacket(s.version, typePubrel, d.id, 0, "")) // its error is that the connection has gone
		default:
			switch s.conn.writeMessage(s.version, d, now) {
			case outboxTook:
			case outboxFull:
				return // the outbox calls back
			case tooLarge:
				s.remove(d) // as if it had been delivered (section 3.1.2.11.4)
				continue
			}
		}
		q.sent(d)
	}
}

func (s *session) pumpWhenDurable(need mark) {
	if s.awaiting {
		return
	}
	s.awaiting = true
	go s.broker.keeper.after(need, func(error) { // it may call at once, and s.mu is held
		s.mu.Lock()
		defer s.mu.Unlock()
		s.awaiting = false
		s.pump() // after an error it waits for the next try
	})
}

// drained is called when the connection can take more.
func (s *session) drained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pump()
}

// acknowledge ends the delivery of a QoS 1 message, or of a QoS 2 message that its receiver refused.
func (s *session) acknowledge(id uint16, qos byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.queue.byID[id]; d != nil && d.qos == qos && d.underway && !d.released {
		s.remove(d)
		s.pump()
	}
}

// receivedBy notes a PUBREC. The message is not needed any more, only its identifier is. known is false for an
// identifier that is not under way.
func (s *session) receivedBy(id uint16) (need mark, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.queue.byID[id]
	if d == nil || d.qos != 2 || !d.underway {
		return 0, false
	}
	if !d.released {
		m := d.message
		s.queue.release(d)
		s.count(usage{bytes: -m.size()})
		if s.kept {
			d.need = s.broker.keeper.releaseDelivery(s, d, m)
		}
		s.room.Broadcast()
	}
	return d.need, true
}

// complete notes a PUBCOMP.
func (s *session) complete(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.queue.byID[id]; d != nil && d.released {
		s.remove(d)
		s.pump()
	}
}

// dropIf drops what waits for the client and is not to be delivered any more.
func (s *session) dropIf(over func(*message) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(func(d *delivery) bool {
		revoked := !d.released && over(d.message)
		if revoked && d.underway && s.conn != nil { // its place in the receive maximum is taken until the client says so
			d.revoked = true
			return false
		}
		return revoked
	})
}

// dropForbidden drops what the policy does not allow.
func (s *session) dropForbidden() {
	g := s.grants()
	s.dropIf(func(m *message) bool { return !g.mayReceive(m.topic) })
}

// drop removes deliveries. s.mu is held.
func (s *session) drop(over func(*delivery) bool) {
	for d := s.queue.first; d != nil; {
		next := d.next
		if over(d) {
			s.remove(d)
		}
		d = next
	}
}

// expireQueue drops what waits for an absent client and has expired.
func (s *session) expireQueue(now int64) {
	s.mu.Lock()
	expiring, connected := s.queue.expiring, s.conn != nil
	s.mu.Unlock()
	if expiring > 0 && !connected {
		s.dropIf(func(m *message) bool { return m.expired(now) })
	}
}
