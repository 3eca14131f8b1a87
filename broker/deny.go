package broker

import (
	"strings"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// expel ends what identities that the policy denies have here: their connections, the sessions kept for them with all
// that waits in those, their wills, the messages they left retained, and those that wait for others. A message that has
// been handed to a client cannot be called back.
func (b *Broker) expel() {
	p := b.policy.Load()
	if len(p.denied) == 0 {
		return
	}
	for _, c := range b.conns.snapshot() {
		if c.listener != nil && p.denied[c.identity()] {
			c.kick(ReasonRevoked, packets.ErrNotAuthorized)
		}
	}
	b.sessions.forgetDenied(b, p)
	for topic, pk := range b.server.Topics.Retained.GetAll() {
		if p.deniesOrigin(pk) {
			// Without a payload it takes the one that is there away (MQTT 5.0 section 3.3.1.3).
			b.server.Topics.RetainMessage(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true}, TopicName: topic})
		}
	}
	atomic.StoreInt64(&b.server.Info.Retained, int64(b.server.Topics.Retained.Len()))
	for _, cl := range b.server.Clients.GetAll() {
		b.dropFromDenied(cl, p)
	}
}

// deniesOrigin reports whether a message came from an identity that is denied. mochi notes the session it came from.
func (p *policy) deniesOrigin(pk packets.Packet) bool {
	identity, _, _ := strings.Cut(pk.Origin, ":")
	return p.denied[identity]
}

func (b *Broker) dropFromDenied(cl *mqtt.Client, p *policy) {
	for _, pk := range cl.State.Inflight.GetAll(false) {
		if pk.FixedHeader.Type == packets.Publish && p.deniesOrigin(pk) && cl.State.Inflight.Delete(pk.PacketID) {
			atomic.AddInt64(&b.server.Info.Inflight, -1)
		}
	}
}

// forgetDenied forgets the sessions of denied identities that are away. Those with a connection end with it.
func (s *sessions) forgetDenied(b *Broker, p *policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.away {
		if p.denied[connOf(a.client).identity()] {
			delete(s.away, id)
			b.forget(a.client)
		}
	}
}
