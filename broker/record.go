package broker

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"time"
)

// The values that the keeper stores. Numbers are unsigned varints; text and bytes have their length before them.

var errRecord = errors.New("a record is not as it was written")

// recordReader takes a record apart. After a mistake everything is zero, and done tells.
type recordReader struct {
	b   []byte
	bad bool
}

func (r *recordReader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

// upTo reads a number that must not be above most.
func (r *recordReader) upTo(most uint64) uint64 {
	n := r.number()
	if n > most {
		r.bad = true
		return 0
	}
	return n
}

func (r *recordReader) text() string {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *recordReader) done() error {
	if r.bad || len(r.b) > 0 {
		return errRecord
	}
	return nil
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Flags of records.
const (
	flagRetain   = 1 << 2 // beside the QoS
	flagReleased = 1 << 3
	flagNoLocal  = 1 << 3
	flagAsIs     = 1 << 4 // retain as published
	maxFlags     = 1<<7 - 1

	flagAttached = 1 << 0
	flagWill     = 1 << 1
)

func flags(qos byte, more ...byte) uint64 {
	for _, f := range more {
		qos |= f
	}
	return uint64(qos)
}

func flagIf(set bool, flag byte) byte {
	if set {
		return flag
	}
	return 0
}

func appendMessage(b []byte, m *message) []byte {
	b = binary.AppendUvarint(b, flags(m.qos, flagIf(m.retain, flagRetain)))
	b = binary.AppendUvarint(b, uint64(m.expires)) //nolint:gosec // not negative
	b = appendText(b, m.origin)
	b = appendText(b, m.topic)
	b = appendText(b, m.properties)
	return appendText(b, m.payload)
}

func (r *recordReader) message() *message {
	f := r.upTo(maxFlags)
	return &message{
		qos: byte(f & 3), retain: f&flagRetain != 0,
		expires: int64(r.upTo(math.MaxInt64)), //nolint:gosec // see the bound
		origin:  r.text(), topic: r.text(), properties: []byte(r.text()), payload: []byte(r.text()),
	}
}

func parseMessage(b []byte) (*message, error) {
	r := &recordReader{b: b}
	m := r.message()
	if m.topic == "" || m.qos > highestQoS {
		r.bad = true
	}
	return m, r.done()
}

// sessionRecord is what is stored of a session beside its subscriptions and messages.
type sessionRecord struct {
	attached bool // its client was connected
	version  byte
	keep     time.Duration
	away     time.Time // when it went
	lastSent uint64    // the highest number that was sent before it went
	will     *will
}

func (s *sessionRecord) marshal() []byte {
	b := binary.AppendUvarint(nil, flags(0, flagIf(s.attached, flagAttached), flagIf(s.will != nil, flagWill)))
	b = binary.AppendUvarint(b, uint64(s.version))
	b = binary.AppendUvarint(b, uint64(s.keep/time.Second)) //nolint:gosec // not negative
	// Rounded up: a will must not come before its delay is over.
	b = binary.AppendUvarint(b, uint64(max(s.away.Add(time.Second-1).Unix(), 0)))
	b = binary.AppendUvarint(b, s.lastSent)
	if s.will != nil {
		b = binary.AppendUvarint(b, uint64(s.will.delay/time.Second)) //nolint:gosec // not negative
		b = binary.AppendUvarint(b, uint64(s.will.lifetime))
		b = appendMessage(b, s.will.message)
	}
	return b
}

func parseSession(b []byte) (*sessionRecord, error) {
	r := &recordReader{b: b}
	f := r.upTo(maxFlags)
	s := &sessionRecord{
		attached: f&flagAttached != 0,
		version:  byte(r.upTo(version5)),                              //nolint:gosec // see the bound
		keep:     time.Duration(r.upTo(math.MaxUint32)) * time.Second, //nolint:gosec // see the bound
		away:     time.Unix(int64(r.upTo(math.MaxUint32)), 0),         //nolint:gosec // see the bound
		lastSent: r.number(),
	}
	if f&flagWill != 0 {
		delay, lifetime := r.upTo(math.MaxUint32), r.upTo(math.MaxUint32)
		s.will = &will{r.message(), time.Duration(delay) * time.Second, uint32(lifetime)} //nolint:gosec // see the bounds
	}
	return s, r.done()
}

func marshalSubscription(s *subscription) []byte {
	b := binary.AppendUvarint(nil, flags(s.qos, flagIf(s.noLocal, flagNoLocal), flagIf(s.retainAsPublished, flagAsIs)))
	b = binary.AppendUvarint(b, uint64(s.retainHandling))
	return binary.AppendUvarint(b, uint64(s.identifier)) //nolint:gosec // not negative
}

func parseSubscription(filter string, b []byte) (*subscription, error) {
	r := &recordReader{b: b}
	f := r.upTo(maxFlags)
	s := &subscription{
		filter: filter, qos: byte(f & 3), noLocal: f&flagNoLocal != 0, retainAsPublished: f&flagAsIs != 0,
		retainHandling: byte(r.upTo(retainNever)),  //nolint:gosec // see the bound
		identifier:     int(r.upTo(maxIdentifier)), //nolint:gosec // see the bound
	}
	if s.qos > highestQoS || !checkFilter(unshared(filter)) {
		r.bad = true
	}
	return s, r.done()
}

// maxIdentifier is the largest variable byte integer (MQTT 5.0 section 1.5.5).
const maxIdentifier = 1<<28 - 1

// marshalDelivery refers to a message by its number.
func marshalDelivery(d *delivery, message uint64) []byte {
	b := binary.AppendUvarint(nil, flags(d.qos, flagIf(d.retain, flagRetain), flagIf(d.released, flagReleased)))
	b = binary.AppendUvarint(b, uint64(d.id))
	b = binary.AppendUvarint(b, message)
	b = binary.AppendUvarint(b, uint64(len(d.identifiers)))
	for _, id := range d.identifiers {
		b = binary.AppendUvarint(b, uint64(id)) //nolint:gosec // not negative
	}
	return b
}

func parseDelivery(number uint64, b []byte) (d *delivery, message uint64, err error) {
	r := &recordReader{b: b}
	f := r.upTo(maxFlags)
	d = &delivery{
		number: number, qos: byte(f & 3), retain: f&flagRetain != 0, released: f&flagReleased != 0,
		id: uint16(r.upTo(math.MaxUint16)), //nolint:gosec // see the bound
	}
	message = r.number()
	for range r.upTo(uint64(len(b))) {
		d.identifiers = append(d.identifiers, int(r.upTo(maxIdentifier))) //nolint:gosec // see the bound
	}
	if d.id == 0 || d.qos == 0 || d.qos > highestQoS || d.released != (message == 0) {
		r.bad = true
	}
	return d, message, r.done()
}

// Keys: what belongs to a session has its id before it, and a zero byte, which no id holds.

func sessionKey(id, rest string) string { return id + "\x00" + rest }

func parseKey(key string) (id, rest string) {
	id, rest, _ = strings.Cut(key, "\x00")
	return id, rest
}

func numberKey(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func parseNumber(key string) (uint64, error) {
	if len(key) != 8 {
		return 0, errRecord
	}
	return binary.BigEndian.Uint64([]byte(key)), nil
}

func identifierKey(id uint16) string { return string(binary.BigEndian.AppendUint16(nil, id)) }

func parseIdentifier(key string) (uint16, error) {
	if len(key) != 2 {
		return 0, errRecord
	}
	return binary.BigEndian.Uint16([]byte(key)), nil
}
