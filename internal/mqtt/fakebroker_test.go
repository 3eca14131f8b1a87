package mqtt_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"pinseal/internal/mqtt"
)

const patience = 10 * time.Second

// fakeBroker is the other end of a client's connections. Its tests play the broker packet by packet.
type fakeBroker struct {
	t     *testing.T
	conns chan net.Conn
}

func newFakeBroker(t *testing.T) *fakeBroker {
	t.Helper()
	return &fakeBroker{t: t, conns: make(chan net.Conn)}
}

func (b *fakeBroker) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case b.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// session is one connection as the broker sees it.
type session struct {
	net.Conn
	t *testing.T
}

// accept takes the next connection and answers its CONNECT with code.
func (b *fakeBroker) accept(code byte) *session {
	b.t.Helper()
	var s *session
	select {
	case conn := <-b.conns:
		s = &session{Conn: conn, t: b.t}
	case <-time.After(patience):
		b.t.Fatal("no connection")
	}
	b.t.Cleanup(func() { _ = s.Close() })
	expect[*packets.ConnectPacket](s)
	ack, _ := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	ack.ReturnCode = code
	s.write(ack)
	return s
}

func (s *session) write(p packets.ControlPacket) {
	s.t.Helper()
	if err := s.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	if err := p.Write(s.Conn); err != nil {
		s.t.Fatalf("writing %s: %v", p, err)
	}
}

// expect reads the next packet, which must be a T.
func expect[T packets.ControlPacket](s *session) T {
	s.t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	p, err := packets.ReadPacket(s.Conn)
	if err != nil {
		s.t.Fatalf("waiting for %T: %v", *new(T), err)
	}
	got, ok := p.(T)
	if !ok {
		s.t.Fatalf("got %s, want %T", p, *new(T))
	}
	return got
}

// silent asserts that the client sends nothing for a moment.
func (s *session) silent() {
	s.t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		s.t.Fatal(err)
	}
	if p, err := packets.ReadPacket(s.Conn); err == nil {
		s.t.Fatalf("got %s, want nothing", p)
	}
}

// grant answers the next SUBSCRIBE with the same code for all its filters, and returns these.
func (s *session) grant(code byte) []string {
	s.t.Helper()
	sub := expect[*packets.SubscribePacket](s)
	ack, _ := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	ack.MessageID = sub.MessageID
	for range sub.Topics {
		ack.ReturnCodes = append(ack.ReturnCodes, code)
	}
	s.write(ack)
	return sub.Topics
}

func (s *session) confirm(p *packets.PublishPacket) {
	s.t.Helper()
	ack, _ := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	s.write(ack)
}

func (s *session) publish(payload []byte, qos byte, id uint16) {
	s.t.Helper()
	p, _ := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = "t", payload, qos, id
	s.write(p)
}

// connect starts a client and plays the broker's part of connecting and subscribing.
func (b *fakeBroker) connect(cfg mqtt.Config) (*mqtt.Client, *session) {
	b.t.Helper()
	cfg.Dial = b.dial
	cfg.CleanSession = true
	type result struct {
		*mqtt.Client
		error
	}
	connected := make(chan result, 1)
	go func() {
		c, err := mqtt.Connect(b.t.Context(), cfg)
		connected <- result{c, err}
	}()
	s := b.accept(packets.Accepted)
	if len(cfg.Subscriptions) > 0 {
		s.grant(1)
	}
	r := <-connected
	if r.error != nil {
		b.t.Fatal(r.error)
	}
	b.t.Cleanup(func() { _ = r.Close() })
	return r.Client, s
}
