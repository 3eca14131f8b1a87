package broker_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pinseal/broker"
)

// dialTCP connects and says nothing.
func (s *site) dialTCP(tb testing.TB) net.Conn {
	tb.Helper()
	c := must((&net.Dialer{}).DialContext(tb.Context(), "tcp", s.addr))(tb)
	tb.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// clientHello is the first flight of a TLS handshake.
func (s *site) clientHello(tb testing.TB) []byte {
	tb.Helper()
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // a pipe
	config := s.clientTLS(tb, "alice").Clone()
	config.ServerName = "localhost"
	go func() { _ = tls.Client(far, config).HandshakeContext(tb.Context()) }()
	b := make([]byte, 4096)
	n := must(near.Read(b))(tb)
	return b[:n]
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) { c.Limits.ConnectTimeout = 300 * time.Millisecond })
	silent, half := s.dialTCP(t), s.dialTCP(t)
	if _, err := half.Write(s.clientHello(t)); err != nil {
		t.Fatal(err)
	}
	quiet, slow := s.dialRaw(t, "alice"), s.dialRaw(t, "alice")
	go func() {
		for _, b := range connect311("id") {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond) // is the attack, waits for nothing
		}
	}()
	for _, c := range []net.Conn{silent, half, quiet, slow} {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection stayed open: %v", err)
		}
	}
	eventually(t, "all gone", func() bool { st := s.Stats(); return st.Connections == 0 && st.Pending == 0 })
}

func TestConnectionsAreCapped(t *testing.T) {
	for name, change := range map[string]func(*broker.Limits){
		"in all":      func(l *broker.Limits) { l.MaxConnections = 2 },
		"per address": func(l *broker.Limits) { l.MaxConnectionsPerAddress = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { change(&c.Limits) })
			first := s.connect(t, "alice", "1")
			s.connect(t, "alice", "2")
			if _, err := s.tryConnect(t, "alice", "3", nil); err == nil {
				t.Error("the third connection was accepted")
			}
			if n := s.Stats().ByReason[broker.ReasonTooManyConnections]; n == 0 {
				t.Error("not counted")
			}
			first.Disconnect(0)
			eventually(t, "room again", func() bool {
				_, err := s.tryConnect(t, "alice", "3", nil)
				return err == nil
			})
			s.dialNode(t) // the node is not kept out
		})
	}
}

func TestSilentConnectionsLockNobodyOut(t *testing.T) {
	for name, change := range map[string]func(*broker.Limits){
		"in all":      func(l *broker.Limits) { l.MaxPending = 3 },
		"per address": func(l *broker.Limits) { l.MaxPendingPerAddress = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { change(&c.Limits) })
			for range 20 {
				s.dialTCP(t)
			}
			s.connect(t, "alice", "").publish(t, "x", "y", 1)
			if st := s.Stats(); st.Pending > 3 || st.ByReason[broker.ReasonDisplaced] < 17 {
				t.Errorf("%d pending, %d displaced", st.Pending, st.ByReason[broker.ReasonDisplaced])
			}
		})
	}
}

func TestPacketTooLarge(t *testing.T) {
	s := start(t, nil)
	limit := broker.DefaultLimits().MaxPacketBytes
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id"))
	if ack := c.read(t); !bytes.Contains(ack, []byte{0x27, 0, 2, 0, 0}) {
		t.Errorf("CONNACK % x does not tell the maximum packet size", ack)
	}
	largest := packet(0x32, str("x"), []byte{0, 7, 0}, make([]byte, limit-10))
	if len(largest) != limit {
		t.Fatalf("made %d bytes", len(largest))
	}
	c.send(t, largest)
	if ack := c.read(t); ack[0] != 0x40 {
		t.Errorf("received % x, want PUBACK", ack)
	}
	c.send(t, []byte{0x30, 0xff, 0xff, 0xff, 0x7f}) // announces 256 MB
	if bye := c.read(t); bye[0] != 0xe0 || bye[2] != 0x95 {
		t.Errorf("received % x, want DISCONNECT 0x95", bye)
	}
	c.wantClosed(t)

	early := s.dialRaw(t, "alice")
	early.send(t, []byte{0x10, 0xff, 0xff, 0xff, 0x7f})
	early.wantClosed(t)
	if n := s.Stats().ByReason[broker.ReasonTooLarge]; n != 2 {
		t.Errorf("%d counted, want 2", n)
	}
}

