package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// client is as little MQTT 3.1.1 as it takes to publish a million messages at QoS 1 and to hear the answers, so that the
// node has the processors to itself.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	done chan struct{} // closed when nothing more is read

	mu   sync.Mutex
	last uint16 // packet identifier
	buf  []byte
}

// The packets of MQTT 3.1.1 by their first byte.
const (
	packetConnect   = 0x10
	packetConnack   = 0x20
	packetPublish   = 0x30
	packetPublishQ1 = 0x32
	packetSubscribe = 0x82
	packetSuback    = 0x90

	kindMask = 0xf0
)

// dial connects and subscribes to the filters at QoS 0. hear gets what is published on them, one after the other, and
// may publish itself.
func dial(ctx context.Context, address string, cfg *tls.Config, hear func(topic string, payload []byte), filters ...string) (*client, error) {
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), done: make(chan struct{})}
	if err := c.open(filters); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", address, err), conn.Close())
	}
	go c.receive(hear)
	return c, nil
}

func (c *client) open(filters []string) error {
	const cleanSession = 2
	body := append(appendText(nil, "MQTT"), 4, cleanSession, 0, 0) // no keep alive
	if err := c.ask(packetConnect, appendText(body, ""), packetConnack); err != nil || len(filters) == 0 {
		return err
	}
	body = []byte{0, 1}
	for _, filter := range filters {
		body = append(appendText(body, filter), 0)
	}
	return c.ask(packetSubscribe, body, packetSuback)
}

// ask sends a packet and reads its answer, which has a 0 from the second byte on where it is a yes.
func (c *client) ask(kind byte, body []byte, answer byte) error {
	if _, err := c.conn.Write(appendPacket(nil, kind, body)); err != nil {
		return err
	}
	got, body, err := c.packet()
	if err != nil {
		return err
	}
	yes := got == answer && body[1] == 0 || answer == packetSuback && body[1] == 1
	for _, code := range body[2:] {
		yes = yes && code == 0
	}
	if !yes {
		return fmt.Errorf("the broker answered %#x with %#x % x", kind, got, body)
	}
	return nil
}

func (c *client) receive(hear func(topic string, payload []byte)) {
	defer close(c.done)
	for {
		kind, body, err := c.packet()
		if err != nil {
			return
		}
		if kind&kindMask == packetPublish && hear != nil {
			length := binary.BigEndian.Uint16(body)
			hear(string(body[2:2+length]), body[2+length:])
		}
	}
}

func (c *client) packet() (kind byte, body []byte, err error) {
	if kind, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(c.in) // MQTT's length has the same encoding
	if err != nil {
		return 0, nil, err
	}
	if length < 2 || length > 1<<20 {
		return 0, nil, fmt.Errorf("a packet of %d bytes", length)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.in, body)
	return kind, body, err
}

// publish sends messages at QoS 1 in one write. It does not wait for the broker's acknowledgements.
func (c *client) publish(topic string, payloads ...[]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = c.buf[:0]
	for _, payload := range payloads {
		if c.last++; c.last == 0 {
			c.last = 1
		}
		length := 2 + len(topic) + 2 + len(payload)
		c.buf = binary.AppendUvarint(append(c.buf, packetPublishQ1), uint64(length))
		c.buf = binary.BigEndian.AppendUint16(appendText(c.buf, topic), c.last)
		c.buf = append(c.buf, payload...)
	}
	_, err := c.conn.Write(c.buf)
	return err
}

// close ends the connection and waits until everything that was received is heard.
func (c *client) close() {
	_ = c.conn.Close() // the node may be gone
	<-c.done
}

func appendText(to []byte, s string) []byte {
	to = binary.BigEndian.AppendUint16(to, uint16(len(s))) //nolint:gosec // our own short texts
	return append(to, s...)
}

func appendPacket(to []byte, kind byte, body []byte) []byte {
	to = binary.AppendUvarint(append(to, kind), uint64(len(body)))
	return append(to, body...)
}
