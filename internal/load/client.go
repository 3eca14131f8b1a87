// Package load is the MQTT 3.1.1 client of the measurements and the proofs: as little as a load generator needs, so that
// what is measured has the processors to itself.
package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Options say what a client subscribes to and who hears it.
type Options struct {
	// ID is the client identifier; empty, the broker gives one.
	ID string
	// Filters are subscribed to at QoS, 0 or 1.
	Filters []string
	QoS     byte
	// Hear gets what is published on them, one after the other. Its arguments are valid until it returns. It may
	// publish. nil hears nothing.
	Hear func(topic, payload []byte)
}

// Client is a connected client. Its methods are safe for concurrent use.
type Client struct {
	conn  net.Conn
	in    *bufio.Reader
	body  []byte        // of the packet that was read last
	done  chan struct{} // closed when nothing more is read
	acked atomic.Int64

	mu   sync.Mutex
	last uint16 // packet identifier
	buf  []byte
}

// The packets of MQTT 3.1.1 (section 2.2.1) by their first byte.
const (
	packetConnect   = 0x10
	packetConnack   = 0x20
	packetPublish   = 0x30
	packetPuback    = 0x40
	packetSubscribe = 0x82
	packetSuback    = 0x90

	kindMask = 0xf0
	qos1     = 0x02

	// maxPacketBytes is far above what is sent here.
	maxPacketBytes = 1 << 20
	readBytes      = 16 << 10
	// ackedTogether is how many acknowledgements may wait to be written together.
	ackedTogether = 16
)

// Open connects and subscribes over a connection, which is closed if that fails.
func Open(conn net.Conn, o Options) (*Client, error) {
	c := &Client{conn: conn, in: bufio.NewReaderSize(conn, readBytes), done: make(chan struct{})}
	if err := c.open(o); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", conn.RemoteAddr(), err), conn.Close())
	}
	go c.receive(o.Hear)
	return c, nil
}

func (c *Client) open(o Options) error {
	const cleanSession = 2
	body := append(appendText(nil, "MQTT"), 4, cleanSession, 0, 0) // no keep alive
	if err := c.ask(packetConnect, appendText(body, o.ID), packetConnack); err != nil || len(o.Filters) == 0 {
		return err
	}
	body = []byte{0, 1}
	for _, filter := range o.Filters {
		body = append(appendText(body, filter), o.QoS)
	}
	return c.ask(packetSubscribe, body, packetSuback)
}

// ask sends a packet and reads its answer: CONNACK ends with a code that is 0 for a yes, SUBACK has one below 3 for each
// filter behind the packet identifier.
func (c *Client) ask(kind byte, body []byte, answer byte) error {
	if _, err := c.conn.Write(appendPacket(nil, kind, body)); err != nil {
		return err
	}
	got, body, err := c.packet()
	if err != nil {
		return err
	}
	codes, most := body[1:], byte(0)
	if answer == packetSuback {
		codes, most = body[2:], 2
	}
	yes := got == answer
	for _, code := range codes {
		yes = yes && code <= most
	}
	if !yes {
		return fmt.Errorf("the broker answered %#x with %#x % x", kind, got, body)
	}
	return nil
}

// receive reads until the connection ends, and acknowledges what must be.
func (c *Client) receive(hear func(topic, payload []byte)) {
	defer close(c.done)
	var acks []byte
	for {
		kind, body, err := c.packet()
		if err != nil {
			return
		}
		switch kind & kindMask {
		case packetPuback:
			c.acked.Add(1)
		case packetPublish:
			topic, rest := cutText(body)
			if kind&qos1 != 0 && len(rest) >= 2 {
				acks, rest = append(acks, packetPuback, 2, rest[0], rest[1]), rest[2:]
			}
			if hear != nil {
				hear(topic, rest)
			}
		}
		if len(acks) >= 4*ackedTogether || len(acks) > 0 && c.in.Buffered() == 0 {
			if c.Send(acks) != nil {
				return
			}
			acks = acks[:0]
		}
	}
}

// packet reads one packet, whose body is valid until the next one is read.
func (c *Client) packet() (kind byte, body []byte, err error) {
	if kind, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(c.in) // MQTT's length has the same encoding
	if err != nil {
		return 0, nil, err
	}
	if length < 2 || length > maxPacketBytes {
		return 0, nil, fmt.Errorf("a packet of %d bytes", length)
	}
	if int(length) > cap(c.body) {
		c.body = make([]byte, length)
	}
	body = c.body[:length]
	_, err = io.ReadFull(c.in, body)
	return kind, body, err
}

// Publish sends messages at QoS 1 in one write. It does not wait for the broker's acknowledgements.
func (c *Client) Publish(topic string, payloads ...[]byte) error {
	return c.publish(1, topic, payloads)
}

// PublishOnce sends messages at QoS 0 in one write.
func (c *Client) PublishOnce(topic string, payloads ...[]byte) error {
	return c.publish(0, topic, payloads)
}

func (c *Client) publish(qos byte, topic string, payloads [][]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = c.buf[:0]
	for _, payload := range payloads {
		length := 2 + len(topic) + 2*int(qos) + len(payload)
		c.buf = binary.AppendUvarint(append(c.buf, packetPublish|qos<<1), uint64(length))
		c.buf = appendText(c.buf, topic)
		if qos > 0 {
			if c.last++; c.last == 0 {
				c.last = 1
			}
			c.buf = binary.BigEndian.AppendUint16(c.buf, c.last)
		}
		c.buf = append(c.buf, payload...)
	}
	_, err := c.conn.Write(c.buf)
	return err
}

// Send writes packets that are encoded already.
func (c *Client) Send(packets []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.conn.Write(packets)
	return err
}

// Acknowledged is how many messages the broker has acknowledged.
func (c *Client) Acknowledged() int64 { return c.acked.Load() }

// Close ends the connection and waits until everything that was received is heard. It must not be called by Hear.
func (c *Client) Close() {
	_ = c.conn.Close() // the other side may be gone
	<-c.done
}

// EncodePublish makes a PUBLISH at QoS 1. The number tells messages on their way apart.
func EncodePublish(topic string, number int, payload []byte) []byte {
	body := appendText(make([]byte, 0, len(topic)+len(payload)+8), topic)
	body = binary.BigEndian.AppendUint16(body, uint16(number%65535+1)) //nolint:gosec // below 65536
	return appendPacket(nil, packetPublish|qos1, append(body, payload...))
}

func appendText(to []byte, s string) []byte {
	to = binary.BigEndian.AppendUint16(to, uint16(len(s))) //nolint:gosec // our own short texts
	return append(to, s...)
}

func cutText(b []byte) (text, rest []byte) {
	end := min(2+int(binary.BigEndian.Uint16(b)), len(b))
	return b[2:end], b[end:]
}

func appendPacket(to []byte, kind byte, body []byte) []byte {
	to = binary.AppendUvarint(append(to, kind), uint64(len(body)))
	return append(to, body...)
}
