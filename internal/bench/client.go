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
	"time"
)

// client is as little MQTT 3.1.1 as a load generator needs, so that both stacks have the processors to themselves. It
// sends what was encoded before and hands what it receives to a callback.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	done chan struct{} // closed when nothing more is read
}

// The packets of MQTT 3.1.1 by their first byte.
const (
	connect    = 0x10
	connack    = 0x20
	publishQ1  = 0x32
	publish    = 0x30
	subscribe  = 0x82
	suback     = 0x90
	kindOfByte = 0xf0
)

// dial connects, waiting until somebody listens, and subscribes to topic unless it is empty.
func dial(ctx context.Context, address string, cfg *tls.Config, topic string, onPublish func(payload []byte)) (*client, error) {
	raw, err := dialTCP(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &client{conn: tls.Client(raw, cfg), done: make(chan struct{})}
	c.in = bufio.NewReaderSize(c.conn, 64<<10)
	if err := c.open(topic); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", address, err), raw.Close())
	}
	go c.receive(onPublish)
	return c, nil
}

// dialTCP tries every millisecond: a broker that starts is met as soon as it listens.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Millisecond):
		}
	}
}

func (c *client) open(topic string) error {
	const cleanSession = 2
	body := append(appendText(nil, "MQTT"), 4, cleanSession, 0, 0) // no keep alive
	if err := c.ask(connect, appendText(body, "bench"), connack); err != nil || topic == "" {
		return err
	}
	return c.ask(subscribe, append(appendText([]byte{0, 1}, topic), 0), suback)
}

// ask sends a packet and reads its answer, whose last byte is 0 for a yes.
func (c *client) ask(kind byte, body []byte, answer byte) error {
	if _, err := c.conn.Write(appendPacket(nil, kind, body)); err != nil {
		return err
	}
	got, body, err := c.packet()
	if err != nil {
		return err
	}
	if got != answer || body[len(body)-1] != 0 {
		return fmt.Errorf("the broker answered %#x with %#x % x", kind, got, body)
	}
	return nil
}

// receive hands on the payloads of all publications at QoS 0, until the connection ends.
func (c *client) receive(onPublish func(payload []byte)) {
	defer close(c.done)
	for {
		kind, body, err := c.packet()
		if err != nil {
			return
		}
		if kind&kindOfByte == publish && onPublish != nil {
			onPublish(body[2+binary.BigEndian.Uint16(body):])
		}
	}
}

// packet reads one packet.
func (c *client) packet() (kind byte, body []byte, err error) {
	if kind, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(c.in) // MQTT's length has the same encoding
	if err != nil {
		return 0, nil, err
	}
	if length == 0 || length > 1<<20 {
		return 0, nil, fmt.Errorf("a packet of %d bytes", length)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.in, body)
	return kind, body, err
}

// send writes packets that are encoded already.
func (c *client) send(packets []byte) error {
	_, err := c.conn.Write(packets)
	return err
}

func (c *client) close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// encodePublish makes a PUBLISH at QoS 1. The number tells messages on their way apart.
func encodePublish(topic string, number int, payload []byte) []byte {
	body := appendText(make([]byte, 0, len(topic)+len(payload)+8), topic)
	body = binary.BigEndian.AppendUint16(body, uint16(number%65535+1)) //nolint:gosec // below 65536
	return appendPacket(nil, publishQ1, append(body, payload...))
}

func appendText(to []byte, s string) []byte {
	to = binary.BigEndian.AppendUint16(to, uint16(len(s))) //nolint:gosec // our own short texts
	return append(to, s...)
}

func appendPacket(to []byte, kind byte, body []byte) []byte {
	to = binary.AppendUvarint(append(to, kind), uint64(len(body)))
	return append(to, body...)
}
