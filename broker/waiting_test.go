package broker_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"pinseal/broker"
)

// crowd makes connections of one identity, which read no more than they are made to.
func (s *site) crowd(t *testing.T, identity string, n int) []raw {
	t.Helper()
	all := make([]raw, n)
	for i := range all {
		all[i] = s.dialRaw(t, identity)
		if tcp, ok := all[i].NetConn().(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4 << 10) // what the kernel holds is not the broker's
		}
		all[i].send(t, connect5(fmt.Sprint(i), 0x21, 0, 1)) // one unacknowledged message at a time
		all[i].read(t)
	}
	return all
}

func (r raw) asks(t *testing.T, qos byte, filters ...string) (codes []byte) {
	t.Helper()
	var list []byte
	for _, f := range filters {
		list = append(append(list, str(f)...), qos)
	}
	r.send(t, packet(0x82, []byte{0, 1, 0}, list))
	ack := r.read(t)
	return ack[len(ack)-len(filters):]
}

const (
	waitingRoom  = 1 << 20
	waitingShare = waitingRoom / 2 // of one identity alone
)

func smallRoom(c *broker.Config) {
	c.Limits.MaxWaitingBytes, c.Limits.MaxConnectRate = waitingRoom, 1<<30
	c.Limits.MaxQueuedBytes, c.Limits.MaxInflightBytes = 1<<30, 1<<30
}

// wantRoom checks that what waits for an identity keeps within its share.
func (s *site) wantRoom(t *testing.T) {
	t.Helper()
	if n := s.Stats().WaitingBytes; n > waitingShare {
		t.Fatalf("%d bytes wait, want at most %d", n, waitingShare)
	}
}

// However many connections an identity makes, what is written for them all is bounded, and others have room.
func TestUnreadConnectionsShareTheRoom(t *testing.T) {
	s := start(t, smallRoom)
	for _, c := range s.crowd(t, "mallory", 8) {
		c.asks(t, 0, "flood")
	}
	alice := s.connect(t, "alice", "")
	alice.subscribe(t, "mine", 1)
	flood := strings.Repeat("x", 100<<10)
	for n := 0; s.Stats().ByReason[broker.ReasonQueueFull] == 0; n++ {
		if n == 1000 {
			t.Fatal("there is room for everything")
		}
		alice.publish(t, "flood", flood, 1)
		s.wantRoom(t)
	}
	alice.publish(t, "mine", flood, 1)
	alice.want(t, "mine", flood)
	s.Disconnect("mallory")
	eventually(t, "nothing waits any more", func() bool { return s.Stats().WaitingBytes == 0 })
}

// So it is with messages that are not acknowledged; the oldest make room.
func TestUnacknowledgedMessagesShareTheRoom(t *testing.T) {
	const size, count = 4 << 10, 100
	s := start(t, smallRoom)
	crowd := s.crowd(t, "mallory", 4)
	publisher := s.connect(t, "alice", "")
	for i, c := range crowd {
		topic := fmt.Sprint("q/", i)
		c.asks(t, 1, topic)
		for n := range count {
			publisher.publish(t, topic, fmt.Sprintf("%0*d", size, n), 1)
		}
		s.wantRoom(t)
	}
	if n := s.Stats().ByReason[broker.ReasonWaitingFull]; n == 0 {
		t.Error("nothing was counted")
	}
	bobby := s.crowd(t, "bobby", 1)[0]
	bobby.asks(t, 1, "q/bobby")
	for n := range 40 {
		publisher.publish(t, "q/bobby", fmt.Sprintf("%0*d", size, n), 1)
	}
	for n := range 40 {
		m := bobby.read(t)
		if want := fmt.Sprintf("%04d", n); string(m[len(m)-4:]) != want {
			t.Fatalf("received ...%s, want %s", m[len(m)-4:], want)
		}
		bobby.send(t, slices.Concat([]byte{0x40, 2}, m[3+2+len("q/bobby"):][:2]))
	}
	s.Disconnect("mallory")
	s.Disconnect("bobby")
	eventually(t, "nothing waits any more", func() bool { return s.Stats().WaitingBytes == 0 })
}

// And with subscriptions, which cost more than their names.
func TestSubscriptionsShareTheRoom(t *testing.T) {
	const clients = 16
	s := start(t, smallRoom)
	refused := 0
	for i, c := range s.crowd(t, "mallory", clients) {
		for n := range 2 {
			var filters []string
			for k := range 64 {
				filters = append(filters, fmt.Sprintf("%d/%d/%d%s", i, n, k, strings.Repeat("/x", 13)))
			}
			for _, code := range c.asks(t, 0, filters...) {
				if code == 0x97 {
					refused++
				}
			}
		}
		s.wantRoom(t)
	}
	st := s.Stats()
	if refused == 0 || st.ByReason[broker.ReasonWaitingFull] != uint64(refused) || st.Subscriptions+refused != clients*128 {
		t.Errorf("%d of %d refused, %d counted, %d there", refused, clients*128, st.ByReason[broker.ReasonWaitingFull], st.Subscriptions)
	}
	s.connect(t, "alice", "").subscribe(t, "mine", 1)
	s.Disconnect("mallory")
	eventually(t, "nothing waits any more", func() bool { return s.Stats().WaitingBytes == 0 })
}