func TestMalformedPacketsEndOneConnection(t *testing.T) {
	s := start(t, nil)
	bystander := s.connect(t, "bob", "")
	for _, tc := range []struct {
		name  string
		bytes []byte
		code  byte
	}{
		{"SUBSCRIBE without options, which kills bare mochi", []byte{0x82, 6, 0, 1, 0, 0, 1, 'a'}, 0x81},
		{"topic alias that is not known", []byte{0x30, 6, 0, 0, 3, 0x23, 0, 1}, 0x94},
		{"topic alias beyond the limit", packet(0x30, str("x"), []byte{3, 0x23, 0, 11}), 0x94},
		{"deep filter, which takes bare mochi seconds", packet(0x82, []byte{0, 1, 0}, str(string(bytes.Repeat([]byte{'/'}, 400))), []byte{0}), 0x8f},
		{"filter a+/b", packet(0x82, []byte{0, 1, 0}, str("a+/b"), []byte{0}), 0x8f},
		{"second CONNECT", connect5("id"), 0x82},
	} {
		c := s.dialRaw(t, "alice")
		c.send(t, connect5("id"))
		c.read(t)
		c.send(t, tc.bytes)
		if bye := c.read(t); bye[0] != 0xe0 || bye[2] != tc.code {
			t.Errorf("%s: received % x, want DISCONNECT %#x", tc.name, bye, tc.code)
		}
		c.wantClosed(t)
		bystander.publish(t, "x", "still here", 1)
	}
	if n := s.Stats().ByReason[broker.ReasonMalformed]; n != 6 {
		t.Errorf("%d counted, want 6", n)
	}
}

func TestSubscriptionsAreLimited(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxSubscriptions = 2 })
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id"), packet(0x82, []byte{0, 1, 0}, str("a"), []byte{0}, str("b"), []byte{0}, str("c"), []byte{0}))
	c.read(t)
	if ack := c.read(t); !bytes.HasSuffix(ack, []byte{0, 0, 0x97}) {
		t.Errorf("SUBACK % x, want the third refused with 0x97", ack)
	}
	c.send(t, packet(0x82, []byte{0, 2, 0}, str("a"), []byte{1}))
	if ack := c.read(t); !bytes.HasSuffix(ack, []byte{1}) {
		t.Errorf("SUBACK % x, want the same filter again granted", ack)
	}
	if n := s.Stats().Subscriptions; n != 2 {
		t.Errorf("%d subscriptions", n)
	}
}

// mochi stalls for good when a client's receive maximum is used up.
func TestReceiveMaximum(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "")
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id", 0x21, 0, 2), packet(0x82, []byte{0, 1, 0}, str("x"), []byte{1}))
	c.read(t)
	c.read(t)
	for range 50 {
		bob.publish(t, "x", "m", 1)
	}
	first, second := c.read(t), c.read(t)
	c.send(t, []byte{0xc0, 0})
	if m := c.read(t); m[0] != 0xd0 {
		t.Errorf("received % x with two messages unacknowledged, want the answer to PINGREQ", m)
	}
	for _, m := range [][]byte{first, second} {
		c.send(t, packet(0x40, m[5:7]))
	}
	for n := range 48 {
		m := c.read(t)
		if m[0]&0xf0 != 0x30 {
			t.Fatalf("message %d: received % x", n, m)
		}
		c.send(t, packet(0x40, m[5:7]))
	}
}

// A client that takes aliases gets them for the first topics that come; mochi gives them in messages it then drops.
func TestTopicAliasesToClients(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxTopicAliases = 2 })
	bob := s.connect(t, "bob", "")
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id", 0x22, 0, 9, 0x27, 0, 0, 0, 50), packet(0x82, []byte{0, 1, 0}, str("#"), []byte{0}))
	c.read(t)
	c.read(t)
	bob.publish(t, "a", strings.Repeat("m", 50), 1) // too large for the client: it learns no alias of it
	for _, want := range []struct {
		topic  string
		packet []byte
	}{
		{"a", []byte{0x30, 8, 0, 1, 'a', 3, 0x23, 0, 1, 'm'}},
		{"b", []byte{0x30, 8, 0, 1, 'b', 3, 0x23, 0, 2, 'm'}},
		{"a", []byte{0x30, 7, 0, 0, 3, 0x23, 0, 1, 'm'}},
		{"c", []byte{0x30, 5, 0, 1, 'c', 0, 'm'}},
		{"b", []byte{0x30, 7, 0, 0, 3, 0x23, 0, 2, 'm'}},
	} {
		bob.publish(t, want.topic, "m", 1)
		if m := c.read(t); !bytes.Equal(m, want.packet) {
			t.Errorf("received % x, want % x", m, want.packet)
		}
	}
}

