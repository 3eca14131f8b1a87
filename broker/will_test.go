package broker_test

import (
	"testing"

	"pinseal/broker"
)

func TestWill(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "#", 1)
	die := func(flags byte, topic, payload string) {
		c := s.dialRaw(t, "alice")
		c.send(t, packet(0x10, str("MQTT"), []byte{4, flags, 0, 60}, str(""), str(topic), str(payload)))
		c.read(t)
		_ = c.NetConn().Close()
	}
	die(6, "w", "bye")
	bob.want(t, "w", "bye")
	die(6, "e", "")
	bob.want(t, "e", "")

	polite := s.dialRaw(t, "alice")
	polite.send(t, packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str(""), str("never"), str("x")), []byte{0xe0, 0})
	polite.wantClosed(t)

	asked := s.dialRaw(t, "alice") // DISCONNECT with will; mochi overlooks a reason code without properties
	asked.send(t, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str(""), []byte{0}, str("asked"), str("x")), []byte{0xe0, 1, 4})
	bob.want(t, "asked", "x")
}

// A will that was allowed when the client connected is judged again when it is due.
func TestWillAfterPolicyChange(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "#", 1)
	c := s.dialRaw(t, "alice")
	c.send(t, packet(0x10, str("MQTT"), []byte{4, 0x26, 0, 60}, str(""), str("w"), str("x")))
	c.read(t)
	if err := s.SetPolicy(&broker.Policy{Rules: []broker.Rule{{Identity: "bob", Publish: []string{"#"}, Subscribe: []string{"#"}}}}); err != nil {
		t.Fatal(err)
	}
	_ = c.NetConn().Close()
	eventually(t, "denied", func() bool { return s.Stats().ByReason[broker.ReasonWill] == 1 })
	bob.publish(t, "after", "y", 1)
	bob.want(t, "after", "y")
}

// delayedWill connects and dies with a will that waits for a second.
func (s *site) delayedWill(t *testing.T, id string, sessionExpiry ...byte) {
	t.Helper()
	c := s.dialRaw(t, "alice")
	c.send(t, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, byte(len(sessionExpiry))}, sessionExpiry,
		str(id), []byte{5, 0x18, 0, 0, 0, 1}, str("w"), str(id)))
	c.read(t)
	_ = c.NetConn().Close()
}

func TestDelayedWill(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) { c.Limits.MaxStoredSessions = 1 })
	expiry := []byte{0x11, 0, 0, 0, 60}
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "#", 1)
	s.delayedWill(t, "no session to wait with")
	bob.want(t, "w", "no session to wait with")
	s.delayedWill(t, "forgotten", expiry...)
	eventually(t, "first gone", func() bool { return s.Stats().Connections == 1 })
	s.delayedWill(t, "waits", expiry...)
	bob.want(t, "w", "forgotten") // its session has ended
	bob.want(t, "w", "waits")

	s.delayedWill(t, "no longer permitted", expiry...)
	eventually(t, "last gone", func() bool { return s.Stats().Connections == 1 })
	if err := s.SetPolicy(&broker.Policy{Rules: []broker.Rule{{Identity: "bob", Publish: []string{"#"}, Subscribe: []string{"#"}}}}); err != nil {
		t.Fatal(err)
	}
	// bob's own will comes after the time of alice's, and nothing before it.
	c := s.dialRaw(t, "bob")
	c.send(t, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 5, 0x11, 0, 0, 0, 60}, str("2"), []byte{5, 0x18, 0, 0, 0, 2}, str("w"), str("bob's")))
	c.read(t)
	_ = c.NetConn().Close()
	bob.want(t, "w", "bob's")
}
