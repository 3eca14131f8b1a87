package broker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
	"pinseal/broker/internal/store"
)

// keeping makes a broker store what survives at path.
func keeping(path string) func(*broker.Config) {
	return func(c *broker.Config) { c.Persistence.Path = path }
}

// lives runs brokers one after the other on the same file; each part sees a life.
func lives(t *testing.T, change func(*broker.Config), parts ...func(*site)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "broker.db")
	for _, part := range parts {
		s := start(t, func(c *broker.Config) {
			keeping(path)(c)
			if change != nil {
				change(c)
			}
		})
		part(s)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// persistent5 asks for a session that outlives the connection by an hour.
func persistent5(cleanStart bool) []byte {
	flags := byte(0)
	if cleanStart {
		flags = 2
	}
	return packet(0x10, str("MQTT"), []byte{5, flags, 0, 60, 5, 0x11, 0, 0, 0x0e, 0x10}, str("id"))
}

// resume connects and reports whether there was a session.
func (s *site) resume(t *testing.T, identity string, hello []byte) (c raw, present bool) {
	t.Helper()
	c = s.dialRaw(t, identity)
	c.send(t, hello)
	ack := c.read(t)
	if ack[0] != 0x20 || ack[3] != 0 {
		t.Fatalf("CONNACK % x", ack)
	}
	return c, ack[2] == 1
}

// leave goes without DISCONNECT, and waits until the broker has noticed.
func (s *site) leave(t *testing.T, c raw) {
	t.Helper()
	n := s.Stats().Connections
	_ = c.Close()
	eventually(t, "gone", func() bool { return s.Stats().Connections == n-1 })
}

func (r raw) subscribes(t *testing.T, version byte, filter string, options byte) {
	t.Helper()
	head := []byte{0, 1}
	if version == 5 {
		head = []byte{0, 1, 0}
	}
	r.send(t, packet(0x82, head, str(filter), []byte{options}))
	if ack := r.read(t); ack[0] != 0x90 || ack[len(ack)-1] > 2 {
		t.Fatalf("SUBACK % x", ack)
	}
}

// nothingMore fails if anything comes before the answer to a PINGREQ.
func (r raw) nothingMore(t *testing.T) {
	t.Helper()
	r.send(t, []byte{0xc0, 0})
	if m := r.read(t); m[0] != 0xd0 {
		t.Errorf("received % x, want the answer to PINGREQ", m)
	}
}

// retained returns the topics of all retained messages, sorted, but those of $SYS.
func (s *site) retained(t *testing.T) (topics []string) {
	t.Helper()
	c, _ := s.resume(t, "alice", connect311("who asks"))
	c.subscribes(t, 4, "#", 0)
	c.send(t, []byte{0xc0, 0})
	for m := c.read(t); m[0] != 0xd0; m = c.read(t) {
		topics = append(topics, string(m[4:4+int(m[3])]))
	}
	slices.Sort(topics)
	return topics
}

func TestSessionSurvivesRestart(t *testing.T) {
	var ids [][]byte
	lives(t, nil, func(s *site) {
		c, present := s.resume(t, "alice", persistent311("id"))
		if present {
			t.Error("there is a session before the first")
		}
		c.subscribes(t, 4, "x/#", 2)
		bob := s.connect(t, "bob", "")
		for n := range 3 {
			bob.publish(t, "x/"+fmt.Sprint(n), "sent", byte(1+n%2))
			ids = append(ids, c.read(t)[7:9])
		}
		c.send(t, packet(0x40, ids[0]))
		c.nothingMore(t)
		s.leave(t, c)
		for n := range 20 {
			bob.publish(t, "x/"+fmt.Sprint(n), "waits", byte(1+n%2))
		}
	}, func(s *site) {
		if st := s.Stats(); st.Sessions != 1 || st.Subscriptions != 1 {
			t.Errorf("%d sessions with %d subscriptions are back", st.Sessions, st.Subscriptions)
		}
		c, present := s.resume(t, "alice", persistent311("id"))
		if !present {
			t.Fatal("the session is lost")
		}
		for i, first := range []byte{0x3c, 0x3a} {
			if m := c.read(t); m[0] != first || !bytes.Equal(m[7:9], ids[1+i]) || !strings.HasSuffix(string(m), "sent") {
				t.Errorf("received % x, want the message sent before as a duplicate with its identifier % x", m, ids[1+i])
			}
		}
		for n := range 20 {
			topic := "x/" + fmt.Sprint(n)
			m := c.read(t)
			if m[0] != 0x30|byte(1+n%2)<<1 || string(m[4:4+len(topic)]) != topic {
				t.Errorf("received % x, want number %d for the first time", m, n)
			}
			if slices.ContainsFunc(ids[1:], func(id []byte) bool { return bytes.Equal(id, m[4+len(topic):6+len(topic)]) }) {
				t.Errorf("identifier of % x is in use", m)
			}
		}
		bob := s.connect(t, "bob", "")
		bob.publish(t, "x/new", "new", 1)
		if m := c.read(t); !strings.HasSuffix(string(m), "new") {
			t.Errorf("received % x, want what was just published", m)
		}
	})
}

// A QoS 2 message goes through once, wherever its four packets are cut.
func TestQoS2SurvivesRestart(t *testing.T) {
	var id []byte
	ack := func(first byte) []byte { return packet(first, []byte{0, 9}) }
	publish := func(first byte) []byte { return packet(first, str("x"), []byte{0, 9}, []byte("once")) }
	expect := func(c raw, want ...byte) {
		t.Helper()
		if got := c.read(t); !bytes.Equal(got, want) {
			t.Errorf("received % x, want % x", got, want)
		}
	}
	lives(t, nil, func(s *site) {
		c, _ := s.resume(t, "alice", persistent311("reader"))
		c.subscribes(t, 4, "x", 2)
		p, _ := s.resume(t, "alice", persistent311("writer"))
		p.send(t, publish(0x34))
		expect(p, 0x50, 2, 0, 9)
		m := c.read(t)
		if id = m[5:7]; m[0] != 0x34 {
			t.Errorf("received % x", m)
		}
		c.send(t, packet(0x50, id))
		expect(c, append([]byte{0x62, 2}, id...)...)
	}, func(s *site) {
		c, _ := s.resume(t, "alice", persistent311("reader"))
		expect(c, append([]byte{0x62, 2}, id...)...) // only what the client waits for
		p, _ := s.resume(t, "alice", persistent311("writer"))
		p.send(t, publish(0x3c))
		expect(p, 0x50, 2, 0, 9)
		c.nothingMore(t)
		c.send(t, packet(0x70, id))
		p.send(t, ack(0x62))
		expect(p, 0x70, 2, 0, 9)
		c.nothingMore(t)
	}, func(s *site) {
		c, _ := s.resume(t, "alice", persistent311("reader"))
		c.nothingMore(t)
		p, _ := s.resume(t, "alice", persistent311("writer"))
		p.send(t, publish(0x34)) // the identifier is free again
		expect(p, 0x50, 2, 0, 9)
		if m := c.read(t); m[0] != 0x34 {
			t.Errorf("received % x, want a new message", m)
		}
	})
}

func TestRetainedSurvivesRestart(t *testing.T) {
	properties := slices.Concat([]byte{1, 1, 3}, str("text/plain"), []byte{8}, str("answer"), []byte{9}, str("c"), []byte{0x26}, str("k"), str("v"))
	lives(t, nil, func(s *site) {
		c, _ := s.resume(t, "alice", connect5("id"))
		lifetime := []byte{2, 0, 0, 0x0e, 0x10}
		c.send(t, packet(0x33, str("full"), []byte{0, 1, byte(len(lifetime) + len(properties))}, lifetime, properties, []byte("kept")))
		if ack := c.read(t); !bytes.Equal(ack, []byte{0x40, 2, 0, 1}) {
			t.Errorf("PUBACK % x", ack)
		}
		bob := s.connect(t, "bob", "")
		await(t, bob.Publish("changed", 1, true, "before"))
		await(t, bob.Publish("changed", 0, true, "after"))
		await(t, bob.Publish("gone", 1, true, "kept")) // and so the one before has arrived
		await(t, bob.Publish("gone", 1, true, ""))
		await(t, s.dialNode(t).Publish("node", 1, true, "the node says it again"))
	}, func(s *site) {
		if topics := s.retained(t); !slices.Equal(topics, []string{"changed", "full"}) {
			t.Errorf("%q are back", topics)
		}
		bob := s.connect(t, "bob", "")
		bob.subscribe(t, "changed", 0)
		if m := bob.receive(t); m.payload != "after" || !m.retained {
			t.Errorf("received %+v", m)
		}
		c, _ := s.resume(t, "alice", connect5("id"))
		c.subscribes(t, 5, "full", 0)
		m := c.read(t)
		at := bytes.Index(m, properties)
		if m[0] != 0x31 || at < 0 || string(m[at+len(properties):]) != "kept" {
			t.Fatalf("received % x, want the properties % x", m, properties)
		}
		if left := m[at-5 : at]; left[0] != 2 || left[3] < 0x0d || left[3] == 0x0e && left[4] > 0x10 {
			t.Errorf("message expiry % x, want what is left of an hour", left)
		}
	})
}

func TestDeniedSubscriptionDoesNotSurviveRestart(t *testing.T) {
	policy := everything()
	lives(t, func(c *broker.Config) { c.Policy = policy }, func(s *site) {
		c, _ := s.resume(t, "alice", persistent311("id"))
		c.subscribes(t, 4, "x", 1)
		c.subscribes(t, 4, "y", 1)
		s.leave(t, c)
		s.connect(t, "bob", "").publish(t, "x", "secret", 1)
		policy = &broker.Policy{Rules: []broker.Rule{{Identity: "bob", Publish: []string{"#"}}, {Identity: "alice", Subscribe: []string{"y"}}}}
	}, func(s *site) {
		if n := s.Stats().Subscriptions; n != 1 {
			t.Errorf("%d subscriptions, want 1", n)
		}
		bob := s.connect(t, "bob", "")
		bob.publish(t, "x", "secret", 1)
		bob.publish(t, "y", "open", 1)
		c, _ := s.resume(t, "alice", persistent311("id"))
		if m := c.read(t); !strings.HasSuffix(string(m), "open") {
			t.Errorf("received % x", m)
		}
		policy = everything()
	}, func(s *site) {
		if n := s.Stats().Subscriptions; n != 1 {
			t.Errorf("%d subscriptions, want that the denied one does not come back", n)
		}
	})
}

func TestSessionEndsBetweenLives(t *testing.T) {
	t.Parallel() // it waits for clocks
	lives(t, func(c *broker.Config) { c.Limits.MaxSessionExpiry = 2 * time.Second }, func(s *site) {
		c, _ := s.resume(t, "alice", persistent311("id"))
		c.subscribes(t, 4, "x", 1)
		s.leave(t, c)
		s.connect(t, "bob", "").publish(t, "x", "waits", 1)
	}, func(s *site) {
		if n := s.Stats().Sessions; n != 1 {
			t.Errorf("%d sessions, want 1", n)
		}
		s.delayedWill(t, "w", 0x11, 0, 0, 0, 2) // in a session that survives as well
		eventually(t, "gone", func() bool { return s.Stats().Accepted == 1 && s.Stats().Connections == 0 })
		left := time.Now()
		// Its end is stored in whole seconds, rounded up.
		eventually(t, "its time is over", func() bool { return time.Since(left) > 3*time.Second })
	}, func(s *site) {
		if st := s.Stats(); st.Sessions != 0 || st.Subscriptions != 0 {
			t.Errorf("%d sessions, %d subscriptions, want none", st.Sessions, st.Subscriptions)
		}
	})
}

func TestCleanStartLeavesNothing(t *testing.T) {
	lives(t, nil, func(s *site) {
		c, _ := s.resume(t, "alice", persistent5(true))
		c.subscribes(t, 5, "x", 1)
		s.leave(t, c)
		s.connect(t, "bob", "").publish(t, "x", "waits", 1)
		c, present := s.resume(t, "alice", persistent5(true))
		if present {
			t.Error("the session goes on")
		}
		c.nothingMore(t)
		s.leave(t, c)
	}, func(s *site) {
		if n := s.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions are back", n)
		}
		c, present := s.resume(t, "alice", persistent5(false))
		if !present {
			t.Error("the new session is lost")
		}
		c.nothingMore(t)
		c.send(t, packet(0xe0, []byte{0, 5, 0x11, 0, 0, 0, 0})) // it is to end with the connection
		c.wantClosed(t)
		eventually(t, "ended", func() bool { return s.Stats().Sessions == 0 })
	}, func(s *site) {
		if n := s.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions are back", n)
		}
	})
}

