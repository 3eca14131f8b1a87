package broker_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pinseal/broker"
)

// passedOn are properties that a receiver gets as they are.
func passedOn() []byte {
	return slices.Concat([]byte{1, 1, 3}, str("text/plain"), []byte{8}, str("answer/here"), []byte{9}, str("id 7"),
		[]byte{0x26}, str("b"), str("1"), []byte{0x26}, str("a"), str("2"), []byte{0x26}, str("b"), str("3"))
}

// open5 connects a client of MQTT 5 with a clean session.
func (s *site) open5(t *testing.T, identity string) raw {
	t.Helper()
	c, _ := s.resume(t, identity, connect5(""))
	return c
}

// publishes5 publishes at QoS 1 and wants a plain PUBACK.
func (r raw) publishes5(t *testing.T, topic string, properties []byte, payload string, retain byte) {
	t.Helper()
	r.send(t, packet(0x32|retain, str(topic), []byte{0, 7, byte(len(properties))}, properties, []byte(payload)))
	if ack := r.read(t); !bytes.Equal(ack, []byte{0x40, 2, 0, 7}) { // mochi sends the properties back
		t.Errorf("PUBACK % x", ack)
	}
}

func TestPropertiesPassThrough(t *testing.T) {
	s := start(t, nil)
	p, c := s.open5(t, "alice"), s.open5(t, "bob")
	c.send(t, packet(0x82, []byte{0, 1, 3, 0x0b, 0x80, 1}, str("x"), []byte{0})) // subscription identifier 128
	c.read(t)
	p.publishes5(t, "x", passedOn(), "hello", 1)
	want := packet(0x30, str("x"), []byte{byte(len(passedOn()) + 3), 0x0b, 0x80, 1}, passedOn(), []byte("hello"))
	if m := c.read(t); !bytes.Equal(m, want) {
		t.Errorf("received % x, want % x", m, want)
	}
	late := s.open5(t, "bob")
	late.subscribes(t, 5, "x", 0)
	want = packet(0x31, str("x"), []byte{byte(len(passedOn()))}, passedOn(), []byte("hello"))
	if m := late.read(t); !bytes.Equal(m, want) {
		t.Errorf("retained: received % x, want % x", m, want)
	}
	three := s.connect(t, "carol", "")
	three.subscribe(t, "x", 0)
	three.want(t, "x", "hello")
}

// mochi forgets most properties of a will. Its lifetime begins when it is published.
func TestWillProperties(t *testing.T) {
	s := start(t, nil)
	bob := s.open5(t, "bob")
	bob.subscribes(t, 5, "w", 0)
	props := append([]byte{2, 0, 0, 0, 9}, passedOn()...)
	c := s.dialRaw(t, "alice")
	c.send(t, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str(""), []byte{byte(len(props))}, props, str("w"), str("bye")))
	c.read(t)
	_ = c.NetConn().Close()
	want := packet(0x30, str("w"), []byte{byte(len(props))}, props, []byte("bye"))
	if m := bob.read(t); !bytes.Equal(m, want) {
		t.Errorf("received % x, want % x", m, want)
	}
}

// A session that is taken over ends with a clean start, and goes on without (MQTT 5.0 section 3.1.3.2.2).
func TestWillOfTakenOver(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "#", 1)
	connect := func(id string, delay, flags byte) raw {
		c := s.dialRaw(t, "alice")
		c.send(t, packet(0x10, str("MQTT"), []byte{5, flags, 0, 60, 5, 0x11, 0, 0, 0, 60}, str(id),
			[]byte{5, 0x18, 0, 0, 0, delay}, str("w"), str(id)))
		c.read(t)
		return c
	}
	again := func(id string, flags byte) {
		c := s.dialRaw(t, "alice")
		c.send(t, packet(0x10, str("MQTT"), []byte{5, flags, 0, 60, 5, 0x11, 0, 0, 0, 60}, str(id)))
		c.read(t)
	}
	connect("goes on", 1, 6)
	again("goes on", 0) // no will: its delay was not over
	connect("at once", 0, 6)
	again("at once", 0)
	bob.want(t, "w", "at once")
	connect("ends", 60, 6)
	again("ends", 2)
	bob.want(t, "w", "ends")
	_ = connect("clock", 1, 6).NetConn().Close() // after all that was due before, and nothing was
	bob.want(t, "w", "clock")
}

