package broker_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pinseal/broker"
)

// absent leaves a session behind that wants what is published at QoS 1 or 2 to x.
func (s *site) absent(t *testing.T, identity string) {
	t.Helper()
	c, _ := s.resume(t, identity, persistent5(true))
	c.subscribes(t, 5, "x", 2)
	s.leave(t, c)
}

// ends ends the session for good.
func (s *site) ends(t *testing.T, identity string) {
	t.Helper()
	c, _ := s.resume(t, identity, packet(0x10, str("MQTT"), []byte{5, 2, 0, 60, 0}, str("id")))
	s.leave(t, c)
}

// One identity alone gets half of what all may store, two a third each; the oldest made room, and who reads gives it back.
func TestStoredSessionsShareTheRoom(t *testing.T) {
	const most, size = 120, 1000
	for name, change := range map[string]func(*broker.Limits){
		"messages": func(l *broker.Limits) { l.MaxStoredMessages = most },
		"bytes":    func(l *broker.Limits) { l.MaxStoredBytes = most * (len("x") + size + len("alice:id") + 64) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) {
				keeping(t.TempDir() + "/broker.db")(c)
				change(&c.Limits)
			})
			publisher := s.connect(t, "carol", "")
			fill := func() {
				for n := range most {
					publisher.publish(t, "x", fmt.Sprintf("%0*d", size, n), 1)
				}
			}
			s.absent(t, "alice")
			fill()
			one := s.Stats()
			if one.StoredMessages < most/2-3 || one.StoredMessages > most/2 {
				t.Errorf("one identity has %d of %d messages, want half", one.StoredMessages, most)
			}
			if n := one.ByReason[broker.ReasonStoredFull]; n != most-uint64(one.StoredMessages) {
				t.Errorf("%d counted, and %d of %d are there", n, one.StoredMessages, most)
			}
			s.absent(t, "bobby")
			fill()
			if n := s.Stats().StoredMessages; n < most/2+most/4-6 || n > most/2+most/4 {
				t.Errorf("two have %d of %d messages, want half and half of the rest", n, most)
			}
			c, _ := s.resume(t, "alice", persistent5(false))
			for n := most - one.StoredMessages; n < most; n++ {
				m := c.read(t)
				if want := fmt.Sprintf("%03d", n); string(m[len(m)-3:]) != want {
					t.Fatalf("received %q, want %s: the oldest make room", m[len(m)-3:], want)
				}
				c.send(t, slices.Concat([]byte{0x40, 2}, m[6:8]))
			}
			eventually(t, "alice's messages do not count any more", func() bool { return s.Stats().StoredMessages <= most/4 })
			s.leave(t, c)
			s.ends(t, "alice")
			s.ends(t, "bobby")
			if st := s.Stats(); st.StoredMessages != 0 || st.StoredBytes != 0 {
				t.Errorf("without sessions %d messages and %d bytes are left", st.StoredMessages, st.StoredBytes)
			}
		})
	}
}

// What is no message is refused with the code for it, but for the little that is always there.
func TestStoredSessionsAreRefused(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		keeping(t.TempDir() + "/broker.db")(c)
		c.Limits.MaxStoredBytes = 10000
	})
	c, _ := s.resume(t, "alice", persistent5(true))
	filter := bytes.Repeat([]byte("f"), 400)
	granted := 0
	for ; granted < 60; granted++ {
		c.send(t, packet(0x82, []byte{0, 1, 0}, str(fmt.Sprint(string(filter), granted)), []byte{1}))
		if ack := c.read(t); ack[len(ack)-1] == 0x97 {
			break
		}
	}
	if granted < 4000/500 || granted > 5000/400 {
		t.Errorf("%d filters granted, want those of half the room", granted)
	}
	refusedAt := 0
	for ; refusedAt < 200; refusedAt++ {
		c.send(t, packet(0x34, str("t"), []byte{1, byte(refusedAt), 0}))
		if ack := c.read(t); len(ack) > 4 && ack[4] == 0x97 {
			break
		} else if ack[0] != 0x50 {
			t.Fatalf("PUBREC % x", ack)
		}
	}
	if refusedAt == 200 {
		t.Error("200 identifiers of QoS 2 were remembered")
	}
	c.send(t, packet(0x62, []byte{1, 0}), packet(0x34, str("t"), []byte{1, 250, 0}))
	if ack := c.read(t); ack[0] != 0x70 {
		t.Errorf("PUBCOMP % x", ack)
	}
	if ack := c.read(t); ack[0] != 0x50 || len(ack) > 4 {
		t.Errorf("PUBREC % x, want it accepted with room again", ack)
	}
	if n := s.Stats().ByReason[broker.ReasonStoredFull]; n != 2 {
		t.Errorf("%d counted, want 2", n)
	}
}

// A client that is out of room connects with a small will, and not with a large one, which then is not published either.
func TestWillBeyondTheRoom(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		keeping(t.TempDir() + "/broker.db")(c)
		c.Limits.MaxStoredBytes = 20000
	})
	watcher := s.connect(t, "watcher", "")
	watcher.subscribe(t, "will/#", 0)
	hello := func(topic string, size int) []byte {
		return packet(0x10, str("MQTT"), []byte{5, 4, 0, 60, 5, 0x11, 0, 0, 0x0e, 0x10}, str("id"), []byte{0}, str(topic), str(string(make([]byte, size))))
	}
	c, _ := s.resume(t, "alice", hello("will/large", 15000))
	if bye := c.read(t); bye[0] != 0xe0 || bye[2] != 0x97 {
		t.Errorf("received % x, want DISCONNECT 0x97", bye)
	}
	c.wantClosed(t)
	c, _ = s.resume(t, "alice", hello("will/small", 100))
	c.alive(t, "who has a small will")
	s.leave(t, c)
	if m := watcher.receive(t); m.topic != "will/small" {
		t.Errorf("the will on %s was published", m.topic)
	}
}

// Nothing that others have stored keeps a command from the node.
func TestNodeNeedsNoRoom(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		keeping(t.TempDir() + "/broker.db")(c)
		c.Limits.MaxStoredMessages = 1
	})
	n := s.dialNode(t)
	n.subscribe(t, "x", 1)
	s.absent(t, "alice")
	publisher := s.connect(t, "carol", "")
	for i := range 100 {
		publisher.publish(t, "x", fmt.Sprint(i), 1)
		n.want(t, "x", fmt.Sprint(i))
	}
}

// A restart counts the same.
func TestStoredIsCountedAgain(t *testing.T) {
	var before broker.Stats
	lives(t, nil, func(s *site) {
		s.absent(t, "alice")
		s.absent(t, "bobby")
		publisher := s.connect(t, "carol", "")
		for range 10 {
			publisher.publish(t, "x", "1", 1)
			publisher.publish(t, "x", "2", 2)
		}
		before = s.Stats()
	}, func(s *site) {
		if now := s.Stats(); now.StoredMessages != 40 || now.StoredBytes != before.StoredBytes {
			t.Errorf("%d messages, %d bytes, and %d and %d before the restart", now.StoredMessages, now.StoredBytes, before.StoredMessages, before.StoredBytes)
		}
		s.ends(t, "alice")
		s.ends(t, "bobby")
		if st := s.Stats(); st.StoredMessages != 0 || st.StoredBytes != 0 {
			t.Errorf("without sessions %d messages and %d bytes are left", st.StoredMessages, st.StoredBytes)
		}
	})
}