// And with packets that have come in part: what they announce need never come.
func TestPartialPacketsShareTheRoom(t *testing.T) {
	s := start(t, smallRoom)
	part := slices.Concat(packet(0x32, str("x"), []byte{0, 7, 0}, make([]byte, 120<<10)))[:100<<10]
	crowd := s.crowd(t, "mallory", 16)
	for _, c := range crowd {
		c.send(t, part)
	}
	refused := func() uint64 { return s.Stats().ByReason[broker.ReasonWaitingFull] }
	const fit = waitingShare / (112 << 10) // of a buffer of 128 KiB 16 are free
	eventually(t, "those beyond are refused", func() bool {
		s.wantRoom(t)
		return refused() == uint64(len(crowd)-fit)
	})
	s.connect(t, "alice", "").publish(t, "x", strings.Repeat("x", 120<<10), 1)
	told := 0
	for _, c := range crowd {
		_ = c.CloseWrite() // who was not sent away has lost its packet
		if bye, err := readPacket(c); err == nil && bye[0] == 0xe0 && bye[2] == 0x97 {
			told++
		}
	}
	if told != len(crowd)-fit {
		t.Errorf("%d were told, want %d", told, len(crowd)-fit)
	}
	eventually(t, "nothing waits any more", func() bool { return s.Stats().WaitingBytes == 0 })
}

// A packet that has been read takes no room while the client says nothing more.
func TestLargePacketsLeaveTheRoom(t *testing.T) {
	s := start(t, smallRoom)
	for _, c := range s.crowd(t, "alice", 16) {
		c.send(t, packet(0x30, str("x"), []byte{0}, make([]byte, 120<<10)))
		c.alive(t, "who has sent a large packet")
	}
	eventually(t, "nothing waits", func() bool { return s.Stats().WaitingBytes == 0 })
}

// And with wills, which are kept for as long as their connections.
func TestWillsShareTheRoom(t *testing.T) {
	s := start(t, smallRoom)
	hello := func(id string) []byte {
		return packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str(id), []byte{0}, str("w"), str(string(make([]byte, 60000))))
	}
	const clients = 20
	let := 0
	for n := range clients {
		c := s.dialRaw(t, "mallory")
		c.send(t, hello(fmt.Sprint(n)), []byte{0xc0, 0})
		if _, err := readPacket(c); err == nil { // or there was no room for the rest of it
			if answer := c.read(t); answer[0] == 0xd0 {
				let++
			} else if answer[0] != 0xe0 || answer[2] != 0x97 {
				t.Errorf("received % x", answer)
			}
		}
		s.wantRoom(t)
	}
	if n := s.Stats().ByReason[broker.ReasonWaitingFull]; let == 0 || let > waitingShare/(60000-16<<10) || n != uint64(clients-let) {
		t.Errorf("%d of %d were let in, %d refusals counted", let, clients, n)
	}
	c, _ := s.resume(t, "alice", hello("alice"))
	c.alive(t, "who has a will like that")
	s.Disconnect("mallory")
	s.Disconnect("alice")
	eventually(t, "nothing waits any more", func() bool { return s.Stats().WaitingBytes == 0 })
}

// pipes is a listener whose connections hold nothing that was not read.
type pipes struct {
	accepted, ended chan net.Conn
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.ended)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// What is being written counts until it is, like what waits behind it.
func TestWhatIsBeingWrittenTakesRoom(t *testing.T) {
	const size = 100 << 10
	p := &pipes{accepted: make(chan net.Conn), ended: make(chan net.Conn)}
	s := start(t, func(c *broker.Config) {
		smallRoom(c)
		c.Limits.MaxWaitingBytes = 4 * size
		c.Listeners = append(c.Listeners, broker.Listener{Name: "pipe", Net: p, Plain: true, Authenticate: anyName})
	})
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // it is the end
	p.accepted <- far
	exchange := func(out []byte) {
		t.Helper()
		if _, err := near.Write(out); err != nil {
			t.Fatal(err)
		}
		must(readPacket(near))(t)
	}
	exchange(packet(0x10, str("MQTT"), []byte{4, 0x82, 0, 60}, str("id"), str("mallory")))
	exchange(packet(0x82, []byte{0, 1}, str("flood"), []byte{0}))
	alice := s.connect(t, "alice", "")
	sent := s.Stats().Sent
	alice.publish(t, "flood", strings.Repeat("x", size), 1)
	if _, err := near.Read(make([]byte, 1)); err != nil { // the first is being written now
		t.Fatal(err)
	}
	for s.Stats().ByReason[broker.ReasonQueueFull] == 0 {
		alice.publish(t, "flood", strings.Repeat("x", size), 1)
	}
	if n := s.Stats().Sent - sent; n != 2 {
		t.Errorf("%d messages are being written or wait, want 2", n)
	}
}
