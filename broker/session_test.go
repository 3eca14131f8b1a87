package broker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"pinseal/broker"
)

func persistent311(id string) []byte { return packet(0x10, str("MQTT"), []byte{4, 0, 0, 60}, str(id)) }

func TestConnectRefused(t *testing.T) {
	will := func(flags byte, topic string) []byte {
		return packet(0x10, str("MQTT"), []byte{4, flags, 0, 60}, str("id"), str(topic), str("bye"))
	}
	will5 := packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str("id"), []byte{0}, str("state/x"), str("bye"))
	named := func(flags byte, name string) []byte {
		return packet(0x10, str("MQTT"), []byte{4, flags, 0, 60}, str("id"), str(name))
	}
	for _, tc := range []struct {
		name, identity string
		connect        []byte
		connack        byte // code
		reason         broker.Reason
	}{
		{"name of the node", node, connect311("id"), 5, broker.ReasonIdentity},
		{"name of the node, MQTT 5", node, connect5("id"), 0x87, broker.ReasonIdentity},
		{"other user name", "alice", named(0x82, "bob"), 5, broker.ReasonUsername},
		{"client id too long", "alice", connect311(strings.Repeat("x", 300)), 2, broker.ReasonClientID},
		{"client id too long, MQTT 5", "alice", connect5(strings.Repeat("x", 300)), 0x85, broker.ReasonClientID},
		{"session without id", "alice", persistent311(""), 2, broker.ReasonClientID},
		{"enhanced authentication", "alice", connect5("id", 0x15, 0, 1, 'm'), 0x8c, broker.ReasonAuthMethod},
		{"will not permitted", "alice", will(6, "other"), 5, broker.ReasonWill},
		{"will on a reserved topic", "alice", will(6, "state/x"), 5, broker.ReasonWill},
		{"will on a reserved topic, MQTT 5", "alice", will5, 0x87, broker.ReasonWill},
		{"retained will", "alice", will(0x26, "led"), 5, broker.ReasonWill},
		{"MQTT 3.1", "alice", packet(0x10, str("MQIsdp"), []byte{3, 2, 0, 60}, str("id")), 1, broker.ReasonVersion},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { c.Policy = commands() })
			c := s.dialRaw(t, tc.identity)
			c.send(t, tc.connect)
			if ack := c.read(t); ack[0] != 0x20 || ack[3] != tc.connack {
				t.Errorf("CONNACK % x, want code %#x", ack, tc.connack)
			}
			c.wantClosed(t)
			eventually(t, "counted", func() bool { return s.Stats().ByReason[tc.reason] == 1 })
			if n := s.Stats().Accepted; n != 0 {
				t.Errorf("%d accepted", n)
			}
		})
	}
}

func TestConnectAccepted(t *testing.T) {
	for _, tc := range []struct {
		name    string
		connect []byte
	}{
		{"own user name and a password", packet(0x10, str("MQTT"), []byte{4, 0xc2, 0, 60}, str("id"), str("alice"), str("pw"))},
		{"empty password", packet(0x10, str("MQTT"), []byte{4, 0xc2, 0, 60}, str("id"), str("alice"), str(""))},
		{"empty user name", packet(0x10, str("MQTT"), []byte{4, 0x82, 0, 60}, str("id"), str(""))},
		{"no id", connect311("")},
		{"any id", connect311("bob:x y/#")},
		{"will", packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str("id"), str("led"), str("bye"))},
		{"will without payload", packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str("id"), str("led"), str(""))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { c.Policy = commands() })
			c := s.dialRaw(t, "alice")
			c.send(t, tc.connect)
			if ack := c.read(t); !bytes.Equal(ack, []byte{0x20, 2, 0, 0}) {
				t.Errorf("CONNACK % x", ack)
			}
		})
	}
}

