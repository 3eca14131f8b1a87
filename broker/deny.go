package broker

import "github.com/mochi-mqtt/server/v2/packets"

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
	b.retained.forget(b, p.deniesOrigin)
	for _, s := range b.snapshotSessions() {
		s.dropIf(p.deniesOrigin)
	}
}

// expelLate is called when a message is on its way that was judged by a policy which may have changed since.
func (b *Broker) expelLate(identity string) {
	if b.policy.Load().denied[identity] {
		b.expel()
	}
}

// deniesOrigin reports whether a message came from an identity that is denied.
func (p *policy) deniesOrigin(m *message) bool { return p.denied[m.sender()] }

// forgetDenied forgets the sessions of denied identities that are away. Those with a connection end with it.
func (t *sessions) forgetDenied(b *Broker, p *policy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.all {
		if p.denied[s.identity] && !s.since.IsZero() {
			b.forget(s) // its will, which is not permitted any more either
		}
	}
}