// What the node does itself costs no write: commands to it, its states, its verdicts.
func TestNodeWritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := start(t, keeping(path))
	before := must(os.ReadFile(path))(t)
	n, alice := s.dialNode(t), s.connect(t, "alice", "")
	n.subscribe(t, "led", 1)
	alice.subscribe(t, "state", 1)
	for range 100 {
		alice.publish(t, "led", "on", 1)
		n.want(t, "led", "on")
		await(t, n.Publish("state", 1, true, "ON"))
		alice.want(t, "state", "ON")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, must(os.ReadFile(path))(t)) {
		t.Error("the file was written to")
	}
}

func TestDamagedStoreIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	rotten := bytes.Repeat([]byte("rot"), 5000)
	if err := os.WriteFile(path, rotten, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, keeping(path))
	await(t, s.connect(t, "alice", "").Publish("x", 1, true, "kept"))
	if log := s.log.String(); !strings.Contains(log, "set aside") || !strings.Contains(log, path+".damaged") {
		t.Errorf("the log does not say so:\n%s", log)
	}
	if !bytes.Equal(must(os.ReadFile(path+".damaged"))(t), rotten) {
		t.Error("the damaged file was changed")
	}
}

// A crash between two commits may leave a delivery whose message is gone, because its client had acknowledged it: that is
// no damage.
func TestDeliveryWithoutItsMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := start(t, keeping(path))
	c, _ := s.resume(t, "alice", persistent311("id"))
	c.subscribes(t, 4, "x", 1)
	s.leave(t, c)
	bob := s.connect(t, "bob", "")
	bob.publish(t, "x", "acknowledged", 1)
	bob.publish(t, "x", "waits", 1)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	db := must(store.Open(store.Config{Path: path, Buckets: []string{"messages"}}))(t)
	var first string
	if err := db.Read("messages", func(key string, value []byte) error {
		if strings.HasSuffix(string(value), "acknowledged") {
			first = key
		}
		return nil
	}); err != nil || first == "" {
		t.Fatalf("message %q, %v", first, err)
	}
	db.Delete("messages", first)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	for range 2 {
		s = start(t, keeping(path))
		c, present := s.resume(t, "alice", persistent311("id"))
		if !present {
			t.Fatal("the session is lost")
		}
		if m := c.read(t); !strings.HasSuffix(string(m), "waits") {
			t.Errorf("received % x", m)
		}
		c.nothingMore(t)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoreInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	start(t, keeping(path))
	second := must(broker.New(broker.Config{Node: node, Policy: everything(), Persistence: broker.Persistence{Path: path}}))(t)
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), path) {
		t.Errorf("a second broker on the same file: %v", err)
	}
}

