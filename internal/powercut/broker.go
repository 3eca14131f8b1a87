package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pinseal/broker"
)

const (
	publications = 3 // between two stops of the broker, for the reader, and as many retained
	taken        = 2 // of them by the reader
)

// pipes is a listener whose connections are in memory.
type pipes struct {
	ends   chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.ends:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// startBroker runs a broker that stores in the folder. stop ends it.
func startBroker(folder string) (p *pipes, stop func() error, err error) {
	p = &pipes{make(chan net.Conn), make(chan struct{})}
	b, err := broker.New(broker.Config{
		Node:        "node",
		Listeners:   []broker.Listener{{Name: "pipe", Net: p, Plain: true, Authenticate: everybody}},
		Policy:      &broker.Policy{Rules: []broker.Rule{{Identity: "*", Publish: []string{"#"}, Subscribe: []string{"#"}}}},
		Persistence: broker.Persistence{Path: filepath.Join(folder, "broker.db")},
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-b.Ready():
	case err := <-ended:
		cancel()
		return nil, nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return p, func() error { cancel(); return <-ended }, nil
}

func everybody(context.Context, broker.Credentials) (broker.Login, error) {
	return broker.Login{Identity: "everybody"}, nil
}

// client speaks as much of MQTT 3.1.1 as is needed.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

// frame is a packet without its fixed header.
type frame struct {
	first byte
	body  []byte
}

const clientPatience = time.Minute

// dial connects. present says that there was a session; a name means that it is to stay.
func (p *pipes) dial(name string) (c *client, present bool, err error) {
	near, far := net.Pipe()
	if err := near.SetDeadline(time.Now().Add(clientPatience)); err != nil {
		return nil, false, err
	}
	p.ends <- far
	c = &client{near, bufio.NewReader(near)}
	flags := byte(0xc0) // user name, password
	if name == "" {
		flags |= 2 // clean session
	}
	hello := append([]byte("\x00\x04MQTT\x04"), flags, 0, 60)
	hello = append(append(append(hello, text16(name)...), text16("everybody")...), text16("")...)
	ack, err := c.ask(0x10, hello, 0x20)
	if err != nil || ack.body[1] != 0 {
		return nil, false, errors.Join(fmt.Errorf("CONNACK % x", ack.body), err, c.conn.Close())
	}
	return c, ack.body[0] == 1, nil
}

func text16(s string) []byte { return append([]byte{0, byte(len(s))}, s...) } //nolint:gosec // our texts are short

func (c *client) send(first byte, body []byte) error {
	_, err := c.conn.Write(append([]byte{first, byte(len(body))}, body...)) //nolint:gosec // all that is sent is shorter than 128 bytes
	return err
}

func (c *client) read() (frame, error) {
	first, err := c.r.ReadByte()
	if err != nil {
		return frame{}, err
	}
	n, err := binary.ReadUvarint(c.r) // as MQTT has it (section 2.2.3)
	if err != nil {
		return frame{}, err
	}
	f := frame{first, make([]byte, n)}
	_, err = io.ReadFull(c.r, f.body)
	return f, err
}

// ask sends a packet and wants an answer of a type.
func (c *client) ask(first byte, body []byte, want byte) (frame, error) {
	if err := c.send(first, body); err != nil {
		return frame{}, err
	}
	f, err := c.read()
	if err == nil && f.first != want {
		err = fmt.Errorf("packet %#x, want %#x", f.first, want)
	}
	return f, err
}

// publish returns when the broker has acknowledged.
func (c *client) publish(flags byte, topic string, n int64) error {
	_, err := c.ask(0x32|flags, append(append(text16(topic), 0, 1), fmt.Sprint(n)...), 0x40)
	return err
}

func (c *client) subscribe(topic string) error {
	_, err := c.ask(0x82, append(append([]byte{0, 1}, text16(topic)...), 1), 0x90)
	return err
}

// publication is a PUBLISH that came.
type publication struct {
	topic string
	id    []byte
	n     int64
}

// next returns the next message, acknowledged, or nil when the broker has no more. taking is told before that.
func (c *client) next(taking func(n int64)) (*publication, error) {
	f, err := c.read()
	if err != nil || f.first&0xf0 != 0x30 {
		return nil, err // the answer to the PINGREQ
	}
	length := 2 + int(binary.BigEndian.Uint16(f.body))
	m := &publication{topic: string(f.body[2:length])}
	rest := f.body[length:]
	if f.first&6 != 0 {
		m.id, rest = rest[:2], rest[2:]
	}
	if m.n, err = strconv.ParseInt(string(rest), 10, 64); err != nil {
		return nil, err
	}
	if m.id == nil || taking == nil {
		return m, nil
	}
	taking(m.n)
	return m, c.send(0x40, m.id)
}

// bye leaves without DISCONNECT.
func (c *client) bye() error { return c.conn.Close() }

// liveBroker is a broker that is started some times and gets messages, for a reader that is mostly away, and retained
// ones. A message is the time at which it was made, so that later ones are higher, over all lives.
func liveBroker(folder string, tell func(string, ...any)) error {
	for range 2 {
		p, stop, err := startBroker(folder)
		if err != nil {
			return err
		}
		if err := errors.Join(subscribeReader(p, tell), publishSome(p, tell), takeSome(p, tell), stop()); err != nil {
			return err
		}
	}
	return nil
}

func subscribeReader(p *pipes, tell func(string, ...any)) error {
	c, _, err := p.dial("reader")
	if err != nil {
		return err
	}
	if err := c.send(0x82, append(append([]byte{0, 1}, text16("x")...), 1)); err != nil {
		return err
	}
	f := frame{}
	for f.first != 0x90 { // a session that was there may have messages
		if f, err = c.read(); err != nil {
			return err
		}
	}
	if f.body[len(f.body)-1] != 1 {
		return fmt.Errorf("SUBACK % x", f.body)
	}
	tell("subscribed")
	return c.bye()
}

func publishSome(p *pipes, tell func(string, ...any)) error {
	c, _, err := p.dial("")
	if err != nil {
		return err
	}
	for range publications {
		for _, kind := range []struct {
			flags byte
			topic string
		}{{0, "x"}, {1, "r"}} {
			n := time.Now().UnixNano()
			tell("publishing %s %d", kind.topic, n)
			if err := c.publish(kind.flags, kind.topic, n); err != nil {
				return err
			}
			tell("published %s %d", kind.topic, n)
		}
	}
	return c.bye()
}

// takeSome has the reader acknowledge a few messages.
func takeSome(p *pipes, tell func(string, ...any)) error {
	c, _, err := p.dial("reader")
	if err != nil {
		return err
	}
	for range taken {
		if m, err := c.next(func(n int64) { tell("taking %d", n) }); err != nil || m == nil {
			return errors.Join(err, errors.New("no message"))
		}
	}
	return c.bye()
}

// saidBroker is what the marks of a broker say.
type saidBroker struct {
	subscribed bool
	begun      map[string][]int64 // by topic
	promised   map[string][]int64
	taken      []int64
}

func readBrokerMarks(marks []string) (saidBroker, error) {
	s := saidBroker{begun: map[string][]int64{}, promised: map[string][]int64{}}
	for _, m := range marks {
		var topic string
		var n int64
		if m == "subscribed" {
			s.subscribed = true
		} else if _, err := fmt.Sscanf(m, "publishing %s %d", &topic, &n); err == nil {
			s.begun[topic] = append(s.begun[topic], n)
		} else if _, err := fmt.Sscanf(m, "published %s %d", &topic, &n); err == nil {
			s.promised[topic] = append(s.promised[topic], n)
		} else if _, err := fmt.Sscanf(m, "taking %d", &n); err == nil {
			s.taken = append(s.taken, n)
		} else {
			return s, err
		}
	}
	return s, nil
}

// judgeBroker starts the broker again: what it acknowledged must be there, in order, and nothing else; and it must go on.
func judgeBroker(folder string, marks []string) error {
	before, err := readBrokerMarks(marks)
	if err != nil {
		return err
	}
	p, stop, err := startBroker(folder)
	if err != nil {
		return err
	}
	err = errors.Join(before.judgeReader(p), before.judgeRetained(p), stop())
	if _, missing := os.Lstat(filepath.Join(folder, "broker.db.damaged")); missing == nil {
		return fmt.Errorf("%w: the file was set aside", errRefused)
	}
	return err
}

// judgeReader: the reader gets what it has not acknowledged.
func (before saidBroker) judgeReader(p *pipes) error {
	c, present, err := p.dial("reader")
	if err != nil {
		return err
	}
	if before.subscribed && !present {
		return errors.New("the session is gone")
	}
	got, err := c.drain()
	if err != nil {
		return err
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		return fmt.Errorf("out of order: %d", got)
	}
	for _, n := range before.promised["x"] {
		if !slices.Contains(before.taken, n) && !slices.Contains(got, n) {
			return fmt.Errorf("%d was acknowledged and is gone; there are %d", n, got)
		}
	}
	for _, n := range got {
		if !slices.Contains(before.begun["x"], n) {
			return fmt.Errorf("nobody has published %d", n)
		}
	}
	if !before.subscribed {
		return c.bye()
	}
	publisher, _, err := p.dial("")
	if err != nil {
		return err
	}
	fresh := time.Now().UnixNano()
	if err := publisher.publish(0, "x", fresh); err != nil {
		return err
	}
	if m, err := c.next(nil); err != nil || m == nil || m.n != fresh {
		return fmt.Errorf("a fresh message has come as %+v, %w", m, err)
	}
	return errors.Join(publisher.bye(), c.bye())
}

// drain reads what there is.
func (c *client) drain() (got []int64, err error) {
	if err := c.send(0xc0, nil); err != nil {
		return nil, err
	}
	for {
		m, err := c.next(func(n int64) { got = append(got, n) })
		if err != nil || m == nil {
			return got, err
		}
	}
}

// judgeRetained: it is the last that was acknowledged, or a later one.
func (before saidBroker) judgeRetained(p *pipes) error {
	c, _, err := p.dial("")
	if err != nil {
		return err
	}
	if err := c.subscribe("r"); err != nil {
		return err
	}
	got, err := c.drain()
	promised := before.promised["r"]
	switch {
	case err != nil:
		return err
	case len(got) > 1, len(got) == 1 && !slices.Contains(before.begun["r"], got[0]):
		return fmt.Errorf("retained are %d", got)
	case len(promised) > 0 && (len(got) == 0 || got[0] < slices.Max(promised)):
		return fmt.Errorf("retained is %d, and %s was acknowledged", got, strings.Trim(fmt.Sprint(promised), "[]"))
	}
	return c.bye()
}
