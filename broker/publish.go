package broker

import (
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// publication is what became of a message.
type publication struct {
	need mark // what must be on disk before the publisher may be told that its message is safe
	// placed are the sessions for which it is on its way to the disk, and where it is in their queues.
	placed []placed
}

type placed struct {
	session  *session
	delivery *delivery
}

// withdraw takes the message back from clients that have not got it.
func (p *publication) withdraw() {
	for _, at := range p.placed {
		at.session.withdraw(at.delivery)
	}
}

// publish gives a message that the policy allows to all who have subscribed. A reason says that it was refused.
func (b *Broker) publish(m *message) (p publication, refused Reason) {
	if m.retain {
		need, ok := b.retained.set(b, m)
		if !ok {
			return p, ReasonRetainedFull
		}
		p.need = need
	}
	targets := b.index.match(m)
	for i := range targets {
		t := &targets[i]
		if d, need := t.session.deliver(m, t, false); need > 0 {
			p.need = max(p.need, need)
			p.placed = append(p.placed, placed{t.session, d})
		}
	}
	return p, ""
}

// readPublish handles a PUBLISH.
func (b *Broker) readPublish(c *conn, s *session, pk *packets.Packet) {
	b.journal.published.Add(1)
	b.journal.traffic.payloadIn.Add(uint64(len(pk.Payload)))
	b.throttle(c, len(pk.TopicName)+len(pk.Payload))
	b.waitForNode(c, pk.TopicName)
	b.watchPublish(c, pk.TopicName, pk.Payload, pk.FixedHeader.Qos, pk.FixedHeader.Retain)
	if pk.FixedHeader.Qos == 2 {
		if need, known := s.alreadyReceived(pk.PacketID); known {
			b.acknowledgeAgain(c, s, pk.PacketID, pk.TopicName, need)
			return
		}
	}
	m := newMessage(pk.TopicName, pk.Payload, pk.FixedHeader.Qos, pk.FixedHeader.Retain, &pk.Properties, time.Now())
	m.origin, m.own = s.id, c.listener == nil
	reason := s.grants().mayPublish(m.topic, m.qos, m.retain)
	var p publication
	if reason == "" && m.qos == 2 && !s.mayRemember() {
		reason = ReasonStoredFull
	}
	if reason == "" {
		p, reason = b.receive(s, m, pk.PacketID)
		b.expelLate(s.identity)
	}
	if reason != "" {
		b.denied(reason, c, m.topic)
	}
	b.acknowledge(c, s, pk, p, reason)
}

// receive publishes a client's message. All that is stored of it is stored at once: what one receiver has seen cannot be taken
// back because there was no room for what another gets, or for its identifier.
func (b *Broker) receive(s *session, m *message, id uint16) (p publication, refused Reason) {
	if m.qos > 0 {
		b.keeper.begin()
		defer b.keeper.end()
	}
	if p, refused = b.publish(m); refused == "" && m.qos == 2 {
		p.need = s.receive(id, p.need)
	}
	return p, refused
}

// acknowledge answers a PUBLISH, once what it needs is on disk.
func (b *Broker) acknowledge(c *conn, s *session, pk *packets.Packet, p publication, reason Reason) {
	id, first := pk.PacketID, byte(typePuback)
	switch pk.FixedHeader.Qos {
	case 0:
		return
	case 2:
		first = typePubrec
	}
	if reason == ReasonStoredFull && s.version < version5 {
		c.kick(reason, packets.ErrQuotaExceeded) // it cannot say no, and the message is not safe
		return
	}
	if reason != "" {
		c.answer(ackPacket(s.version, first, id, codeFor(reason), c.reasonText(string(reason))), 0, nil)
		return
	}
	if p.need == 0 {
		c.answer(ackPacket(s.version, first, id, 0, ""), 0, nil)
		return
	}
	b.acknowledgeStored(c, s, first, id, pk.TopicName, p)
}

// acknowledgeStored is apart from acknowledge so that only what goes to disk pays for the memory of it.
func (b *Broker) acknowledgeStored(c *conn, s *session, first byte, id uint16, topic string, p publication) {
	packet := ackPacket(s.version, first, id, 0, "")
	c.answer(packet, p.need, func(err error) []byte {
		if err == nil {
			return packet
		}
		p.withdraw()
		s.forgetReceived(id)
		return b.notStored(c, first, id, topic)
	})
}

// acknowledgeAgain answers a QoS 2 message that came before. That one may not be on disk yet, and if it cannot be brought
// there it is forgotten first.
func (b *Broker) acknowledgeAgain(c *conn, s *session, id uint16, topic string, need mark) {
	packet := ackPacket(s.version, typePubrec, id, 0, "")
	c.answer(packet, need, func(error) []byte {
		if _, known := s.alreadyReceived(id); known {
			return packet
		}
		return b.notStored(c, typePubrec, id, topic)
	})
}

// notStored is the answer to a message that could not be stored.
func (b *Broker) notStored(c *conn, first byte, id uint16, topic string) []byte {
	b.denied(ReasonStorage, c, topic)
	if c.version == version5 {
		return ackPacket(c.version, first, id, packets.ErrQuotaExceeded.Code, c.reasonText(string(ReasonStorage)))
	}
	// MQTT 3.1.1 cannot say no. A client that loses its connection sends again what was not acknowledged.
	c.kick(ReasonStorage, packets.ErrQuotaExceeded)
	return nil
}

// codeFor is how MQTT 5 says it (section 2.4).
func codeFor(r Reason) byte {
	if r == ReasonRetainedFull || r == ReasonStoredFull {
		return packets.ErrQuotaExceeded.Code
	}
	return packets.ErrNotAuthorized.Code
}

// reasonText is left out where the client asked for that (section 3.1.2.11.7), and where it does not take packets of that
// size (section 3.4.2.2.2).
func (c *conn) reasonText(text string) string {
	const ackBytes = 2 + 2 + 1 + 1 + 1 + 2 // beside the text
	if c.terse || c.maxPacket > 0 && ackBytes+len(text) > int(c.maxPacket) {
		return ""
	}
	return text
}

// alreadyReceived reports whether a QoS 2 message came before and was not released yet (section 4.3.3), and what must be
// on disk before its publisher may be told so.
func (s *session) alreadyReceived(id uint16) (need mark, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	need, known = s.received[id]
	return need, known
}

// mayRemember reports whether there is room for one more identifier of a QoS 2 message.
func (s *session) mayRemember() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.item(0)
	if s.passing { // the receive maximum is bound enough
		return true
	}
	if !s.claimBeside(one) {
		return false
	}
	s.count(usage{}.minus(one)) // receive counts it, once the message is there
	return true
}

