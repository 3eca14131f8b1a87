package broker

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// message is a published message. It is immutable but for kept; all sessions it waits for share it.
type message struct {
	topic      string
	payload    []byte
	qos        byte
	retain     bool
	properties []byte // the MQTT 5 properties that are passed on unaltered, encoded
	expires    int64  // the Unix second from which on it is delivered no more, 0 for never
	origin     string // the session it came from, "" for none
	kept       kept   // of the keeper
	own        bool   // it is the node's or the broker's own: retained it is not stored, and no limit counts it
}

// Properties of MQTT 5 (section 2.2.2.2).
const (
	propPayloadFormat   = 0x01
	propMessageExpiry   = 0x02
	propContentType     = 0x03
	propResponseTopic   = 0x08
	propCorrelationData = 0x09
	propSubscriptionID  = 0x0b
	propReasonString    = 0x1f
	propTopicAlias      = 0x23
	propUser            = 0x26
)

// newMessage makes a message of what a PUBLISH or a will says.
func newMessage(topic string, payload []byte, qos byte, retain bool, p *packets.Properties, now time.Time) *message {
	m := &message{topic: topic, payload: payload, qos: qos, retain: retain, properties: passedOn(p)}
	if p.MessageExpiryInterval > 0 {
		m.expires = now.Unix() + int64(p.MessageExpiryInterval)
	}
	return m
}

// passedOn encodes the properties that receivers get as they are (sections 3.3.2.3.2 and following).
func passedOn(p *packets.Properties) []byte {
	var b []byte
	if p.PayloadFormatFlag {
		b = append(b, propPayloadFormat, p.PayloadFormat)
	}
	if p.ContentType != "" {
		b = appendString(append(b, propContentType), p.ContentType)
	}
	if p.ResponseTopic != "" {
		b = appendString(append(b, propResponseTopic), p.ResponseTopic)
	}
	if len(p.CorrelationData) > 0 {
		b = appendString(append(b, propCorrelationData), p.CorrelationData)
	}
	for _, u := range p.User {
		b = appendString(append(b, propUser), u.Key)
		b = appendString(b, u.Val)
	}
	return b
}

// sender is the identity it came from, "" for none and for clients without a name.
func (m *message) sender() string {
	identity, _, _ := strings.Cut(m.origin, ":")
	return identity
}

func (m *message) expired(now int64) bool { return m.expires != 0 && now >= m.expires }

// size is what the message counts against the limits in bytes.
func (m *message) size() int { return len(m.topic) + len(m.payload) + len(m.properties) }

// appendString appends a string or binary data with its length before it. The strings come from packets, whose own are
// no longer.
func appendString[T string | []byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s))) //nolint:gosec // see above
	return append(b, s...)
}

// appendLength appends a variable byte integer (section 1.5.5).
func appendLength(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n)) //nolint:gosec // see the condition
}

func lengthBytes(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

const version5 = 5

// Packet types as the first byte of a packet.
const (
	typePublish  = 0x30
	typePuback   = 0x40
	typePubrec   = 0x50
	typePubrel   = 0x62 // with its reserved flag
	typePubcomp  = 0x70
	typeSuback   = 0x90
	typeUnsuback = 0xb0
	typePingresp = 0xd0
)

// publishBytes is how long the PUBLISH of a delivery is.
func publishBytes(version byte, d *delivery, alias aliasUse) int {
	body, _ := bodyBytes(version, d, alias)
	return 1 + lengthBytes(body) + body
}

// bodyBytes is how long it is behind its fixed header, and how long its properties are.
func bodyBytes(version byte, d *delivery, alias aliasUse) (body, properties int) {
	body = 2 + len(d.message.payload)
	if !alias.known {
		body += len(d.message.topic)
	}
	if d.qos > 0 {
		body += 2
	}
	if version == version5 {
		properties = d.propertyBytes(alias)
		body += lengthBytes(properties) + properties
	}
	return body, properties
}

// appendPublish appends the delivery as a PUBLISH.
func appendPublish(b []byte, version byte, d *delivery, now int64, alias aliasUse) []byte {
	m := d.message
	first := byte(typePublish) | d.qos<<1
	if d.retain {
		first |= 1
	}
	if d.sent && d.qos > 0 {
		first |= 8
	}
	topic := m.topic
	if alias.known {
		topic = ""
	}
	body, properties := bodyBytes(version, d, alias)
	b = appendLength(append(b, first), body)
	b = appendString(b, topic)
	if d.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, d.id)
	}
	if version == version5 {
		b = d.appendProperties(appendLength(b, properties), now, alias)
	}
	return append(b, m.payload...)
}

func (d *delivery) propertyBytes(alias aliasUse) int {
	n := len(d.message.properties)
	if alias.number > 0 {
		n += 3
	}
	if d.message.expires != 0 {
		n += 5
	}
	for _, id := range d.identifiers {
		n += 1 + lengthBytes(id)
	}
	return n
}

func (d *delivery) appendProperties(b []byte, now int64, alias aliasUse) []byte {
	m := d.message
	if alias.number > 0 {
		b = binary.BigEndian.AppendUint16(append(b, propTopicAlias), alias.number)
	}
	if m.expires != 0 { // what is left of it (section 3.3.2.3.3)
		b = binary.BigEndian.AppendUint32(append(b, propMessageExpiry), uint32(max(m.expires-now, 1))) //nolint:gosec // it came from 32 bits
	}
	for _, id := range d.identifiers {
		b = appendLength(append(b, propSubscriptionID), id)
	}
	return append(b, m.properties...)
}

// ackPacket is a PUBACK, PUBREC, PUBREL or PUBCOMP. A reason and its text are for MQTT 5 only.
func ackPacket(version, first byte, id uint16, code byte, text string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{first, 2}, id)
	if version != version5 || code == 0 {
		return b
	}
	b = append(b, code)
	if text != "" {
		b = append(b, byte(1+2+len(text)), propReasonString) //nolint:gosec // our texts are short
		b = appendString(b, text)
	}
	b[1] = byte(len(b) - 2) //nolint:gosec // see above
	return b
}

// codesPacket is a SUBACK or an UNSUBACK.
func codesPacket(version, first byte, id uint16, codes []byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	if version == version5 {
		body = append(body, 0) // no properties
	}
	if version == version5 || first == typeSuback {
		body = append(body, codes...)
	}
	return append(appendLength([]byte{first}, len(body)), body...)
}