func TestClientIDIsIdentity(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Listeners[0].ClientIDIsIdentity = true })
	if _, err := s.tryConnect(t, "alice", "other", nil); !errors.Is(err, packets.ErrorRefusedIDRejected) {
		t.Errorf("other id: %v, want it rejected", err)
	}
	for _, id := range []string{"alice", ""} {
		if _, err := s.tryConnect(t, "alice", id, nil); err != nil {
			t.Errorf("id %q: %v", id, err)
		}
	}
	c := s.dialRaw(t, "bob")
	c.send(t, connect5(""))
	if ack := c.read(t); !bytes.Contains(ack, append([]byte{0x12}, str("bob")...)) {
		t.Errorf("CONNACK % x does not assign the identity as client id", ack)
	}
}

func TestAssignedClientIDIsRandom(t *testing.T) {
	s := start(t, nil)
	var acks [2]string
	for i := range acks {
		c := s.dialRaw(t, "alice")
		c.send(t, connect5(""))
		ack := c.read(t)
		if !bytes.Contains(ack, []byte{0x12, 0, 26}) || bytes.Contains(ack, []byte("alice:")) {
			t.Errorf("CONNACK % x: want an assigned id of 26 characters without the identity", ack)
		}
		acks[i] = string(ack)
	}
	if acks[0] == acks[1] {
		t.Error("two clients were given the same id")
	}
}

// mochi would let bob inherit alice's session.
func TestSessionsBelongToIdentities(t *testing.T) {
	s := start(t, nil)
	alice := s.dialRaw(t, "alice")
	alice.send(t, persistent311("same"), packet(0x82, []byte{0, 1}, str("x"), []byte{1}))
	alice.read(t)
	alice.read(t)
	bob := s.dialRaw(t, "bob")
	bob.send(t, persistent311("same"))
	if ack := bob.read(t); ack[2] != 0 || ack[3] != 0 {
		t.Errorf("CONNACK % x, want a new session", ack)
	}
	bob.publishes(t, 4, 1, false, "x")
	if m := alice.read(t); m[0]&0xf0 != 0x30 {
		t.Errorf("alice received % x, want her message", m)
	}
	bob.send(t, []byte{0xc0, 0})
	if m := bob.read(t); m[0] != 0xd0 {
		t.Errorf("bob received % x, want the answer to PINGREQ only", m)
	}
}

func TestTakeOver(t *testing.T) {
	s := start(t, nil)
	first := s.dialRaw(t, "alice")
	first.send(t, connect5("id", 0x11, 0, 0, 0, 60), packet(0x82, []byte{0, 1, 0}, str("x"), []byte{1}))
	first.read(t)
	first.read(t)
	second := s.dialRaw(t, "alice")
	second.send(t, packet(0x10, str("MQTT"), []byte{5, 0, 0, 60, 5, 0x11, 0, 0, 0, 60}, str("id")))
	if ack := second.read(t); ack[2] == ack[1] || !bytes.Contains(ack[:4], []byte{1, 0}) {
		t.Errorf("CONNACK % x, want the session to be present", ack)
	}
	if bye := first.read(t); bye[0] != 0xe0 || bye[2] != 0x8e {
		t.Errorf("the first connection received % x, want DISCONNECT 0x8e", bye)
	}
	first.wantClosed(t)
	s.connect(t, "bob", "").publish(t, "x", "hello", 1)
	if m := second.read(t); m[0]&0xf0 != 0x30 {
		t.Errorf("the second connection received % x, want the message", m)
	}
	if n := s.Stats().ByReason[broker.ReasonTakenOver]; n != 1 {
		t.Errorf("%d taken over, want 1", n)
	}
}

// stuck is a log handler that keeps the goroutine of a connection from ending.
type stuck struct {
	slog.Handler
	reason         broker.Reason // of the line that does not return, the first time
	stuck          atomic.Bool
	entered, leave chan struct{}
}

func (h *stuck) Enabled(context.Context, slog.Level) bool { return true }

func (h *stuck) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" && a.Value.String() == string(h.reason) {
			if h.stuck.CompareAndSwap(false, true) {
				close(h.entered)
				<-h.leave
			}
		}
		return true
	})
	return nil
}

