package broker_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"pinseal/broker"
)

// plain replaces the listener by one without TLS: nobody can show a certificate there.
func plain(c *broker.Config) {
	l := &c.Listeners[0]
	l.TLS, l.Plain = nil, true
	l.Authenticate = func(_ context.Context, c broker.Credentials) (broker.Login, error) {
		if string(c.Password) != "pass-"+c.Username {
			return broker.Login{}, errors.New("wrong password")
		}
		return broker.Login{Identity: c.Username}, nil
	}
}

func dialPlain(tb testing.TB, network, address string) net.Conn {
	tb.Helper()
	c := must((&net.Dialer{}).DialContext(tb.Context(), network, address))(tb)
	tb.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// connack sends a CONNECT and returns the code of its answer.
func connack(tb testing.TB, c net.Conn, hello []byte) byte {
	tb.Helper()
	if _, err := c.Write(hello); err != nil {
		tb.Fatal(err)
	}
	return must(readPacket(c))(tb)[3]
}

// overUnix has the listener replaced by a Unix socket.
func overUnix(t *testing.T, c *broker.Config) {
	t.Helper()
	_ = c.Listeners[0].Net.Close() // another one takes its place
	c.Listeners[0].Net = must((&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s")))(t)
}

func TestPlain(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := ""
			s := start(t, func(c *broker.Config) {
				plain(c)
				if network == "unix" {
					overUnix(t, c)
				}
				address = c.Listeners[0].Net.Addr().String()
			})
			for _, tc := range []struct {
				user, password string
				code           byte
			}{{"alice", "pass-alice", 0}, {"alice", "x", 0x86}, {"", "", 0x86}, {node, "pass-" + node, 0x86}} {
				if code := connack(t, dialPlain(t, network, address), login5(tc.user, tc.password)); code != tc.code {
					t.Errorf("%q: CONNACK code %#x, want %#x", tc.user, code, tc.code)
				}
			}
			// The same strict check as behind TLS.
			c := dialPlain(t, network, address)
			connack(t, c, login5("alice", "pass-alice"))
			if _, err := c.Write(packet(0x30, str("#"), []byte{0})); err != nil {
				t.Fatal(err)
			}
			if p := must(readPacket(c))(t); p[0] != 0xe0 || p[2] != 0x90 {
				t.Errorf("received % x, want DISCONNECT", p)
			}
			if n := s.Stats().ByReason[broker.ReasonMalformed]; n != 1 {
				t.Errorf("%d counted as malformed, want 1", n)
			}
		})
	}
}

// A silent client of a plain listener is closed when its time is up.
func TestPlainConnectTimeout(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		plain(c)
		c.Limits.ConnectTimeout = 50 * time.Millisecond
	})
	if _, err := io.ReadAll(dialPlain(t, "tcp", s.addr)); err != nil {
		t.Errorf("waiting for the end: %v", err)
	}
}

func TestNoTLSIsNoAccident(t *testing.T) {
	listener := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	defer listener.Close() //nolint:errcheck // nothing was said on it
	_, err := broker.New(broker.Config{Node: node, Policy: everything(), Listeners: []broker.Listener{{Name: "x", Net: listener}}})
	if err == nil {
		t.Error("a listener without TLS that is not meant to be plain was accepted")
	}
}

func TestListenerMaxConnections(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		plain(c)
		c.Listeners[0].MaxConnections = 2
	})
	first := dialPlain(t, "tcp", s.addr)
	connack(t, first, login5("alice", "pass-alice"))
	connack(t, dialPlain(t, "tcp", s.addr), login5("bob", "pass-bob"))
	if got, err := io.ReadAll(dialPlain(t, "tcp", s.addr)); len(got) > 0 || err != nil {
		t.Errorf("a third connection: %q, %v, want it closed", got, err)
	}
	_ = first.Close() // makes room
	eventually(t, "room", func() bool { return s.Stats().Connections == 1 })
	if code := connack(t, dialPlain(t, "tcp", s.addr), login5("carol", "pass-carol")); code != 0 {
		t.Errorf("CONNACK code %#x after one has gone", code)
	}
}