// With an interval nobody waits for the disk, and an orderly end loses nothing.
func TestInterval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	hourly := func(c *broker.Config) {
		keeping(path)(c)
		c.Persistence.Interval = time.Hour
	}
	s := start(t, hourly)
	before := must(os.ReadFile(path))(t)
	c, _ := s.resume(t, "alice", persistent311("id"))
	c.subscribes(t, 4, "x", 1)
	s.leave(t, c)
	bob := s.connect(t, "bob", "")
	for n := range 10 {
		bob.publish(t, "x", fmt.Sprint(n), 1)
	}
	if !bytes.Equal(before, must(os.ReadFile(path))(t)) {
		t.Error("it was written before its time")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, hourly)
	c, _ = s.resume(t, "alice", persistent311("id"))
	for n := range 10 {
		if m := c.read(t); !strings.HasSuffix(string(m), fmt.Sprint(n)) {
			t.Errorf("received % x, want number %d", m, n)
		}
	}
}

// A will that waits for its delay goes on waiting.
func TestDelayedWillSurvivesRestart(t *testing.T) {
	t.Parallel() // it waits for clocks
	lives(t, nil, func(s *site) {
		s.delayedWill(t, "id", 0x11, 0, 0, 0, 60)
		eventually(t, "gone", func() bool { return s.Stats().Connections == 0 })
	}, func(s *site) {
		bob := s.connect(t, "bob", "")
		bob.subscribe(t, "w", 0)
		bob.want(t, "w", "id")
	}, func(s *site) {
		if topics := s.retained(t); len(topics) != 0 {
			t.Errorf("%q are retained", topics)
		}
		bob := s.connect(t, "bob", "")
		bob.subscribe(t, "#", 0)
		s.delayedWill(t, "another", 0x11, 0, 0, 0, 60)
		bob.want(t, "w", "another") // the first does not come again before
	})
}