func TestSharedSubscriptions(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	var members [3]*client
	for i := range members {
		members[i] = s.connect(t, "alice", fmt.Sprint(i))
		members[i].subscribe(t, "$share/g/job/#", 1)
	}
	other := s.connect(t, "carol", "")
	other.subscribe(t, "$share/h/job/#", 1) // a group of its own
	other.subscribe(t, "job/1", 0)          // and a subscription of its own, without a second copy
	const each = 10
	for n := range each * len(members) {
		bob.publish(t, "job/1", fmt.Sprint(n), 1)
		other.want(t, "job/1", fmt.Sprint(n))
	}
	for i, m := range members {
		for range each {
			m.receive(t)
		}
		if len(m.messages) > 0 {
			t.Errorf("member %d got more than its share", i)
		}
	}
	members[0].Disconnect(0)
	eventually(t, "gone", func() bool { return s.Stats().Connections == 4 })
	away, _ := s.resume(t, "alice", persistent311("away"))
	away.subscribes(t, 4, "$share/g/job/#", 1)
	s.leave(t, away)
	for range each { // who is absent is passed over
		bob.publish(t, "job/1", "x", 1)
		other.want(t, "job/1", "x")
	}
	eventually(t, "shared", func() bool { return len(members[1].messages)+len(members[2].messages) == each })
	members[1].Disconnect(0)
	members[2].Disconnect(0)
	eventually(t, "gone", func() bool { return s.Stats().Connections == 2 })
	bob.publish(t, "job/1", "waits", 1) // unless nobody else is there
	away, _ = s.resume(t, "alice", persistent311("away"))
	if m := away.read(t); !strings.HasSuffix(string(m), "waits") {
		t.Errorf("received % x", m)
	}
}

func TestSubscriptionOptions(t *testing.T) {
	const noLocal, asPublished, ifNew, never = 1 << 2, 1 << 3, 1 << 4, 2 << 4
	s := start(t, nil)
	p := s.open5(t, "bob")
	p.publishes5(t, "x", nil, "kept", 1)
	for _, tc := range []struct {
		name          string
		options       byte
		first, second bool // the retained message comes with the first and the second SUBSCRIBE
		live          byte // the retain flag of what is published then
	}{
		{"default", 0, true, true, 0},
		{"only if new", ifNew, true, false, 0},
		{"never", never, false, false, 0},
		{"retain as published", asPublished | never, false, false, 1},
	} {
		c := s.open5(t, "alice")
		for i, want := range []bool{tc.first, tc.second} {
			c.subscribes(t, 5, "x", tc.options)
			if want {
				if m := c.read(t); m[0] != 0x31 {
					t.Errorf("%s: received % x, want the retained message", tc.name, m)
				}
			}
			c.send(t, []byte{0xc0, 0})
			if m := c.read(t); m[0] != 0xd0 {
				t.Errorf("%s: SUBSCRIBE %d brought % x", tc.name, i+1, m)
			}
		}
		p.publishes5(t, "x", nil, "kept", 1)
		if m := c.read(t); m[0] != 0x30|tc.live {
			t.Errorf("%s: received % x", tc.name, m)
		}
	}
	c := s.open5(t, "alice")
	c.subscribes(t, 5, "y", noLocal)
	c.publishes5(t, "y", nil, "own", 0)
	p.publishes5(t, "y", nil, "other's", 0)
	if m := c.read(t); !strings.HasSuffix(string(m), "other's") {
		t.Errorf("no local: received % x", m)
	}
}

// Where several subscriptions match, one message comes, with the highest QoS and all identifiers.
func TestOverlappingSubscriptions(t *testing.T) {
	s := start(t, nil)
	c, p := s.open5(t, "alice"), s.open5(t, "bob")
	for i, filter := range []string{"a/#", "a/+", "a/b"} {
		c.send(t, packet(0x82, []byte{0, 1, 2, 0x0b, byte(i + 1)}, str(filter), []byte{byte(i % 2)}))
		c.read(t)
	}
	p.publishes5(t, "a/b", nil, "m", 0)
	m := c.read(t)
	slices.Sort(m[10:16])
	if want := packet(0x32, str("a/b"), []byte{0, 1, 6, 1, 2, 3, 0x0b, 0x0b, 0x0b}, []byte("m")); !bytes.Equal(m, want) {
		t.Errorf("received % x, want % x", m, want)
	}
	c.nothingMore(t)
}

// The client's packet identifiers and ours are apart: both sides may use the same at the same time.
func TestQoS2IdentifiersDoNotCollide(t *testing.T) {
	s := start(t, nil)
	c, p := s.open5(t, "alice"), s.connect(t, "bob", "")
	c.subscribes(t, 5, "in", 2)
	p.publish(t, "in", "theirs", 2)
	m := c.read(t)
	id := m[6:8]
	c.send(t, packet(0x34, str("out"), id, []byte{0}, []byte("ours")))
	if ack := c.read(t); !bytes.Equal(ack, append([]byte{0x50, 2}, id...)) {
		t.Errorf("received % x, want PUBREC", ack)
	}
	c.send(t, packet(0x50, id))
	if rel := c.read(t); !bytes.Equal(rel, append([]byte{0x62, 2}, id...)) {
		t.Errorf("received % x, want PUBREL", rel)
	}
	c.send(t, packet(0x62, id))
	if comp := c.read(t); !bytes.Equal(comp, append([]byte{0x70, 2}, id...)) {
		t.Errorf("received % x, want PUBCOMP", comp)
	}
	c.send(t, packet(0x70, id))
	c.nothingMore(t)
}