// The policy judges the topic that an alias stands for.
func TestTopicAliasesFromClients(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		c.Policy = &broker.Policy{Rules: []broker.Rule{{Identity: "alice", Publish: []string{"a/#"}}, {Identity: "bob", Subscribe: []string{"#"}}}}
	})
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "#", 0)
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id"))
	if ack := c.read(t); !bytes.Contains(ack, []byte{0x22, 0, 10}) {
		t.Errorf("CONNACK % x does not offer 10 aliases", ack)
	}
	publish := func(topic string, alias byte, payload string, code byte) {
		t.Helper()
		c.send(t, packet(0x32, str(topic), []byte{0, 7, 3, 0x23, 0, alias}, []byte(payload)))
		if ack := c.read(t); append(ack, 0)[4] != code {
			t.Errorf("PUBACK % x, want code %#x", ack, code)
		}
	}
	publish("a/1", 1, "one", 0)
	publish("secret", 2, "two", 0x87)
	publish("", 1, "three", 0)
	publish("", 2, "four", 0x87)
	publish("a/2", 1, "five", 0)
	publish("", 1, "six", 0)
	for _, want := range []message{{topic: "a/1", payload: "one"}, {topic: "a/1", payload: "three"}, {topic: "a/2", payload: "five"}, {topic: "a/2", payload: "six"}} {
		bob.want(t, want.topic, want.payload)
	}
}

// A client that is sent away learns why, though it goes on writing.
func TestGoodbyeIsHeard(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.ReceiveMaximum = 5 })
	for range 10 {
		c := s.dialRaw(t, "alice")
		c.send(t, connect5(""))
		c.read(t)
		var flood []byte
		for id := range byte(200) {
			flood = append(flood, packet(0x34, str("x"), []byte{0, 1 + id, 0}, make([]byte, 100))...)
		}
		c.send(t, flood)
		for range 5 {
			if ack := c.read(t); ack[0] != 0x50 {
				t.Fatalf("received % x, want PUBREC", ack)
			}
		}
		if bye := c.read(t); bye[0] != 0xe0 || bye[2] != 0x93 {
			t.Errorf("received % x, want DISCONNECT 0x93", bye)
		}
		c.wantClosed(t)
	}
}

func TestStoredMessagesAreLimited(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*broker.Limits)
		most   int
	}{
		{"messages", func(l *broker.Limits) { l.MaxInflight = 4 }, 4},
		{"bytes", func(l *broker.Limits) { l.MaxInflightBytes = 4100 }, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { tc.change(&c.Limits) })
			c := s.dialRaw(t, "alice")
			c.send(t, persistent311("id"), packet(0x82, []byte{0, 1}, str("x"), []byte{1}))
			c.read(t)
			c.read(t)
			_ = c.Close()
			eventually(t, "gone", func() bool { return s.Stats().Connections == 0 })
			bob := s.connect(t, "bob", "")
			for n := range 20 {
				bob.publish(t, "x", fmt.Sprintf("%01000d", n), 1)
			}
			if n := s.Stats().ByReason[broker.ReasonQueueFull]; n != 16 {
				t.Errorf("%d counted, want 16", n)
			}
			c = s.dialRaw(t, "alice")
			c.send(t, persistent311("id"), []byte{0xc0, 0})
			c.read(t)
			for n := 20 - tc.most; n < 20; n++ { // the oldest made room
				if m := c.read(t); string(m[len(m)-3:]) != fmt.Sprintf("%03d", n) {
					t.Errorf("received %q, want number %d", m[len(m)-3:], n)
				}
			}
			if m := c.read(t); m[0] != 0xd0 {
				t.Errorf("received % x, want the answer to PINGREQ", m)
			}
		})
	}
}

