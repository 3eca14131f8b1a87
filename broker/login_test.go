package broker_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/broker"
)

// open lets clients in without a certificate, by the password that is their name backwards.
func open(c *broker.Config) {
	l := &c.Listeners[0]
	config := l.TLS
	l.TLS = config.Clone()
	l.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	l.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		inner, err := config.GetConfigForClient(hello)
		inner = inner.Clone()
		inner.ClientAuth = tls.VerifyClientCertIfGiven
		verify := inner.VerifyConnection
		inner.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			return verify(cs)
		}
		return inner, err
	}
	l.Authenticate = func(_ context.Context, c broker.Credentials) (broker.Login, error) {
		if string(c.Password) != "pass-"+c.Username {
			return broker.Login{}, errors.New("wrong password")
		}
		return broker.Login{Identity: c.Username}, nil
	}
}

// stranger dials without a certificate.
func (s *site) stranger(tb testing.TB) raw {
	tb.Helper()
	c := s.clientTLS(tb, "unused").Clone()
	c.Certificates = nil
	conn, ok := must((&tls.Dialer{Config: c}).DialContext(tb.Context(), "tcp", s.addr))(tb).(*tls.Conn)
	if !ok {
		tb.Fatal("not a TLS connection")
	}
	tb.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		tb.Fatal(err)
	}
	return raw{conn}
}

// login311 and login5 ask for a clean session with user name and password; without a user name, with neither.
func login311(user, password string) []byte {
	if user == "" {
		return connect311("id")
	}
	return packet(0x10, str("MQTT"), []byte{4, 0xc2, 0, 60}, str("id"), str(user), str(password))
}

func login5(user, password string) []byte {
	if user == "" {
		return connect5("id")
	}
	return packet(0x10, str("MQTT"), []byte{5, 0xc2, 0, 60, 0}, str("id"), str(user), str(password))
}

func TestLogin(t *testing.T) {
	anonymous := func(c *broker.Config) { open(c); c.Listeners[0].AllowAnonymous = true }
	ignoring := func(c *broker.Config) { open(c); c.Listeners[0].IgnoreCertificateName = true }
	idIsName := func(c *broker.Config) { open(c); c.Listeners[0].ClientIDIsIdentity = true }
	noPasswords := func(c *broker.Config) { anonymous(c); c.Listeners[0].Authenticate = nil }
	for _, tc := range []struct {
		name           string
		change         func(*broker.Config)
		certificate    string // "": none
		user, password string
		code4, code5   byte
		reason         broker.Reason
	}{
		{"password", open, "", "alice", "pass-alice", 0, 0, ""},
		{"wrong password", open, "", "alice", "pass-bob", 5, 0x86, broker.ReasonLogin},
		{"empty password", open, "", "alice", "", 5, 0x86, broker.ReasonLogin},
		{"name of the node", open, "", node, "pass-" + node, 5, 0x86, broker.ReasonLogin},
		{"no name", open, "", "a b", "pass-a b", 5, 0x86, broker.ReasonLogin},
		{"nobody", open, "", "", "", 5, 0x86, broker.ReasonLogin},
		{"anonymous", anonymous, "", "", "", 0, 0, ""},
		{"wrong password where anonymous would do", anonymous, "", "alice", "x", 5, 0x86, broker.ReasonLogin},
		{"password where none is taken", noPasswords, "", "alice", "pass-alice", 5, 0x86, broker.ReasonLogin},
		{"certificate", open, "alice", "", "", 0, 0, ""},
		{"certificate and password of another", open, "alice", "bob", "pass-bob", 5, 0x86, broker.ReasonUsername},
		{"certificate whose name does not count", ignoring, "alice", "bob", "pass-bob", 0, 0, ""},
		{"only a certificate whose name does not count", ignoring, "alice", "", "", 5, 0x86, broker.ReasonLogin},
		{"client id is not the name", idIsName, "", "alice", "pass-alice", 2, 0x85, broker.ReasonClientID},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, tc.change)
			for _, v := range []struct {
				hello []byte
				code  byte
			}{{login311(tc.user, tc.password), tc.code4}, {login5(tc.user, tc.password), tc.code5}} {
				c := raw{}
				if tc.certificate == "" {
					c = s.stranger(t)
				} else {
					c = s.dialRaw(t, tc.certificate)
				}
				c.send(t, v.hello)
				if ack := c.read(t); ack[0] != 0x20 || ack[3] != v.code {
					t.Errorf("CONNACK % x, want code %#x", ack, v.code)
				}
			}
			if n := s.Stats().ByReason[tc.reason]; tc.reason != "" && n != 2 {
				t.Errorf("%d counted as %s, want 2", n, tc.reason)
			}
		})
	}
}

