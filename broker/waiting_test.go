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
