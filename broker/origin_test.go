package broker_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"pinseal/broker"
)

// elsewhere is a listener whose connections come from where the test says.
type elsewhere struct {
	net.Listener
	from chan string
}

type elsewhereConn struct {
	net.Conn
	from net.Addr
}

func (c elsewhereConn) RemoteAddr() net.Addr { return c.from }

func (l elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return elsewhereConn{c, &net.TCPAddr{IP: net.ParseIP(<-l.from), Port: 1}}, nil
}

// startElsewhere returns a way to connect from an address. By the time it returns, the broker has taken note.
func startElsewhere(t *testing.T, change func(*broker.Limits)) (s *site, dial func(from string) net.Conn) {
	t.Helper()
	from := make(chan string)
	s = start(t, func(c *broker.Config) {
		c.Listeners[0].Net = elsewhere{c.Listeners[0].Net, from}
		change(&c.Limits)
	})
	return s, func(address string) net.Conn {
		c := s.dialTCP(t)
		from <- address
		return c
	}
}

// neighbour is an address of one and the same network.
func neighbour(i int) string { return fmt.Sprintf("2001:db8::%x:1", i) }

// letIn logs in on a connection.
func (s *site) letIn(t *testing.T, c net.Conn) error {
	t.Helper()
	config := s.clientTLS(t, "alice").Clone()
	config.ServerName = "localhost"
	secure := tls.Client(c, config)
	if _, err := secure.Write(connect311("id")); err != nil {
		return err
	}
	_, err := readPacket(secure)
	return err
}

// One IPv6 address is mostly as many as there is room for in 64 bits.
func TestConnectionsOfAnIPv6Network(t *testing.T) {
	s, dial := startElsewhere(t, func(l *broker.Limits) { l.MaxConnections, l.MaxConnectionsPerAddress = 8, 4 })
	for range 10 {
		dial("2001:db8::1")
	}
	eventually(t, "one address has 4", func() bool { return s.Stats().ByReason[broker.ReasonTooManyConnections] == 6 })
	for i := range 10 {
		dial(neighbour(i + 1))
	}
	eventually(t, "its network has 6", func() bool { return s.Stats().ByReason[broker.ReasonTooManyConnections] == 14 })
	if err := s.letIn(t, dial("2001:db8:0:1::1")); err != nil {
		t.Errorf("another network: %v", err)
	}
	if err := s.letIn(t, dial("192.0.2.1")); err != nil {
		t.Errorf("another address: %v", err)
	}
}

func TestPendingOfAnIPv6Network(t *testing.T) {
	s, dial := startElsewhere(t, func(l *broker.Limits) { l.MaxPending, l.MaxPendingPerAddress = 8, 4 })
	slow := dial("192.0.2.1")
	for i := range 20 {
		dial(neighbour(i))
	}
	eventually(t, "displaced", func() bool { return s.Stats().ByReason[broker.ReasonDisplaced] == 14 })
	if err := s.letIn(t, slow); err != nil {
		t.Errorf("displaced by another network: %v", err)
	}
}

// All that come through a Unix socket are one.
func TestPendingOfAUnixSocket(t *testing.T) {
	address := ""
	s := start(t, func(c *broker.Config) {
		plain(c)
		overUnix(t, c)
		address = c.Listeners[0].Net.Addr().String()
		c.Limits.MaxPending, c.Limits.MaxPendingPerAddress = 8, 4
	})
	for range 10 {
		dialPlain(t, "unix", address)
	}
	eventually(t, "displaced", func() bool { return s.Stats().ByReason[broker.ReasonDisplaced] == 6 })
}

func TestConnectRateOfAnIPv6Network(t *testing.T) {
	const most, flood = 5, 100
	s, dial := startElsewhere(t, func(l *broker.Limits) { l.MaxConnectRate = most })
	began := time.Now()
	for i := range flood {
		dial(neighbour(i))
	}
	eventually(t, "refused", func() bool {
		allowed := 2 * most * (2 + int(time.Since(began)/time.Second))
		return s.Stats().ByReason[broker.ReasonConnectRate] >= uint64(max(1, flood-allowed))
	})
	if err := s.letIn(t, dial("192.0.2.1")); err != nil {
		t.Errorf("another address: %v", err)
	}
}
