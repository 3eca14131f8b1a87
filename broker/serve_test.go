package broker_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
)

// The bytes of a packet are those of a buffer, which the next packet overwrites.
func TestTopicsOutliveTheirPackets(t *testing.T) {
	s := start(t, nil)
	sub, pub := s.dialRaw(t, "alice"), s.open5(t, "bob")
	sub.send(t, connect5("", 0x22, 0, 2), packet(0x82, []byte{0, 1, 0}, str("#"), []byte{0}))
	sub.read(t)
	sub.read(t)
	for _, step := range []struct {
		topic string
		alias byte
		want  []byte // topic and alias as the subscriber sees them
	}{
		{"aaaa", 1, append(str("aaaa"), 3, 0x23, 0, 1)},
		{"bbbb", 2, append(str("bbbb"), 3, 0x23, 0, 2)},
		{"aaaa", 3, []byte{0, 0, 3, 0x23, 0, 1}},
		{"", 2, []byte{0, 0, 3, 0x23, 0, 2}},
		{"", 1, []byte{0, 0, 3, 0x23, 0, 1}},
		{"cccc", 1, append(str("cccc"), 0)},
		{"", 3, []byte{0, 0, 3, 0x23, 0, 1}},
	} {
		pub.send(t, packet(0x30, str(step.topic), []byte{3, 0x23, 0, step.alias}, []byte("m")))
		if m, want := sub.read(t), packet(0x30, step.want, []byte("m")); !bytes.Equal(m, want) {
			t.Errorf("%q, alias %d: received % x, want % x", step.topic, step.alias, m, want)
		}
	}
}

// What is kept of a packet is not overwritten by the next ones, all of which come at once.
func TestMessagesOutliveTheirPackets(t *testing.T) {
	s := start(t, nil)
	away, _ := s.resume(t, "alice", persistent311("id"))
	away.subscribes(t, 4, "queued/#", 1)
	s.leave(t, away)
	pub := s.dialRaw(t, "bob")
	filler := packet(0x30, str("nobody"), bytes.Repeat([]byte{'#'}, 400))
	pub.send(t, connect311(""), packet(0x32, str("queued/1"), []byte{0, 1}, []byte("first")), filler,
		packet(0x31, str("kept"), []byte("second")), filler, packet(0x34, str("queued/2"), []byte{0, 2}, []byte("third")), filler)
	for range 3 { // CONNACK, PUBACK, PUBREC
		pub.read(t)
	}
	pub.send(t, filler, filler, []byte{0xc0, 0})
	pub.read(t)
	away, _ = s.resume(t, "alice", persistent311("id"))
	for _, want := range []string{"first", "third"} {
		if m := away.read(t); !bytes.HasSuffix(m, []byte(want)) {
			t.Errorf("received % x, want %s", m, want)
		}
	}
	away.subscribes(t, 4, "kept", 0)
	if m := away.read(t); !bytes.Equal(m, packet(0x31, str("kept"), []byte("second"))) {
		t.Errorf("received % x, want the retained message", m)
	}
}

// A packet has to come as a whole within the keep alive: single bytes of it do not renew that.
func TestKeepAliveCountsPackets(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) { c.Limits.MaxKeepAlive = time.Second })
	slow := s.dialRaw(t, "alice")
	slow.send(t, connect311("slow"))
	slow.read(t)
	trickle := packet(0x30, str("x"), []byte(strings.Repeat("m", 100)))
	began := time.Now()
	go func() {
		for _, b := range trickle {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond) // is the attack, waits for nothing
		}
	}()
	slow.wantClosed(t)
	if n := s.Stats().ByReason[broker.ReasonTimeout]; n != 1 {
		t.Errorf("%d timeouts counted after %v, want 1", n, time.Since(began))
	}
}

// A client may take packets of any size that its MQTT knows, which is more than an int of 32 bits can say.
func TestLargestMaximumPacketSize(t *testing.T) {
	s := start(t, nil)
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id", 0x27, 0xff, 0xff, 0xff, 0xff), packet(0x82, []byte{0, 1, 0}, str("x"), []byte{0}))
	c.read(t)
	c.read(t)
	s.open5(t, "bob").publishes5(t, "x", nil, "m", 0)
	if m := c.read(t); !bytes.HasSuffix(m, []byte("m")) {
		t.Errorf("received % x", m)
	}
}

// A client that takes no packet of the size of the answer is let go without one (MQTT 5.0 section 3.1.2.11.4).
func TestAnswerLargerThanTheClientTakes(t *testing.T) {
	s := start(t, nil)
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id", 0x27, 0, 0, 0, 4))
	if p, err := readPacket(c); err == nil {
		t.Errorf("received % x", p)
	}
	eventually(t, "gone", func() bool { st := s.Stats(); return st.Connections == 0 && st.Sessions == 0 })
}