// What was sent once cannot be displaced: the client may be about to acknowledge it.
func TestMessagesUnderWayAreNotDisplaced(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxInflight = 3 })
	bob := s.connect(t, "bob", "")
	c := s.dialRaw(t, "alice")
	c.send(t, persistent311("id"), packet(0x82, []byte{0, 1}, str("x"), []byte{1}))
	c.read(t)
	c.read(t)
	for n := range 5 {
		bob.publish(t, "x", fmt.Sprint(n), 1)
	}
	for n := range 3 {
		if m := c.read(t); string(m[len(m)-1:]) != fmt.Sprint(n) {
			t.Errorf("received %q, want number %d", m, n)
		}
	}
	c.send(t, []byte{0xc0, 0})
	if m := c.read(t); m[0] != 0xd0 {
		t.Errorf("received % x, want the answer to PINGREQ", m)
	}
}

// Where the log does not take the line about a displaced connection, the others go on.
func TestDisplacingLocksNobodyOut(t *testing.T) {
	h := &stuck{Handler: slog.DiscardHandler, reason: broker.ReasonDisplaced, entered: make(chan struct{}), leave: make(chan struct{})}
	s := start(t, func(c *broker.Config) { c.Limits.MaxPending, c.Log = 1, slog.New(h) })
	settled, _ := s.resume(t, "alice", connect311("id"))
	s.dialTCP(t)
	s.dialTCP(t)
	<-h.entered
	counted := make(chan struct{})
	go func() {
		s.Stats()
		close(counted)
	}()
	select {
	case <-counted:
	case <-time.After(timeout):
		t.Error("the table of connections is locked")
	}
	settled.alive(t, "who was there before")
	close(h.leave)
	<-counted
}

// Nothing is left of the rate of an identity that has gone, once it could begin anew all the same.
func TestPublishRatesAreForgotten(t *testing.T) {
	t.Parallel() // it waits for a second
	s := start(t, nil)
	for n := range 3 {
		c := s.connect(t, fmt.Sprint("guest", n), "")
		c.publish(t, "x", "hello", 1)
		if got := s.PublishRates(); got != n+1 {
			t.Errorf("%d rates, want %d", got, n+1)
		}
	}
	for n := range 3 {
		s.Disconnect(fmt.Sprint("guest", n))
	}
	eventually(t, "forgotten", func() bool { return s.PublishRates() == 0 })
}

// A subscriber that does not read must hold up neither its publisher nor others, and goes.
func TestSlowReader(t *testing.T) {
	for qos := range byte(2) {
		s := start(t, func(c *broker.Config) {
			c.Limits.WriteTimeout = time.Second
			c.Limits.MaxQueuedBytes = 64 << 10
		})
		slow := s.dialRaw(t, "alice")
		slow.send(t, connect311("slow"), packet(0x82, []byte{0, 1}, str("x"), []byte{qos}))
		slow.read(t)
		slow.read(t)
		bob, carol := s.connect(t, "bob", ""), s.connect(t, "carol", "")
		carol.subscribe(t, "beat", 1)
		payload := string(make([]byte, 32<<10))
		longest := time.Duration(0)
		began := time.Now()
		for s.Stats().ByReason[broker.ReasonSlow] == 0 && time.Since(began) < timeout {
			before := time.Now()
			_, _ = slow.Write([]byte{0xc0, 0}) // which must not prolong what a write may take; it fails at the end
			bob.publish(t, "x", payload, 1)
			bob.publish(t, "beat", "b", 1)
			carol.want(t, "beat", "b")
			longest = max(longest, time.Since(before))
		}
		if longest > 800*time.Millisecond { // well below the time a write may take
			t.Errorf("QoS %d: a publish took %v", qos, longest)
		}
		eventually(t, "gone", func() bool { return s.Stats().Connections == 2 && s.Stats().ByReason[broker.ReasonSlow] == 1 })
	}
}