// In bare mochi the old connection, when it comes to its end at last, deletes the new one.
func TestTakeOverWaitsForTheOldConnection(t *testing.T) {
	h := &stuck{Handler: slog.DiscardHandler, reason: broker.ReasonWill, entered: make(chan struct{}), leave: make(chan struct{})}
	s := start(t, func(c *broker.Config) { c.Log = slog.New(h) })
	first := s.dialRaw(t, "alice")
	first.send(t, packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str("id"), str("w"), str("bye")))
	first.read(t)
	eventually(t, "admitted", func() bool { return s.Stats().Accepted == 1 })
	if err := s.SetPolicy(&broker.Policy{Rules: []broker.Rule{{Identity: "*", Publish: []string{"x"}, Subscribe: []string{"x"}}}}); err != nil {
		t.Fatal(err)
	}
	second := s.dialRaw(t, "alice")
	second.send(t, connect311("id"), packet(0x82, []byte{0, 1}, str("x"), []byte{0}))
	<-h.entered // the will of the first is refused, and its goroutine stays there
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = readPacket(second)
	}()
	select {
	case <-answered:
		t.Error("the second connection was answered before the first had let go of the session")
	case <-time.After(100 * time.Millisecond): // nothing is to happen
	}
	close(h.leave)
	<-answered
	second.read(t)
	s.connect(t, "bob", "").publish(t, "x", "hello", 1)
	if m := second.read(t); m[0] != 0x30 {
		t.Errorf("received % x, want the message", m)
	}
}

// Many connections fight for one session. In bare mochi the loser's goroutine may delete the winner.
func TestTakeOverStorm(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	for range 50 {
		c := s.dialRaw(t, "alice")
		c.send(t, connect311("id"), packet(0x82, []byte{0, 1}, str("x"), []byte{0}))
		c.read(t)
		c.read(t)
	}
	last := s.dialRaw(t, "alice")
	last.send(t, connect311("id"), packet(0x82, []byte{0, 1}, str("x"), []byte{0}))
	last.read(t)
	last.read(t)
	eventually(t, "one session left", func() bool { st := s.Stats(); return st.Connections == 2 && st.Sessions == 2 })
	bob.publish(t, "x", "hello", 1)
	if m := last.read(t); m[0] != 0x30 {
		t.Errorf("received % x, want the message", m)
	}
}

func TestStoredMessagesAreDelivered(t *testing.T) {
	s := start(t, nil)
	keep := func(o *paho.ClientOptions) { o.SetCleanSession(false) }
	alice := must(s.tryConnect(t, "alice", "id", keep))(t)
	alice.subscribe(t, "x", 1)
	alice.Disconnect(0)
	eventually(t, "gone", func() bool { return s.Stats().Connections == 0 })
	bob := s.connect(t, "bob", "")
	bob.publish(t, "x", "while away", 1)
	again := must(s.tryConnect(t, "alice", "id", keep))(t)
	again.want(t, "x", "while away")
}

// mochi stores the second of arrival and sorts by that: within a second the order is random.
func TestStoredMessagesKeepTheirOrder(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	const each = 100
	for round := range 3 {
		c := s.dialRaw(t, "alice")
		c.send(t, persistent311("id"))
		c.read(t)
		for n := range round * each { // all that was never acknowledged comes again, in its order
			if m := c.read(t); string(m[len(m)-3:]) != fmt.Sprintf("%03d", n) {
				t.Fatalf("round %d: message %d is %q", round, n, m)
			}
		}
		c.send(t, packet(0x82, []byte{0xff, 0xff}, str("x"), []byte{1}))
		if ack := c.read(t); ack[0] != 0x90 {
			t.Fatalf("received % x, want SUBACK", ack)
		}
		_ = c.Close()
		eventually(t, "gone", func() bool { return s.Stats().Connections == 1 })
		for n := range each {
			bob.publish(t, "x", fmt.Sprintf("%03d", round*each+n), 1)
		}
	}
}