// Where a certificate is asked for, there is no way around it.
func TestNoCertificateWhereOneIsRequired(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		config := c.Listeners[0].TLS
		open(c)
		c.Listeners[0].TLS = config
	})
	c := s.stranger(t)
	_, _ = c.Write(login311("alice", "pass-alice")) // TLS 1.3 tells of a missing certificate after the handshake
	c.wantClosed(t)
	eventually(t, "refused", func() bool { return s.Stats().ByReason[broker.ReasonHandshake] == 1 })
	if n := s.Stats().Accepted; n != 0 {
		t.Errorf("%d accepted", n)
	}
}

// Rules are for names, and an anonymous client has none.
func TestAnonymousHasNoRules(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		open(c)
		c.Listeners[0].AllowAnonymous = true
		c.Policy.ACLFile = must(broker.ParseACLFile("acl", []byte("topic readwrite public\n")))(t)
	})
	c := s.stranger(t)
	c.send(t, connect5("id"))
	c.read(t)
	for topic, code := range map[string]byte{"public": 0, "other": 0x87, "telemetry//x": 0x87} {
		if _, _, reason := c.publishes(t, 5, 1, false, topic); reason != code {
			t.Errorf("%s: reason code %#x, want %#x", topic, reason, code)
		}
	}
}

// A session by password is the same as one by certificate of the same name, and nobody else's.
func TestLoginOwnsTheSessionsOfItsName(t *testing.T) {
	s := start(t, open)
	c := s.dialRaw(t, "alice")
	c.send(t, persistent311("id"))
	c.read(t)
	c.send(t, []byte{0xe0, 0})
	c.wantClosed(t)
	for user, present := range map[string]byte{"bob": 0, "alice": 1} {
		c := s.stranger(t)
		c.send(t, packet(0x10, str("MQTT"), []byte{4, 0xc0, 0, 60}, str("id"), str(user), str("pass-"+user)))
		if ack := c.read(t); ack[2] != present || ack[3] != 0 {
			t.Errorf("%s: CONNACK % x, want session present %d", user, ack, present)
		}
	}
}

func TestLoginExpires(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		open(c)
		c.Listeners[0].Authenticate = func(_ context.Context, c broker.Credentials) (broker.Login, error) {
			return broker.Login{Identity: c.Username, Expires: time.Now().Add(map[string]time.Duration{"soon": time.Second, "over": -1, "later": time.Hour}[c.Username])}, nil
		}
	})
	for user, code := range map[string]byte{"over": 0x86, "soon": 0, "later": 0} {
		c := s.stranger(t)
		c.send(t, login5(user, "x"))
		if ack := c.read(t); ack[3] != code {
			t.Fatalf("%s: CONNACK % x, want code %#x", user, ack, code)
		}
		if user == "soon" {
			if p := c.read(t); p[0] != 0xe0 || p[2] != 0x87 {
				t.Errorf("received % x, want DISCONNECT", p)
			}
			c.wantClosed(t)
		}
		if user == "later" {
			defer func() {
				c.send(t, []byte{0xc0, 0})
				if p := c.read(t); p[0] != 0xd0 {
					t.Errorf("received % x, want the answer to PINGREQ", p)
				}
			}()
		}
	}
	eventually(t, "expired", func() bool { return s.Stats().ByReason[broker.ReasonExpired] == 1 })
}

