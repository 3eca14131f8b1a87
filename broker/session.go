package broker

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// sessions lets one connection at a time own a session, and forgets sessions whose client stayed away.
//
// mochi does both by itself, but unsafely: when a client connects again, the goroutine of its old connection may delete
// the new one from mochi's table; and a session that expires leaves its subscriptions behind.
type sessions struct {
	mu     sync.Mutex
	owners map[string]*conn
	away   map[string]*away
	node   atomic.Pointer[[]*conn] // owners made by Dial; replaced as a whole
}

// away is a session without a connection.
type away struct {
	client       *mqtt.Client
	since, until time.Time
}

// acquire makes c the owner of the session. The connection that owned it is closed, and acquire waits until mochi is
// done with it, which takes no longer than closing it does.
func (s *sessions) acquire(c *conn, id string) {
	for {
		s.mu.Lock()
		owner := s.owners[id]
		if owner == nil {
			s.owners[id] = c
			delete(s.away, id)
			if c.listener == nil {
				s.listNode()
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		owner.kick(ReasonTakenOver, packets.ErrSessionTakenOver)
		<-owner.gone
	}
}

// listNode renews the list of the node's own connections. s.mu is held.
func (s *sessions) listNode() {
	var list []*conn
	for _, c := range s.owners {
		if c.listener == nil {
			list = append(list, c)
		}
	}
	s.node.Store(&list)
}

// release is called when mochi is done with the connection.
func (b *Broker) release(c *conn) {
	defer close(c.gone)
	cl := c.client.Load()
	if cl == nil {
		return
	}
	s := &b.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners[cl.ID] != c {
		return
	}
	delete(s.owners, cl.ID)
	if c.listener == nil {
		s.listNode()
	}
	if current, ok := b.server.Clients.Get(cl.ID); !ok || current != cl {
		return
	}
	keep := b.keepFor(cl)
	if keep == 0 || b.policy.Load().denied[c.identity()] {
		b.forget(cl)
		return
	}
	dropAcks(cl)
	b.limitStored(c.identity())
	now := time.Now()
	s.away[cl.ID] = &away{client: cl, since: now, until: now.Add(keep)}
}

// dropAcks removes acknowledgements that did not go out: they bear identifiers of this connection. The client will send
// its message again.
func dropAcks(cl *mqtt.Client) {
	for _, pk := range cl.State.Inflight.GetAll(false) {
		if pk.FixedHeader.Type == packets.Puback {
			cl.State.Inflight.Delete(pk.PacketID)
		}
	}
}

// keepFor is how long the session of a client that has gone is kept.
func (b *Broker) keepFor(cl *mqtt.Client) time.Duration {
	switch {
	case cl.Properties.ProtocolVersion < 5 && cl.Properties.Clean:
		return 0
	case cl.Properties.ProtocolVersion < 5:
		return b.limits.MaxSessionExpiry
	}
	return min(time.Duration(cl.Properties.Props.SessionExpiryInterval)*time.Second, b.limits.MaxSessionExpiry)
}

// limitStored makes room for one more absent session of the identity.
func (b *Broker) limitStored(identity string) {
	count := 0
	var oldest *away
	for id, a := range b.sessions.away {
		if strings.HasPrefix(id, identity+":") {
			if count++; oldest == nil || a.since.Before(oldest.since) {
				oldest = a
			}
		}
	}
	if count >= b.limits.MaxStoredSessions {
		delete(b.sessions.away, oldest.client.ID)
		b.forget(oldest.client)
	}
}

// expire forgets the sessions whose time is up.
func (b *Broker) expire(now time.Time) {
	s := &b.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.away {
		if now.After(a.until) {
			delete(s.away, id)
			b.forget(a.client)
		}
	}
}

// forget removes every trace of a session from mochi. The caller holds sessions.mu.
func (b *Broker) forget(cl *mqtt.Client) {
	b.dropDelayedWill(cl)
	cl.ClearInflights()
	b.server.UnsubscribeClient(cl)
	b.server.Clients.Delete(cl.ID)
}

// dropDelayedWill takes back a will that waits for its delay. mochi does so when a client says goodbye, and only then.
func (b *Broker) dropDelayedWill(cl *mqtt.Client) {
	goodbye := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}}
	_ = b.server.InjectPacket(cl, goodbye) // a plain DISCONNECT is never refused
}

// judgeDelayedWills takes back what the policy does not allow.
func (b *Broker) judgeDelayedWills() {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	for _, a := range b.sessions.away {
		c := connOf(a.client)
		if c.willTopic != "" && c.grants().mayPublish(c.willTopic, c.willQoS, c.willRetain) != "" {
			b.dropDelayedWill(a.client)
		}
	}
}

// sessionExpirySeconds is the limit as MQTT 5 counts it.
func (b *Broker) sessionExpirySeconds() uint32 {
	return clamp[uint32](b.limits.MaxSessionExpiry/time.Second, math.MaxUint32-1)
}