func TestPublishRate(t *testing.T) {
	for name, change := range map[string]func(*broker.Limits){
		"messages": func(l *broker.Limits) { l.MaxPublishRate = 50 },
		// 1000 bytes of topic and payload; the largest packet makes 50 of them at once.
		"bytes": func(l *broker.Limits) { l.MaxPublishBytesRate, l.MaxPacketBytes = 50_000, 50_000 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for clocks
			s := start(t, func(c *broker.Config) { change(&c.Limits) })
			alice, again, bob := s.connect(t, "alice", "1"), s.connect(t, "alice", "2"), s.connect(t, "bob", "")
			payload := strings.Repeat("m", 999)
			began := time.Now()
			for range 50 { // 50 at once are allowed, the other 50 take a second
				alice.publish(t, "x", payload, 1)
				again.publish(t, "x", payload, 1)
			}
			if took := time.Since(began); took < 800*time.Millisecond {
				t.Errorf("100 messages at 50 a second took %v", took)
			}
			throttled := s.Stats().ByReason[broker.ReasonThrottled]
			if throttled == 0 {
				t.Error("not counted")
			}
			bob.publish(t, "x", payload, 1) // is another identity
			if n := s.Stats().ByReason[broker.ReasonThrottled]; n != throttled {
				t.Error("another identity was throttled")
			}
		})
	}
}

func TestConnectRate(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) { c.Limits.MaxConnectRate = 5 })
	first := s.connect(t, "alice", "1")
	for range 20 {
		s.dialTCP(t)
	}
	eventually(t, "refused", func() bool { return s.Stats().ByReason[broker.ReasonConnectRate] >= 15 })
	first.publish(t, "x", "m", 1)
	s.dialNode(t) // the node is not kept out
	eventually(t, "let in again", func() bool {
		_, err := s.tryConnect(t, "alice", "2", nil)
		return err == nil
	})
}

// flaky fails to accept as a process does that has run out of file descriptors.
type flaky struct {
	net.Listener
	failures atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptIsTriedAgain(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) {
		f := &flaky{Listener: c.Listeners[0].Net}
		f.failures.Store(5)
		c.Listeners[0].Net = f
	})
	s.connect(t, "alice", "").publish(t, "x", "y", 1)
}

// panicking conns stand for a defect in what handles a connection.
type panicking struct{ net.Listener }

type panickingConn struct {
	net.Conn
	reads int
	after int
}

func (c *panickingConn) Read(p []byte) (int, error) {
	if c.reads++; c.reads > c.after {
		panic("defect")
	}
	return c.Conn.Read(p)
}

func (p *panicking) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &panickingConn{Conn: c, after: 8}, nil
}

func TestPanicEndsOneConnection(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Listeners[0].Net = &panicking{c.Listeners[0].Net} })
	agent := s.dialNode(t)
	c := s.dialRaw(t, "alice")
	c.send(t, persistent311("id"))
	for s.Stats().ByReason[broker.ReasonPanic] == 0 {
		if _, err := c.Write([]byte{0xc0, 0}); err != nil {
			break
		}
	}
	c.wantClosed(t)
	agent.publish(t, "x", "y", 1)
	eventually(t, "gone", func() bool { st := s.Stats(); return st.Connections == 0 && st.ByReason[broker.ReasonPanic] == 1 })
}

func TestListenerClosedByOthers(t *testing.T) {
	l := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	b := must(broker.New(broker.Config{
		Node: node, Policy: everything(), Listeners: []broker.Listener{{Name: "test", Net: l, TLS: &tls.Config{MinVersion: tls.VersionTLS13}}},
	}))(t)
	go func() {
		<-b.Ready()
		_ = l.Close()
	}()
	if err := b.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run returned %v, want net.ErrClosed", err)
	}
	if err := b.Run(t.Context()); err == nil {
		t.Error("Run could be called twice")
	}
	if _, err := b.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Run: %v, want net.ErrClosed", err)
	}
}

func TestNewRefuses(t *testing.T) {
	l := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { _ = l.Close() })
	secure := &tls.Config{MinVersion: tls.VersionTLS13}
	for name, cfg := range map[string]broker.Config{
		"no node":          {Policy: everything()},
		"no policy":        {Node: node},
		"no socket":        {Node: node, Policy: everything(), Listeners: []broker.Listener{{Name: "a", TLS: secure}}},
		"no TLS":           {Node: node, Policy: everything(), Listeners: []broker.Listener{{Name: "a", Net: l}}},
		"no listener name": {Node: node, Policy: everything(), Listeners: []broker.Listener{{Net: l, TLS: secure}}},
		"same name":        {Node: node, Policy: everything(), Listeners: []broker.Listener{{Name: "a", Net: l, TLS: secure}, {Name: "a", Net: l, TLS: secure}}},
	} {
		if _, err := broker.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