// Recheck ends sessions whose password is another now, one that was judged by the old one in that moment included.
func TestRecheckEndsLogins(t *testing.T) {
	var changed atomic.Bool
	judging, leave := make(chan struct{}), make(chan struct{})
	s := start(t, func(c *broker.Config) {
		open(c)
		c.Listeners[0].Authenticate = func(_ context.Context, c broker.Credentials) (broker.Login, error) {
			login := broker.Login{Identity: c.Username, Valid: func() error {
				if changed.Load() && c.Username != "bob" {
					return errors.New("changed")
				}
				return nil
			}}
			if c.Username == "slow" {
				close(judging)
				<-leave
			}
			return login, nil
		}
	})
	connect := func(user string) raw {
		c := s.stranger(t)
		c.send(t, login5(user, "x"))
		return c
	}
	alice, bob, slow := connect("alice"), connect("bob"), connect("slow")
	alice.read(t)
	bob.read(t)
	carol := s.dialRaw(t, "carol")
	carol.send(t, connect5("id"))
	carol.read(t)
	<-judging
	changed.Store(true)
	s.Recheck(func(tls.ConnectionState) error { return nil })
	close(leave)
	if ack := slow.read(t); ack[3] != 0x86 {
		t.Errorf("judged by what was replaced meanwhile: CONNACK % x", ack)
	}
	if p := alice.read(t); p[0] != 0xe0 || p[2] != 0x87 {
		t.Errorf("received % x, want DISCONNECT", p)
	}
	for _, c := range []raw{bob, carol} {
		c.send(t, []byte{0xc0, 0})
		if p := c.read(t); p[0] != 0xd0 {
			t.Errorf("received % x, want the answer to PINGREQ", p)
		}
	}
}

// Who waits for the judgement of a password is told so when the time is up, and let go when displaced.
func TestSlowLogin(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		open(c)
		c.Limits.ConnectTimeout = 300 * time.Millisecond
		c.Listeners[0].Authenticate = func(ctx context.Context, _ broker.Credentials) (broker.Login, error) {
			<-ctx.Done()
			return broker.Login{}, ctx.Err()
		}
	})
	for version, code := range map[byte]byte{4: 3, 5: 0x88} {
		c := s.stranger(t)
		hello := login311("alice", "x")
		if version == 5 {
			hello = login5("alice", "x")
		}
		c.send(t, hello)
		if ack := c.read(t); ack[3] != code {
			t.Errorf("version %d: CONNACK % x, want code %#x", version, ack, code)
		}
	}
	d := start(t, func(c *broker.Config) {
		open(c)
		c.Limits.MaxPendingPerAddress, c.Limits.ConnectTimeout = 1, time.Hour
		c.Listeners[0].Authenticate = func(ctx context.Context, _ broker.Credentials) (broker.Login, error) {
			<-ctx.Done()
			return broker.Login{}, ctx.Err()
		}
	})
	for range 3 {
		c := d.stranger(t)
		c.send(t, login311("alice", "x"))
	}
	eventually(t, "displaced ones have gone", func() bool { return d.Stats().Connections <= 1 })
}

// Who watches over a login ends its session; RecheckLogins ends those whose login is no longer valid, and no others.
func TestWatchedLogin(t *testing.T) {
	revoked, gone := make(chan struct{}), make(chan string, 10)
	var invalid atomic.Bool
	s := start(t, func(c *broker.Config) {
		open(c)
		c.Listeners[0].Authenticate = func(_ context.Context, c broker.Credentials) (broker.Login, error) {
			name := c.Username
			return broker.Login{
				Identity: name,
				Valid: func() error {
					if invalid.Load() && name == "bob" {
						return errors.New("key withdrawn")
					}
					return nil
				},
				Watch: func(ctx context.Context) error {
					defer func() { gone <- name }()
					select {
					case <-revoked:
						if name == "alice" {
							return errors.New("revoked by the issuer")
						}
						<-ctx.Done()
					case <-ctx.Done():
					}
					return nil
				},
			}, nil
		}
	})
	clients := map[string]raw{}
	for _, name := range []string{"alice", "bob", "carol"} {
		clients[name] = s.stranger(t)
		clients[name].send(t, login5(name, "x"))
		clients[name].read(t)
	}
	wantEnd := func(name, detail string) {
		t.Helper()
		if p := clients[name].read(t); p[0] != 0xe0 || p[2] != 0x87 {
			t.Errorf("%s: received % x, want DISCONNECT", name, p)
		}
		clients[name].wantClosed(t)
		if who := <-gone; who != name {
			t.Errorf("the watch over %s has ended, want %s", who, name)
		}
		eventually(t, "logged", func() bool { return strings.Contains(s.log.String(), detail) })
	}
	close(revoked)
	wantEnd("alice", "revoked by the issuer")
	invalid.Store(true)
	s.RecheckLogins()
	wantEnd("bob", "key withdrawn")
	carol := clients["carol"]
	carol.send(t, []byte{0xc0, 0})
	if p := carol.read(t); p[0] != 0xd0 {
		t.Errorf("received % x, want the answer to PINGREQ", p)
	}
	_ = carol.Close()
	if who := <-gone; who != "carol" {
		t.Errorf("the watch over %s has ended, want carol", who)
	}
}
