package frame

import "bytes"

// checker judges whole packets in the order in which they come.
type checker struct {
	limits  Limits
	version byte // 0 until a CONNECT was let through
	ended   bool // after DISCONNECT
	reason  byte // of the DISCONNECT
}

// packet checks one packet: its first byte and its body.
func (k *checker) packet(first byte, body []byte) error {
	kind, flags := first>>4, first&0x0f
	if err := k.order(kind); err != nil {
		return err
	}
	if err := checkFlags(kind, flags); err != nil {
		return err
	}
	c := &cursor{b: body}
	err := k.body(kind, flags, c)
	switch {
	case c.short:
		// Said first, because zero values stood in for what is missing.
		return malformed("packet cut short")
	case err != nil:
		return err
	case len(c.b) > 0:
		return malformed("bytes after the end of the packet")
	}
	return nil
}

// order holds MQTT 5.0 sections 3.1 (CONNECT first and once) and 3.14.4 (nothing after DISCONNECT).
func (k *checker) order(kind byte) error {
	switch {
	case k.ended:
		return protocolError("packet after DISCONNECT")
	case k.version == 0 && kind != Connect:
		return protocolError("packet before CONNECT")
	case k.version != 0 && kind == Connect:
		return protocolError("second CONNECT")
	}
	return nil
}

// checkFlags holds section 2.1.3.
func checkFlags(kind, flags byte) error {
	var want byte
	switch kind {
	case Publish:
		qos := flags >> 1 & 3
		if qos == 3 || qos == 0 && flags&8 != 0 {
			return malformed("QoS and DUP flags of a PUBLISH")
		}
		return nil
	case Pubrel, Subscribe, Unsubscribe:
		want = 2
	}
	if flags != want {
		return malformed("flags of the fixed header")
	}
	return nil
}

func (k *checker) body(kind, flags byte, c *cursor) error {
	switch kind {
	case Connect:
		return k.connect(c)
	case Publish:
		return k.publish(flags, c)
	case Puback, Pubrec, Pubrel, Pubcomp:
		return k.ack(kind, c)
	case Subscribe:
		return k.subscribe(c)
	case Unsubscribe:
		return k.unsubscribe(c)
	case Pingreq:
		return nil
	case Disconnect:
		return k.disconnect(c)
	}
	return protocolError("packet type that clients do not send, or AUTH")
}

// Connect flags (section 3.1.2.3).
const (
	flagReserved = 1 << 0
	flagWill     = 1 << 2
	flagsWillQoS = 3 << 3
	flagRetain   = 1 << 5
	flagPassword = 1 << 6
	flagUsername = 1 << 7
)

func (k *checker) connect(c *cursor) error {
	name, version := c.bytes(), c.u8()
	switch {
	case c.short:
		return nil
	case bytes.Equal(name, []byte("MQIsdp")):
		return &Error{CodeUnsupportedVersion, "MQTT 3.1"}
	case !bytes.Equal(name, []byte("MQTT")):
		return malformed("protocol name")
	case version != Version311 && version != Version5:
		return &Error{CodeUnsupportedVersion, "neither MQTT 3.1.1 nor 5.0"}
	}
	flags := c.u8()
	if err := connectFlags(flags, version); err != nil {
		return err
	}
	c.u16() // keep alive
	if version == Version5 {
		if err := k.limits.properties(c, inConnect); err != nil {
			return err
		}
	}
	if !printable(c.bytes()) {
		return malformed("client identifier")
	}
	if flags&flagWill != 0 {
		if err := k.will(c, version); err != nil {
			return err
		}
	}
	if flags&flagUsername != 0 && !printable(c.bytes()) {
		return malformed("user name")
	}
	if flags&flagPassword != 0 {
		c.bytes()
	}
	k.version = version
	return nil
}

func connectFlags(flags, version byte) error {
	switch {
	case flags&flagReserved != 0:
		return malformed("reserved flag of CONNECT")
	case flags&flagsWillQoS == flagsWillQoS:
		return malformed("QoS of a will")
	case flags&flagWill == 0 && flags&(flagsWillQoS|flagRetain) != 0:
		return malformed("flags of a will that is not there")
	case version == Version311 && flags&flagPassword != 0 && flags&flagUsername == 0:
		return malformed("password without user name")
	}
	return nil
}