// receive notes the identifier of a QoS 2 message, which itself needs so much on disk.
func (s *session) receive(id uint16, need mark) mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(s.item(0))
	if s.kept {
		need = max(need, s.broker.keeper.putReceived(s, id))
	}
	s.received[id] = need
	return need
}

// forgetReceived forgets it, because it was released or refused. known is false for one that there was not.
func (s *session) forgetReceived(id uint16) (need mark, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known = s.received[id]; known {
		delete(s.received, id)
		s.count(usage{}.minus(s.item(0)))
		if s.kept {
			need = s.broker.keeper.deleteReceived(s, id)
		}
	}
	return need, known
}

// tooManyReceived reports whether the client has used up the receive maximum that it was told.
func (s *session) tooManyReceived(pk *packets.Packet, maximum int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.received[pk.PacketID]
	return pk.FixedHeader.Qos == 2 && !known && len(s.received) >= maximum
}

// readAck handles what clients say about packets we have sent, and PUBREL.
func (b *Broker) readAck(c *conn, s *session, pk *packets.Packet) {
	switch id := pk.PacketID; pk.FixedHeader.Type {
	case packets.Puback:
		s.acknowledge(id, 1)
	case packets.Pubcomp:
		s.complete(id)
	case packets.Pubrec:
		if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			s.acknowledge(id, 2)
			return
		}
		need, known := s.receivedBy(id)
		c.answer(ackPacket(s.version, typePubrel, id, unlessKnown(known), ""), need, nil)
	case packets.Pubrel:
		need, known := s.forgetReceived(id)
		c.answer(ackPacket(s.version, typePubcomp, id, unlessKnown(known), ""), need, nil)
	}
}

// unlessKnown is the reason code about an identifier.
func unlessKnown(known bool) byte {
	if known {
		return 0
	}
	return packets.ErrPacketIdentifierNotFound.Code
}

// What the node may have been sent and not have acknowledged before those who publish to it wait: less than the limits
// that drop messages, of the broker and of the agent, and enough for the agent to share its commits.
const (
	nodeWindow      = 512
	nodeWindowBytes = 2 << 20
	// nodePatience is how long a publisher waits for a node that is stuck.
	nodePatience = time.Second
)

// waitForNode holds a client up that publishes what the node reads while the node has enough to do. Every connection
// waits for itself, so a flood is slowed down at its source, and the single messages of others are neither dropped for
// want of room nor queued behind all of it.
func (b *Broker) waitForNode(c *conn, topic string) {
	list := b.sessions.node.Load()
	if c.listener == nil || list == nil {
		return
	}
	for _, s := range *list {
		s.awaitRoom(topic)
	}
}

func (s *session) awaitRoom(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isIdle() || !s.reads(topic) {
		return
	}
	end := time.Now().Add(nodePatience)
	timer := time.AfterFunc(nodePatience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.room.Broadcast()
	})
	defer timer.Stop()
	for s.conn != nil && !s.isIdle() && time.Now().Before(end) {
		s.room.Wait()
	}
}

// isIdle reports whether the node's session can take more. s.mu is held.
func (s *session) isIdle() bool {
	return s.queue.length < nodeWindow && s.queue.bytes < nodeWindowBytes
}

// reads reports whether a subscription matches the topic. s.mu is held.
func (s *session) reads(topic string) bool {
	for filter := range s.filters {
		if covers(unshared(filter), topic) {
			return true
		}
	}
	return false
}