// What was stored is sent first, even if the client takes its time and more arrives meanwhile.
func TestNewMessagesDoNotOvertakeStoredOnes(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		c.Limits.MaxInflightBytes = 64 << 20
		c.Limits.MaxQueuedBytes = 64 << 10
	})
	bob := s.connect(t, "bob", "")
	publish := func(from, to int) {
		for n := from; n < to; n++ {
			bob.publish(t, "x", fmt.Sprintf("%0*d", 64<<10, n), 1)
		}
	}
	c := s.dialRaw(t, "alice")
	c.send(t, persistent311("id"), packet(0x82, []byte{0, 1}, str("x"), []byte{1}))
	c.read(t)
	c.read(t)
	_ = c.Close()
	eventually(t, "gone", func() bool { return s.Stats().Connections == 1 })
	const stored, more = 200, 20
	publish(0, stored)
	c = s.dialRaw(t, "alice")
	c.send(t, persistent311("id"))
	c.read(t)
	m := c.read(t)
	publish(stored, stored+more)
	for n := range stored + more {
		if got := string(m[len(m)-3:]); got != fmt.Sprintf("%03d", n) {
			t.Fatalf("message %d is %q", n, got)
		}
		if n < stored+more-1 {
			m = c.read(t)
		}
	}
}

func TestSessionsExpire(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) { c.Limits.MaxSessionExpiry = time.Second })
	for _, connect := range [][]byte{
		persistent311("a"), packet(0x10, str("MQTT"), []byte{5, 0, 0, 60, 5, 0x11, 0xff, 0xff, 0xff, 0xff}, str("b")),
	} {
		c := s.dialRaw(t, "alice")
		c.send(t, connect, []byte{0xc0, 0})
		ack := c.read(t)
		if connect[8] == 5 && !bytes.Contains(ack, []byte{0x11, 0, 0, 0, 1}) {
			t.Errorf("CONNACK % x does not tell the session expiry", ack)
		}
		c.read(t)
		c.send(t, packet(0x82, append([]byte{0, 1}, make([]byte, int(connect[8])-4)...), str("x"), []byte{1}))
		c.read(t)
		_ = c.Close()
	}
	if n := s.Stats().Sessions; n != 2 {
		t.Fatalf("%d sessions, want 2", n)
	}
	eventually(t, "expired with their subscriptions", func() bool {
		st := s.Stats()
		return st.Sessions == 0 && st.Subscriptions == 0
	})
}

// A client must not lengthen its session beyond the limit when it disconnects.
func TestSessionExpiryAtDisconnect(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) { c.Limits.MaxSessionExpiry = time.Second })
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id", 0x11, 0, 0, 0, 1))
	c.read(t)
	c.send(t, packet(0xe0, []byte{0, 5, 0x11, 0xff, 0xff, 0xff, 0xff}))
	c.wantClosed(t)
	eventually(t, "expired", func() bool { return s.Stats().Sessions == 0 })

	c, _ = s.resume(t, "alice", connect5("id"))
	c.send(t, packet(0xe0, []byte{0, 5, 0x11, 0, 0, 0, 1}))
	if bye := c.read(t); bye[0] != 0xe0 || bye[2] != 0x82 {
		t.Errorf("received % x, want DISCONNECT 0x82: the session was to end with the connection", bye)
	}
	c.wantClosed(t)
	if n := s.Stats().ByReason[broker.ReasonMalformed]; n != 1 {
		t.Errorf("%d counted, want 1", n)
	}
}

