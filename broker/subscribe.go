package broker

import (
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// readSubscribe handles a SUBSCRIBE. Every filter is judged for itself.
func (b *Broker) readSubscribe(c *conn, s *session, pk *packets.Packet) {
	var need mark
	var fresh []*freshSubscription
	codes := make([]byte, 0, len(pk.Filters))
	b.charge(c, len(pk.Filters))
	policy := b.policy.Load()
	for i := range pk.Filters {
		asked := &pk.Filters[i]
		code := b.judgeFilter(c, s, asked)
		if code < packets.ErrUnspecifiedError.Code {
			sub := &subscription{
				filter: strings.Clone(asked.Filter), qos: code, noLocal: asked.NoLocal, retainAsPublished: asked.RetainAsPublished,
				retainHandling: asked.RetainHandling, identifier: asked.Identifier,
			}
			at, existed := s.subscribe(sub)
			need = max(need, at)
			fresh = append(fresh, &freshSubscription{sub, existed})
		} else if s.version < version5 {
			code = packets.ErrUnspecifiedError.Code // 0x80, the only failure that MQTT 3.1.1 knows
		}
		codes = append(codes, code)
	}
	if b.policy.Load() != policy { // it has changed since it was asked, and SetPolicy may have been here before
		b.endSubscriptions(s)
	}
	c.answer(codesPacket(s.version, typeSuback, pk.PacketID, codes), need, nil)
	for _, f := range fresh {
		b.sendRetained(c, s, f)
	}
}

// judgeFilter returns the code for one filter: the QoS that is granted, or a failure.
func (b *Broker) judgeFilter(c *conn, s *session, asked *packets.Subscription) byte {
	d := s.grants().subscription(asked.Filter)
	switch {
	case d.Reason != "":
		b.denied(ReasonSubscribe, c, asked.Filter)
		return packets.ErrNotAuthorized.Code
	case s.isFull(asked.Filter):
		b.denied(ReasonTooManySubscriptions, c, asked.Filter)
		return packets.ErrQuotaExceeded.Code
	}
	if reason := s.claimFilter(asked.Filter); reason != "" {
		b.denied(reason, c, asked.Filter)
		return packets.ErrQuotaExceeded.Code
	}
	return min(asked.Qos, d.MaxQoS)
}

// isFull reports whether there is no room for one more filter.
func (s *session) isFull(filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filters[filter] == nil && len(s.filters) >= s.broker.limits.Load().MaxSubscriptions
}

// claimFilter counts a subscription in, or says why there is no room for it. What was subscribed to before is counted.
func (s *session) claimFilter(filter string) Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filters[filter] != nil || s.claimBeside(s.costOfFilter(filter)) {
		return ""
	}
	return s.full()
}

// subscribe makes a subscription that was claimed, or replaces one.
func (s *session) subscribe(sub *subscription) (need mark, existed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	existed = s.filters[sub.filter] != nil
	return s.place(sub), existed
}

// place puts a subscription where it belongs. s.mu is held.
func (s *session) place(sub *subscription) (need mark) {
	s.filters[sub.filter] = sub
	s.broker.index.add(s, sub)
	if s.kept {
		need = s.broker.keeper.putSubscription(s, sub)
	}
	return need
}

func (s *session) unsubscribe(filter string) (need mark, existed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filters[filter] == nil {
		return 0, false
	}
	delete(s.filters, filter)
	s.broker.index.remove(s, filter)
	s.count(usage{}.minus(s.costOfFilter(filter)))
	if s.kept {
		need = s.broker.keeper.deleteSubscription(s, filter)
	}
	return need, true
}

// freshSubscription is one that was just made.
type freshSubscription struct {
	*subscription
	existed bool
}

// Values of retain handling (MQTT 5.0 section 3.8.3.1).
const (
	retainIfNew = 1
	retainNever = 2
)

// sendRetained sends the retained messages for a subscription.
func (b *Broker) sendRetained(c *conn, s *session, f *freshSubscription) {
	group, filter := splitShared(f.filter)
	if group != "" || f.retainHandling == retainNever || f.retainHandling == retainIfNew && f.existed {
		return
	}
	t := &target{session: s, qos: f.qos}
	if f.identifier > 0 {
		t.identifiers = []int{f.identifier}
	}
	found, levels := b.retained.search(filter, time.Now().Unix())
	b.charge(c, levels/levelsPerMessage) // before the next: a filter of a few bytes may be slow to find nothing
	for _, m := range found {
		if f.noLocal && m.origin == s.id {
			continue
		}
		c.waitRoom() // it is the client itself that waits
		s.deliver(m, t, true)
	}
}

// readUnsubscribe handles an UNSUBSCRIBE.
func (b *Broker) readUnsubscribe(c *conn, s *session, pk *packets.Packet) {
	var need mark
	codes := make([]byte, 0, len(pk.Filters))
	b.charge(c, len(pk.Filters))
	for i := range pk.Filters {
		at, existed := s.unsubscribe(pk.Filters[i].Filter)
		need = max(need, at)
		code := packets.CodeSuccess.Code
		if !existed {
			code = packets.CodeNoSubscriptionExisted.Code
		}
		codes = append(codes, code)
	}
	c.answer(codesPacket(s.version, typeUnsuback, pk.PacketID, codes), need, nil)
}

// endSubscriptions ends those that the policy does not allow, lowers the quality of service of others to what it allows,
// and drops what waits for the client and may not be received any more.
func (b *Broker) endSubscriptions(s *session) {
	g := s.grants()
	for _, sub := range s.subscriptions() {
		d := g.subscription(sub.filter)
		switch {
		case d.Reason != "":
			s.unsubscribe(sub.filter)
			b.denied(ReasonDelivery, s, sub.filter)
		case sub.qos > d.MaxQoS:
			s.lower(sub, d.MaxQoS)
		}
	}
	s.dropForbidden()
}

// lower lowers a subscription, unless the client has just ended or replaced it.
func (s *session) lower(sub *subscription, qos byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filters[sub.filter] == sub {
		lower := *sub
		lower.qos = qos
		s.place(&lower)
	}
}

func (s *session) subscriptions() []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*subscription, 0, len(s.filters))
	for _, sub := range s.filters {
		list = append(list, sub)
	}
	return list
}