// A broker that was killed could not publish the wills of its clients.
func TestWillAfterCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := start(t, keeping(path))
	c, _ := s.resume(t, "alice", packet(0x10, str("MQTT"), []byte{4, 4 | 0x20, 0, 60}, str("id"), str("w"), str("bye")))
	c.subscribes(t, 4, "x", 1) // and with its answer all of it is on disk
	crashed := path + ".crashed"
	if err := os.WriteFile(crashed, must(os.ReadFile(path))(t), 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, keeping(crashed))
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "w", 0)
	bob.want(t, "w", "bye")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, keeping(crashed))
	if topics := s.retained(t); !slices.Equal(topics, []string{"w"}) {
		t.Errorf("%q are retained, want the will", topics)
	}
}

// However often the broker starts meanwhile, a will comes when its delay is over, not sooner.
func TestDelayOfWillIsNotShortenedTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := start(t, keeping(path))
	c, _ := s.resume(t, "alice", packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 5, 0x11, 0, 0, 0x0e, 0x10}, str("id"),
		[]byte{5, 0x18, 0, 0, 0x0e, 0x10}, str("w"), str("bye")))
	s.leave(t, c)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	session := func(change func([]byte) []byte) (value []byte) {
		t.Helper()
		db := must(store.Open(store.Config{Path: path, Buckets: []string{"sessions"}}))(t)
		err := db.Read("sessions", func(_ string, v []byte) error {
			value = bytes.Clone(v)
			return nil
		})
		if value = change(value); err == nil {
			db.Put("sessions", "alice:id", value, false)
		}
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		return value
	}
	// It went half an hour ago: of its flags, version and keep, the time follows.
	stored := session(func(v []byte) []byte {
		at := 2 + len(binary.AppendUvarint(nil, 3600))
		away, n := binary.Uvarint(v[at:])
		return slices.Concat(v[:at], binary.AppendUvarint(nil, away-1800), v[at+n:])
	})
	if err := start(t, keeping(path)).stop(); err != nil {
		t.Fatal(err)
	}
	if again := session(func(v []byte) []byte { return v }); !bytes.Equal(again, stored) {
		t.Errorf("the session is stored as % x, want as before % x", again, stored)
	}
}