// What a new policy takes away counts until the client has acknowledged it, if it was sent already; then comes what waits
// behind it. It is not sent again.
func TestPolicyChangeLetsTheRestThrough(t *testing.T) {
	reading := func(topics ...string) *broker.Policy {
		return &broker.Policy{Rules: []broker.Rule{
			{Identity: "alice", Subscribe: topics}, {Identity: "bob", Publish: []string{"#"}},
		}}
	}
	s := start(t, func(c *broker.Config) { c.Policy = reading("a", "b") })
	hello := packet(0x10, str("MQTT"), []byte{5, 0, 0, 60, 8, 0x11, 0, 0, 0x0e, 0x10, 0x21, 0, 1}, str("id")) // one at a time
	c, _ := s.resume(t, "alice", hello)
	c.subscribes(t, 5, "a", 1)
	c.subscribes(t, 5, "b", 1)
	bob := s.connect(t, "bob", "")
	bob.publish(t, "a", "1", 1)
	bob.publish(t, "b", "2", 1)
	first := c.read(t)
	if err := s.SetPolicy(reading("b")); err != nil {
		t.Fatal(err)
	}
	c.nothingMore(t)
	c.send(t, packet(0x40, first[5:7]))
	second := c.read(t)
	if !strings.HasSuffix(string(second), "2") {
		t.Errorf("received % x, want the message that is still allowed", second)
	}
	if err := s.SetPolicy(reading("a")); err != nil {
		t.Fatal(err)
	}
	s.leave(t, c)
	c, _ = s.resume(t, "alice", hello)
	c.nothingMore(t)
	if n := s.Stats().StoredMessages; n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// A client whose CONNACK is larger than what it takes was never let in, and leaves nothing.
func TestConnackTooLarge(t *testing.T) {
	s := start(t, nil)
	watcher := s.connect(t, "watcher", "")
	watcher.subscribe(t, "#", 0)
	c := s.dialRaw(t, "alice")
	properties := []byte{0x27, 0, 0, 0, 3, 0x11, 0, 0, 0x0e, 0x10}
	c.send(t, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, byte(len(properties))}, properties, str("id"), []byte{0}, str("w"), str("bye")))
	c.wantClosed(t)
	eventually(t, "gone", func() bool { return s.Stats().Connections == 1 })
	if n := s.Stats().Sessions; n != 1 {
		t.Errorf("%d sessions are left, want the watcher's", n)
	}
	s.connect(t, "bob", "").publish(t, "after", "1", 1)
	watcher.want(t, "after", "1")
}

func TestStoredSessionsAreLimited(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxStoredSessions = 3 })
	for n := range 10 {
		c := s.dialRaw(t, "alice")
		c.send(t, persistent311("id"+string(rune('0'+n))), packet(0x82, []byte{0, 1}, str("x"), []byte{1}))
		c.read(t)
		c.read(t)
		_ = c.Close()
	}
	eventually(t, "three left", func() bool {
		st := s.Stats()
		return st.Connections == 0 && st.Sessions == 3 && st.Subscriptions == 3
	})
	c := s.dialRaw(t, "alice")
	c.send(t, persistent311("id9"))
	if ack := c.read(t); ack[2] != 1 {
		t.Errorf("CONNACK % x, want the newest session to be kept", ack)
	}
}

func TestKeepAliveIsBounded(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) { c.Limits.MaxKeepAlive = time.Second })
	var silent []raw
	for _, asked := range [][]byte{{0, 0}, {0xff, 0xff}, {0, 2}} {
		c := s.dialRaw(t, "alice")
		c.send(t, packet(0x10, str("MQTT"), []byte{5, 2}, asked, []byte{0}, str("")))
		if ack := c.read(t); !bytes.Contains(ack, []byte{0x13, 0, 1}) {
			t.Errorf("asked for % x: CONNACK % x does not tell a keep alive of 1 s", asked, ack)
		}
		silent = append(silent, c)
	}
	c := s.dialRaw(t, "alice")
	c.send(t, packet(0x10, str("MQTT"), []byte{4, 2, 0, 0}, str("")))
	c.read(t)
	for _, c := range silent { // after 1.5 s
		if bye := c.read(t); bye[0] != 0xe0 || bye[2] != 0x8d {
			t.Errorf("received % x, want DISCONNECT 0x8d", bye)
		}
	}
	for _, c := range append(silent, c) {
		c.wantClosed(t)
	}
	if n := s.Stats().ByReason[broker.ReasonTimeout]; n != 4 {
		t.Errorf("%d timeouts counted, want 4", n)
	}
}

func TestDisconnect(t *testing.T) {
	s := start(t, nil)
	one, two, bob := s.connect(t, "alice", "1"), s.connect(t, "alice", "2"), s.connect(t, "bob", "")
	if n := s.Disconnect("alice"); n != 2 {
		t.Errorf("%d connections closed, want 2", n)
	}
	<-one.lost
	<-two.lost
	bob.publish(t, "x", "y", 1)
}

