package broker_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pinseal/broker"
)

// told reads a CONNACK of MQTT 5: the largest packet and the receive maximum.
func (r raw) told(tb testing.TB) (maxPacket uint32, receiveMaximum uint16) {
	tb.Helper()
	ack := r.read(tb)
	if ack[0] != 0x20 || ack[3] != 0 {
		tb.Fatalf("CONNACK % x", ack)
	}
	if i := bytes.IndexByte(ack[5:], 0x27); i >= 0 {
		maxPacket = binary.BigEndian.Uint32(ack[5+i+1:])
	}
	if i := bytes.IndexByte(ack[5:], 0x21); i >= 0 {
		receiveMaximum = binary.BigEndian.Uint16(ack[5+i+1:])
	}
	return maxPacket, receiveMaximum
}

// alive wants the answer to a PINGREQ.
func (r raw) alive(tb testing.TB, who string) {
	tb.Helper()
	r.send(tb, []byte{0xc0, 0})
	if p := r.read(tb); p[0] != 0xd0 {
		tb.Errorf("%s: received % x, want the answer to PINGREQ", who, p)
	}
}

// A client that was told a limit may go on by it, whichever way it changes; whoever comes later is told the new one.
func TestSetLimitsKeepsItsWord(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxPacketBytes, c.Limits.ReceiveMaximum = 2000, 7 })
	hello := func(name string) (c raw, maxPacket uint32, receiveMaximum uint16) {
		c = s.dialRaw(t, name)
		c.send(t, connect5("id"))
		maxPacket, receiveMaximum = c.told(t)
		return c, maxPacket, receiveMaximum
	}
	publish := func(size int) []byte { return packet(0x30, str("t"), []byte{0}, make([]byte, size-7)) }
	before, size, receive := hello("alice")
	if size != 2000 || receive != 7 {
		t.Errorf("told %d and %d", size, receive)
	}
	s.SetLimits(broker.Limits{MaxPacketBytes: 600, ReceiveMaximum: 3})
	before.send(t, publish(1500))
	before.alive(t, "who was told 2000")
	lowered, size, receive := hello("bob")
	if size != 600 || receive != 3 {
		t.Errorf("lowered: told %d and %d", size, receive)
	}
	lowered.send(t, publish(700))
	if p := lowered.read(t); p[0] != 0xe0 || p[2] != 0x95 {
		t.Errorf("beyond 600 bytes: received % x, want DISCONNECT", p)
	}
	s.SetLimits(broker.Limits{MaxPacketBytes: 5000})
	raised, size, _ := hello("carol")
	if size != 5000 {
		t.Errorf("raised: told %d", size)
	}
	raised.send(t, publish(4900))
	raised.alive(t, "who was told 5000")
	before.send(t, publish(1900))
	before.alive(t, "who was told 2000, still")
}

// Connections beyond a lowered cap end, the youngest first, and nobody else's.
func TestSetLimitsEndsTheYoungest(t *testing.T) {
	s := start(t, nil)
	var clients []raw
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		c := s.dialRaw(t, name)
		c.send(t, connect5("id"))
		c.told(t)
		c.alive(t, name) // a CONNACK may come before the broker has noted that it has sent it
		clients = append(clients, c)
	}
	end := func(c raw) {
		t.Helper()
		if p := c.read(t); p[0] != 0xe0 || p[2] != 0x97 {
			t.Errorf("received % x, want DISCONNECT, quota exceeded", p)
		}
		c.wantClosed(t)
	}
	s.SetLimits(broker.Limits{MaxConnections: 4})
	end(clients[4])
	s.SetLimits(broker.Limits{MaxConnectionsPerAddress: 2})
	end(clients[3])
	end(clients[2])
	clients[0].alive(t, "the first")
	clients[1].alive(t, "the second")
	late := s.dialTCP(t)
	if _, err := late.Read(make([]byte, 1)); err == nil {
		t.Error("let in beyond the cap")
	}
	if n := s.Stats().ByReason[broker.ReasonTooManyConnections]; n != 4 {
		t.Errorf("%d counted, want 4", n)
	}
	s.SetLimits(broker.Limits{})
	c := s.dialRaw(t, "f")
	c.send(t, connect5("id"))
	c.told(t)
}

// A rate that is raised holds at once, for who is connected too.
func TestSetLimitsRate(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxPublishRate = 5 })
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id"))
	c.told(t)
	for range 6 { // the sixth waits
		c.send(t, packet(0x30, str("t"), []byte{0}))
	}
	c.alive(t, "slowed down")
	if n := s.Stats().ByReason[broker.ReasonThrottled]; n != 1 {
		t.Errorf("%d slowed down, want 1", n)
	}
	s.SetLimits(broker.Limits{MaxPublishRate: 1_000_000})
	for range 1000 { // at the old rate, more than three minutes
		c.send(t, packet(0x30, str("t"), []byte{0}))
	}
	c.alive(t, "at the new rate")
}

// Who is on the way out already takes nobody along.
func TestSetLimitsCountsWhoStays(t *testing.T) {
	s := start(t, nil)
	clients := map[string]raw{}
	for _, name := range []string{"a", "b", "c"} {
		clients[name] = s.dialRaw(t, name)
		clients[name].send(t, connect5("id"))
		clients[name].told(t)
	}
	if n := s.Disconnect("a"); n != 1 {
		t.Fatalf("%d disconnected", n)
	}
	s.SetLimits(broker.Limits{MaxConnections: 2})
	clients["b"].alive(t, "b")
	clients["c"].alive(t, "c")
}
