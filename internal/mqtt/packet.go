package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// The packets of MQTT 3.1.1 (section 2.2.1), by the upper half of their first byte. PUBREL, SUBSCRIBE and UNSUBSCRIBE
// have flags that are prescribed.
const (
	typeConnect     = 0x10
	typeConnack     = 0x20
	typePublish     = 0x30
	typePuback      = 0x40
	typePubrec      = 0x50
	typePubrel      = 0x60
	typePubcomp     = 0x70
	typeSubscribe   = 0x80
	typeSuback      = 0x90
	typeUnsubscribe = 0xa0
	typeUnsuback    = 0xb0
	typePingreq     = 0xc0
	typePingresp    = 0xd0
	typeDisconnect  = 0xe0

	typeMask        = 0xf0
	prescribedFlags = 0x02
	flagRetain      = 0x01
)

// packet is one that the broker sent.
type packet struct {
	first byte // its type and flags
	body  []byte
}

// reader reads packets. Of a publication that is too large it drops the end, before it takes memory for it.
type reader struct {
	in   *bufio.Reader
	most int // bytes of a body; 0 for no limit
}

const (
	readBytes = 16 << 10
	// overhead is what a PUBLISH may hold besides its payload: a topic with its length, and a packet identifier.
	overhead = 2 + maxText + 2
)

func newReader(from io.Reader, maxPayload int) reader {
	r := reader{in: bufio.NewReaderSize(from, readBytes)}
	if maxPayload > 0 {
		r.most = overhead + maxPayload + 1
	}
	return r
}

// next reads a packet, whose memory is the caller's.
func (r *reader) next() (p packet, err error) {
	if p.first, err = r.in.ReadByte(); err != nil {
		return p, err
	}
	length, err := r.length()
	if err != nil {
		return p, err
	}
	drop := 0
	if r.most > 0 && length > r.most {
		if p.first&typeMask != typePublish {
			return p, errors.New("the broker sent a packet that is too large")
		}
		length, drop = r.most, length-r.most
	}
	p.body = make([]byte, length)
	if _, err := io.ReadFull(r.in, p.body); err != nil {
		return p, err
	}
	_, err = r.in.Discard(drop)
	return p, err
}

// length reads how long a body is (section 2.2.3).
func (r *reader) length() (int, error) {
	length := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.in.ReadByte()
		if err != nil {
			return 0, err
		}
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			return length, nil
		}
	}
	return 0, fmt.Errorf("%w with a length that does not end", errMalformed)
}

// errMalformed says that the broker does not keep to the protocol.
var errMalformed = errors.New("the broker sent a malformed packet")

// publication reads a PUBLISH (section 3.3).
func (p packet) publication() (m Message, id uint16, err error) {
	m.QoS, m.Retained = p.first>>1&3, p.first&flagRetain != 0
	topic, rest, ok := cutText(p.body)
	if ok && m.QoS > 0 {
		if id, ok = readID(rest); ok {
			rest = rest[2:]
		}
	}
	if !ok || m.QoS > 2 || topic == "" {
		return m, 0, fmt.Errorf("%w: PUBLISH", errMalformed)
	}
	m.Topic, m.Payload = topic, rest
	return m, id, nil
}

// identifier reads a packet that begins with an identifier.
func (p packet) identifier() (uint16, error) {
	id, ok := readID(p.body)
	if !ok {
		return 0, fmt.Errorf("%w of type %d without an identifier", errMalformed, p.first>>4)
	}
	return id, nil
}

func readID(b []byte) (id uint16, ok bool) {
	if len(b) < 2 {
		return 0, false
	}
	id = binary.BigEndian.Uint16(b)
	return id, id != 0
}

func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < end {
		return "", nil, false
	}
	return string(b[2:end]), b[end:], true
}

func appendHeader(to []byte, first byte, length int) []byte {
	return binary.AppendUvarint(append(to, first), uint64(length)) //nolint:gosec // MQTT's lengths are encoded like that
}

func appendText[T string | []byte](to []byte, text T) []byte {
	to = binary.BigEndian.AppendUint16(to, uint16(len(text))) //nolint:gosec // was checked
	return append(to, text...)
}

// appendConnect is section 3.1. A password without a user name is left out, as MQTT 3.1.1 asks.
func appendConnect(to []byte, cfg *Config) []byte {
	const clean, willFlag, willRetain, password, username = 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7
	flags := byte(0)
	fields := appendText(nil, cfg.ClientID)
	if cfg.CleanSession {
		flags |= clean
	}
	if w := cfg.Will; w != nil {
		flags |= willFlag | w.QoS<<3
		if w.Retained {
			flags |= willRetain
		}
		fields = appendText(appendText(fields, w.Topic), w.Payload)
	}
	if cfg.Username != "" {
		flags |= username
		fields = appendText(fields, cfg.Username)
		if cfg.Password != "" {
			flags |= password
			fields = appendText(fields, cfg.Password)
		}
	}
	const version = 4
	head := append(appendText(nil, "MQTT"), version, flags)
	head = binary.BigEndian.AppendUint16(head, uint16(cfg.KeepAlive/time.Second)) //nolint:gosec // was checked
	to = appendHeader(to, typeConnect, len(head)+len(fields))
	return append(append(to, head...), fields...)
}

func appendPublish(to []byte, m *Message, id uint16) []byte {
	first, length := typePublish|m.QoS<<1, 2+len(m.Topic)+len(m.Payload)
	if m.Retained {
		first |= flagRetain
	}
	if m.QoS > 0 {
		length += 2
	}
	to = appendText(appendHeader(to, first, length), m.Topic)
	if m.QoS > 0 {
		to = binary.BigEndian.AppendUint16(to, id)
	}
	return append(to, m.Payload...)
}

// appendAck is one of PUBACK, PUBREC, PUBREL, PUBCOMP.
func appendAck(to []byte, kind byte, id uint16) []byte {
	if kind == typePubrel {
		kind |= prescribedFlags
	}
	return binary.BigEndian.AppendUint16(append(to, kind, 2), id)
}

func appendSubscribe(to []byte, id uint16, subs []Subscription) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	for _, sub := range subs {
		body = append(appendText(body, sub.Filter), sub.QoS)
	}
	return append(appendHeader(to, typeSubscribe|prescribedFlags, len(body)), body...)
}

func appendUnsubscribe(to []byte, id uint16, filters []string) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	for _, filter := range filters {
		body = appendText(body, filter)
	}
	return append(appendHeader(to, typeUnsubscribe|prescribedFlags, len(body)), body...)
}

// maxText is how many bytes a text or binary field may have (section 1.5.3).
const maxText = 65535

// isText reports whether s can be sent as a text.
func isText(s string) bool { return len(s) <= maxText && !strings.ContainsRune(s, 0) }