func (k *checker) will(c *cursor, version byte) error {
	if version == Version5 {
		if err := k.limits.properties(c, inWill); err != nil {
			return err
		}
	}
	topic := c.bytes()
	c.bytes() // payload
	if c.short {
		return nil
	}
	return k.limits.topicName(topic)
}

func (k *checker) publish(flags byte, c *cursor) error {
	topic := c.bytes()
	if c.short {
		return nil
	}
	if err := k.checkPublish(flags, topic, c); err != nil {
		return err
	}
	c.b = nil // the rest is payload
	return nil
}

func (k *checker) checkPublish(flags byte, topic []byte, c *cursor) error {
	if flags>>1&3 > 0 {
		if err := packetID(c); err != nil {
			return err
		}
	}
	if k.version == Version5 {
		if err := k.limits.properties(c, inPublish); err != nil {
			return err
		}
	}
	if len(topic) == 0 && c.alias > 0 {
		return nil
	}
	return k.limits.topicName(topic)
}

// packetID checks a packet identifier (section 2.2.1).
func packetID(c *cursor) error {
	if c.u16() == 0 {
		return protocolError("packet identifier 0")
	}
	return nil
}

func (k *checker) ack(kind byte, c *cursor) error {
	if err := packetID(c); err != nil {
		return err
	}
	if k.version == Version311 || len(c.b) == 0 {
		return nil
	}
	reason := c.u8()
	if kind == Puback || kind == Pubrec {
		if !bytes.Contains([]byte{0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}, []byte{reason}) {
			return protocolError("reason code")
		}
	} else if reason != 0x00 && reason != 0x92 {
		return protocolError("reason code")
	}
	return k.optionalProperties(c, inAck)
}

// optionalProperties checks properties that may be left out, their length included.
func (k *checker) optionalProperties(c *cursor, place where) error {
	if len(c.b) == 0 {
		return nil
	}
	return k.limits.properties(c, place)
}

func (k *checker) subscribe(c *cursor) error {
	if err := k.filtersHead(c, inSubscribe); err != nil {
		return err
	}
	for n := 1; n == 1 || len(c.b) > 0; n++ {
		filter, options := c.bytes(), c.u8()
		if c.short {
			return nil
		}
		shared, err := k.filter(filter, n)
		if err != nil {
			return err
		}
		if err := k.options(options, shared); err != nil {
			return err
		}
	}
	return nil
}

// options checks the subscription options (section 3.8.3.1); MQTT 3.1.1 knows the QoS only.
func (k *checker) options(o byte, shared bool) error {
	const (
		qos, noLocal, retainHandling = 3, 1 << 2, 3 << 4
		reserved5, reserved311       = 3 << 6, 0xfc
	)
	switch {
	case o&qos == qos,
		k.version == Version311 && o&reserved311 != 0,
		k.version == Version5 && (o&reserved5 != 0 || o&retainHandling == retainHandling):
		return malformed("subscription options")
	case shared && o&noLocal != 0:
		return protocolError("no-local on a shared subscription")
	}
	return nil
}

func (k *checker) unsubscribe(c *cursor) error {
	if err := k.filtersHead(c, inUnsubscribe); err != nil {
		return err
	}
	for n := 1; n == 1 || len(c.b) > 0; n++ {
		filter := c.bytes()
		if c.short {
			return nil
		}
		if _, err := k.filter(filter, n); err != nil {
			return err
		}
	}
	return nil
}

func (k *checker) filtersHead(c *cursor, place where) error {
	if err := packetID(c); err != nil {
		return err
	}
	if k.version == Version5 {
		if err := k.limits.properties(c, place); err != nil {
			return err
		}
	}
	if len(c.b) == 0 {
		return protocolError("no topic filter")
	}
	return nil
}

// filter checks the nth filter of a packet.
func (k *checker) filter(b []byte, n int) (shared bool, err error) {
	if n > k.limits.Filters {
		return false, &Error{CodeQuotaExceeded, "too many topic filters in one packet"}
	}
	return k.limits.topicFilter(b)
}

func (k *checker) disconnect(c *cursor) error {
	k.ended = true
	if k.version == Version311 || len(c.b) == 0 {
		return nil
	}
	k.reason = c.u8()
	legal := []byte{0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
	if !bytes.Contains(legal, []byte{k.reason}) {
		return protocolError("reason code")
	}
	return k.optionalProperties(c, inDisconnect)
}