func TestRecheck(t *testing.T) {
	s := start(t, nil)
	alice, bob, agent := s.connect(t, "alice", ""), s.connect(t, "bob", ""), s.dialNode(t)
	early := s.dialRaw(t, "alice")
	aliceShakes, bobShakes := s.halfShaken(t, "alice"), s.halfShaken(t, "bob")
	s.Recheck(func(cs tls.ConnectionState) error {
		if cs.PeerCertificates[0].Subject.CommonName == "alice" {
			return errors.New("revoked")
		}
		return nil
	})
	<-alice.lost
	bob.publish(t, "x", "y", 1)
	agent.publish(t, "x", "y", 1)
	early.wantClosed(t)
	aliceShakes().wantClosed(t)
	late := bobShakes()
	late.send(t, connect311("late"))
	if ack := late.read(t); ack[0] != 0x20 || ack[3] != 0 {
		t.Errorf("CONNACK % x for who was in the middle of the handshake", ack)
	}
	if n := s.Stats().ByReason[broker.ReasonCertificate]; n != 3 {
		t.Errorf("%d counted, want 3", n)
	}
}

// halfShaken is a connection in the middle of its handshake, which goes on when the returned function is called.
func (s *site) halfShaken(t *testing.T, identity string) (goOn func() raw) {
	t.Helper()
	p := &pausing{Conn: s.dialTCP(t), reached: make(chan struct{}), goOn: make(chan struct{})}
	config := s.clientTLS(t, identity).Clone()
	config.ServerName = "127.0.0.1"
	c := tls.Client(p, config)
	ended := make(chan error, 1)
	go func() { ended <- c.HandshakeContext(t.Context()) }()
	select {
	case <-p.reached:
	case err := <-ended:
		t.Fatal(err)
	}
	return func() raw {
		close(p.goOn)
		if err := <-ended; err != nil {
			t.Errorf("the handshake that went on: %v", err)
		}
		return raw{c}
	}
}

// pausing waits before the client's second flight, in which its certificate is.
type pausing struct {
	net.Conn
	flights       int
	reached, goOn chan struct{}
}

func (p *pausing) Write(b []byte) (int, error) {
	if p.flights++; p.flights == 2 {
		close(p.reached)
		<-p.goOn
	}
	return p.Conn.Write(b)
}

// mochi keeps the client's packet identifiers and its own in one table: it would refuse the SUBSCRIBE and forget the
// message.
func TestPacketIdentifiersDoNotCollide(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	c := s.dialRaw(t, "alice")
	c.send(t, persistent311("id"), packet(0x82, []byte{0, 1}, str("x"), []byte{1}))
	c.read(t)
	c.read(t)
	bob.publish(t, "x", "keep me", 1)
	m := c.read(t) // not acknowledged
	id := m[5:7]
	c.send(t, packet(0x82, id, str("y"), []byte{1}))
	if ack := c.read(t); ack[0] != 0x90 || !bytes.Equal(ack[2:4], id) || ack[4] != 1 {
		t.Errorf("SUBACK % x, want identifier % x granted", ack, id)
	}
	c.send(t, packet(0xa2, id, str("y")))
	if ack := c.read(t); ack[0] != 0xb0 || !bytes.Equal(ack[2:4], id) {
		t.Errorf("UNSUBACK % x, want identifier % x", ack, id)
	}
	c.send(t, packet(0x32, str("z"), id, []byte("p")))
	if ack := c.read(t); !bytes.Equal(ack, append([]byte{0x40, 2}, id...)) {
		t.Errorf("PUBACK % x, want identifier % x", ack, id)
	}
	_ = c.Close()
	again := s.dialRaw(t, "alice")
	again.send(t, persistent311("id"))
	again.read(t)
	if m := again.read(t); m[0] != 0x3a || !strings.HasSuffix(string(m), "keep me") {
		t.Errorf("received % x, want the message again", m)
	}
}
