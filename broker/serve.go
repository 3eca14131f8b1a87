package broker

import (
	"errors"
	"slices"
	"strings"

	"pinseal/broker/internal/frame"

	"github.com/mochi-mqtt/server/v2/packets"
)

// serve handles what a client sends after its CONNECT. It runs in a goroutine of its own, which begins with a small stack:
// those of idle connections are most of their memory.
func (b *Broker) serve(c *conn) {
	b.guarded(c, b.converse)
	b.depart(c)
}

func (b *Broker) converse(c *conn) bool {
	for !c.closed() {
		p, err := c.next()
		if err != nil || !b.take(c, p) {
			return false
		}
	}
	return false
}

// next reads a packet, which is valid until the next one is read.
func (c *conn) next() (frame.Packet, error) {
	p, err := c.in.Next()
	if err != nil {
		c.readFailed(err)
		return p, err
	}
	c.heard = true
	t := &c.broker.journal.traffic
	t.packetsIn.Add(1)
	t.bytesIn.Add(uint64(len(p.Whole)))
	return p, nil
}

// take decodes a packet and handles it. It reports whether the connection goes on.
func (b *Broker) take(c *conn, p frame.Packet) bool {
	pk, ok := b.decoded.Get().(*packets.Packet)
	if !ok {
		pk = &packets.Packet{}
	}
	body := p.Body
	if outlives(p.First()) {
		body = slices.Clone(body)
	}
	if err := decode(pk, c.version, p.First(), body); err != nil {
		c.end(ReasonMalformed, err.Error()) // it has passed the frame check: the decoder is mistaken
		c.dismiss(packets.ErrMalformedPacket)
		return false
	}
	goesOn := b.handle(c, pk)
	*pk = packets.Packet{}
	b.decoded.Put(pk)
	return goesOn
}

// outlives reports whether what a packet says is kept when it has been handled. A message at QoS 0 that is not retained
// has gone to all its receivers by then; only its topic may be kept, and handle takes care of that.
func outlives(first byte) bool {
	switch kind := first >> 4; kind {
	case frame.Publish:
		const qosAndRetain = 3<<1 | 1
		return first&qosAndRetain != 0
	default:
		return kind == frame.Subscribe || kind == frame.Unsubscribe
	}
}

var errUnknownPacket = errors.New("no packet of a client")

// decode decodes a packet, which then refers to the bytes of body.
func decode(pk *packets.Packet, version, first byte, body []byte) error {
	pk.ProtocolVersion = version
	if err := pk.FixedHeader.Decode(first); err != nil {
		return err
	}
	pk.FixedHeader.Remaining = len(body)
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return pk.ConnectDecode(body)
	case packets.Publish:
		return pk.PublishDecode(body)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		return pk.PubackDecode(body) // they are all alike
	case packets.Subscribe:
		return pk.SubscribeDecode(body)
	case packets.Unsubscribe:
		return pk.UnsubscribeDecode(body)
	case packets.Disconnect:
		return pk.DisconnectDecode(body)
	case packets.Pingreq:
		return nil
	}
	return errUnknownPacket
}

// handle does what a packet asks for. It reports whether the connection goes on.
func (b *Broker) handle(c *conn, pk *packets.Packet) bool {
	s := c.session.Load()
	c.waitRoom()
	switch pk.FixedHeader.Type {
	case packets.Publish:
		pk.TopicName = c.ownTopic(pk.TopicName)
		if s.tooManyReceived(pk, c.limits.ReceiveMaximum) {
			c.kick(ReasonReceiveMaximum, packets.ErrReceiveMaximum)
			return false
		}
		if !c.resolveAlias(pk) {
			c.kick(ReasonMalformed, packets.ErrTopicAliasInvalid)
			return false
		}
		b.readPublish(c, s, pk)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		b.readAck(c, s, pk)
	case packets.Subscribe:
		b.readSubscribe(c, s, pk)
	case packets.Unsubscribe:
		b.readUnsubscribe(c, s, pk)
	case packets.Pingreq:
		_, _ = c.Write([]byte{typePingresp, 0}) // its error is that the connection has gone
	case packets.Disconnect:
		b.readDisconnect(c, s, pk)
		return false
	}
	return true
}

// ownTopic is a topic whose bytes are not those of the packet. Most clients publish to the same one again.
func (c *conn) ownTopic(topic string) string {
	if topic != c.topic {
		c.topic = strings.Clone(topic)
	}
	return c.topic
}

// readDisconnect handles a client's goodbye: if it goes in peace there is no will (section 3.14.4).
func (b *Broker) readDisconnect(c *conn, s *session, pk *packets.Packet) {
	c.goodbye = true
	if pk.Properties.SessionExpiryIntervalFlag {
		if c.expiry == 0 && pk.Properties.SessionExpiryInterval > 0 { // section 3.14.2.2.2
			c.kick(ReasonMalformed, packets.ErrProtocolViolationZeroNonZeroExpiry)
			return
		}
		c.expiry = pk.Properties.SessionExpiryInterval
	}
	if c.in.DisconnectReason() == packets.CodeDisconnect.Code {
		s.takeWill()
	}
}
