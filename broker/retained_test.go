package broker_test

import (
	"testing"

	"pinseal/broker"
)

func TestRetainedMessagesAreLimited(t *testing.T) {
	for name, change := range map[string]func(*broker.Limits){
		"messages": func(l *broker.Limits) { l.MaxRetained = 2 },
		"bytes":    func(l *broker.Limits) { l.MaxRetainedBytes = 2 * len("a1") },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { change(&c.Limits) })
			others := s.Stats().Retained
			c := s.dialRaw(t, "alice")
			c.send(t, connect5("id"))
			c.read(t)
			publish := func(topic, payload string, code byte) {
				t.Helper()
				c.send(t, packet(0x33, str(topic), []byte{0, 7, 0}, []byte(payload)))
				ack := c.read(t)
				if got := append(ack, 0)[min(4, len(ack))]; ack[0] != 0x40 || got != code {
					t.Errorf("%s: PUBACK % x, want code %#x", topic, ack, code)
				}
			}
			publish("a", "1", 0)
			publish("b", "1", 0)
			publish("c", "1", 0x97)
			publish("a", "2", 0) // in the place of another
			publish("b", "", 0)  // makes room
			publish("c", "1", 0)
			await(t, s.connect(t, "bob", "").Publish("d", 1, true, "refused, which MQTT 3.1.1 cannot say"))
			await(t, s.dialNode(t).Publish("n", 1, true, "the node is not limited"))
			if n := s.Stats().Retained - others; n != 3 {
				t.Errorf("%d messages retained, want 3", n)
			}
			if n := s.Stats().ByReason[broker.ReasonRetainedFull]; n != 2 {
				t.Errorf("%d counted, want 2", n)
			}
		})
	}
}

// One identity leaves others room for retained messages. Each message is its last publisher's, wills are too, and a restart
// changes nothing.
func TestRetainedMessagesOfOneIdentityAreLimited(t *testing.T) {
	for name, change := range map[string]func(*broker.Limits){
		"messages": func(l *broker.Limits) { l.MaxRetainedPerIdentity = 3 },
		"bytes":    func(l *broker.Limits) { l.MaxRetainedBytesPerIdentity = 3 * len("a1") },
	} {
		t.Run(name, func(t *testing.T) {
			publish := func(s *site, identity, topic, payload string, code byte) {
				t.Helper()
				c, _ := s.resume(t, identity, connect5(""))
				c.send(t, packet(0x33, str(topic), []byte{0, 7, 0}, []byte(payload)))
				ack := c.read(t)
				if got := append(ack, 0)[min(4, len(ack))]; ack[0] != 0x40 || got != code {
					t.Errorf("%s of %s: PUBACK % x, want code %#x", topic, identity, ack, code)
				}
			}
			lives(t, func(c *broker.Config) { change(&c.Limits) }, func(s *site) {
				will := packet(0x10, str("MQTT"), []byte{4, 2 | 4 | 1<<5, 0, 60}, str(""), str("w"), str("1"))
				c, _ := s.resume(t, "alice", will)
				others := s.Stats().Retained
				_ = c.NetConn().Close()
				eventually(t, "the will is retained", func() bool { return s.Stats().Retained == others+1 })
				publish(s, "alice", "a", "1", 0)
				publish(s, "alice", "b", "1", 0)
				publish(s, "alice", "c", "1", 0x97)
				publish(s, "alice", "a", "2", 0)
				publish(s, "bob", "c", "1", 0)
				publish(s, "bob", "a", "3", 0) // is bob's now
				publish(s, "alice", "d", "1", 0)
			}, func(s *site) {
				publish(s, "alice", "e", "1", 0x97)
				publish(s, "alice", "a", "4", 0x97)
				publish(s, "bob", "e", "1", 0)
				publish(s, "bob", "f", "1", 0x97)
				publish(s, "bob", "w", "", 0) // makes room for alice
				publish(s, "alice", "f", "1", 0)
				if n := s.Stats().ByReason[broker.ReasonRetainedFull]; n != 3 {
					t.Errorf("%d counted, want 3", n)
				}
				l := broker.DefaultLimits()
				l.MaxRetained, l.MaxRetainedBytes, l.MaxRetainedPerIdentity, l.MaxRetainedBytesPerIdentity = 1, 1, 1, 1
				s.SetLimits(l)
				publish(s, "alice", "f", "2", 0) // takes no more than what it replaces
				publish(s, "alice", "f", "10", 0x97)
			})
		})
	}
}