func TestUnknownIdentifiers(t *testing.T) {
	s := start(t, nil)
	c := s.open5(t, "alice")
	for _, tc := range []struct {
		name         string
		sent, answer []byte
	}{
		{"PUBREL", []byte{0x62, 2, 0, 9}, []byte{0x70, 3, 0, 9, 0x92}},
		{"PUBREC", []byte{0x50, 2, 0, 9}, []byte{0x62, 3, 0, 9, 0x92}},
	} {
		c.send(t, tc.sent)
		if got := c.read(t); !bytes.Equal(got, tc.answer) {
			t.Errorf("%s: received % x, want % x", tc.name, got, tc.answer)
		}
	}
	c.send(t, []byte{0x40, 2, 0, 9}, []byte{0x70, 2, 0, 9}, []byte{0x50, 3, 0, 9, 0x87})
	c.nothingMore(t)
	c.subscribes(t, 5, "x", 2)
	s.connect(t, "bob", "").publish(t, "x", "refused", 2)
	c.send(t, packet(0x50, c.read(t)[5:7], []byte{0x87})) // that is its end (MQTT 5.0 section 4.13.2)
	c.nothingMore(t)
}

func TestMessageExpiry(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, nil)
	p := s.open5(t, "bob")
	away, _ := s.resume(t, "alice", persistent5(true))
	away.subscribes(t, 5, "#", 1)
	s.leave(t, away)
	others := s.Stats().Retained
	second, hour := []byte{2, 0, 0, 0, 1}, []byte{2, 0, 0, 0x0e, 0x10}
	p.publishes5(t, "x", second, "short", 0)
	p.publishes5(t, "x", hour, "long", 0)
	p.publishes5(t, "kept", second, "short", 1)
	eventually(t, "expired", func() bool { return s.Stats().Retained <= others })
	away, _ = s.resume(t, "alice", persistent5(false))
	m := away.read(t)
	if !strings.HasSuffix(string(m), "long") || m[8] != 2 || m[11] != 0x0e || m[12] >= 0x10 {
		t.Errorf("received % x, want the long one with what is left of its hour", m)
	}
	away.nothingMore(t)
}

// A subscription to the same filter takes the place of the one before.
func TestResubscribeReplaces(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxSubscriptions = 1 })
	c, p := s.open5(t, "alice"), s.open5(t, "bob")
	c.subscribes(t, 5, "x", 0)
	c.send(t, packet(0x82, []byte{0, 1, 2, 0x0b, 5}, str("x"), []byte{1}))
	c.read(t)
	p.publishes5(t, "x", nil, "m", 0)
	if m := c.read(t); !bytes.Equal(m, packet(0x32, str("x"), []byte{0, 1, 2, 0x0b, 5}, []byte("m"))) {
		t.Errorf("received % x, want it at QoS 1 with identifier 5", m)
	}
}

// No-local is for a client's will too: it is the client's own message.
func TestNoLocalWill(t *testing.T) {
	s := start(t, nil)
	hello := packet(0x10, str("MQTT"), []byte{5, 4 | 1<<3, 0, 60, 5, 0x11, 0, 0, 0x0e, 0x10}, str("id"), []byte{0}, str("w"), str("bye"))
	c, _ := s.resume(t, "alice", hello)
	c.subscribes(t, 5, "w", 1|1<<2)
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "w", 1)
	s.leave(t, c)
	bob.want(t, "w", "bye")
	c, _ = s.resume(t, "alice", hello)
	c.nothingMore(t)
}

// The reason in words is left out where the client does not take packets of that size (MQTT 5.0 section 3.4.2.2.2).
func TestReasonTooLarge(t *testing.T) {
	s := start(t, nil)
	c, _ := s.resume(t, "alice", connect5("id", 0x27, 0, 0, 0, 29))
	c.send(t, packet(0x32, str("$SYS/x"), []byte{0, 7, 0}))
	if ack := c.read(t); !bytes.Equal(ack, []byte{0x40, 3, 0, 7, 0x87}) {
		t.Errorf("received %d bytes % x, want PUBACK without words", len(ack), ack)
	}
	c, _ = s.resume(t, "alice", connect5("id", 0x27, 0, 0, 0, 30))
	c.send(t, packet(0x32, str("$SYS/x"), []byte{0, 7, 0}))
	if ack := c.read(t); len(ack) != 30 {
		t.Errorf("received %d bytes % x, want PUBACK with words", len(ack), ack)
	}
}
