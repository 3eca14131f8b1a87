package broker

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"pinseal/pki"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Credentials are what a client without a certificate shows in its CONNECT.
type Credentials struct {
	Username string // may be empty
	Password []byte // must not be kept
	Address  netip.Addr
}

// Login is what Credentials were good for.
type Login struct {
	// Identity is the client's name.
	Identity string
	// Expires ends the session; zero is never.
	Expires time.Time
	// Valid reports why the same credentials would no longer do; nil if they would. It may be nil itself: then they
	// always would. It is asked by Recheck and must be safe for concurrent use.
	Valid func() error
	// Watch runs beside the session and ends it by returning why; nil, which it returns when its context ends, does not.
	// It may be nil itself.
	Watch func(context.Context) error
}

// still is nil while the login may go on.
func (l *Login) still() error {
	if l == nil || l.Valid == nil {
		return nil
	}
	return l.Valid()
}

// logIn finds out who a client is that no certificate names.
func (b *Broker) logIn(c *conn, pk *packets.Packet) *refusal {
	l, username, password := c.listener, string(pk.Connect.Username), pk.Connect.Password
	switch {
	case username == "" && len(password) == 0 && l.AllowAnonymous:
		c.peer.Store(&peer{})
		return nil
	case username == "" && len(password) == 0:
		return &refusal{ReasonLogin, packets.ErrBadUsernameOrPassword, "neither a certificate's name nor a user name"}
	case l.Authenticate == nil:
		return &refusal{ReasonLogin, packets.ErrBadUsernameOrPassword, "no certificate, and this listener takes no passwords"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.limits.Load().ConnectTimeout)
	defer cancel()
	go func() { // whose connection has been ended need not wait for its turn
		select {
		case <-c.ended:
			cancel()
		case <-b.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	login, err := l.Authenticate(ctx, Credentials{username, password, c.address})
	if err == nil {
		err = b.checkLogin(&login)
	}
	if err != nil && ctx.Err() != nil {
		return &refusal{ReasonTimeout, packets.ErrServerUnavailable, err.Error()}
	}
	if err != nil {
		return &refusal{ReasonLogin, packets.ErrBadUsernameOrPassword, err.Error()}
	}
	c.peer.Store(&peer{identity: login.Identity, login: &login})
	// What it rests on may have changed meanwhile, and Recheck may have come by before it was stored.
	if err := login.still(); err != nil {
		return &refusal{ReasonLogin, packets.ErrBadUsernameOrPassword, err.Error()}
	}
	return nil
}

func (b *Broker) checkLogin(l *Login) error {
	switch {
	case !pki.ValidName(l.Identity):
		return errors.New("no client can have that name")
	case l.Identity == b.node:
		return errNodeName
	case !l.Expires.IsZero() && !time.Now().Before(l.Expires):
		return errors.New("expired")
	}
	return nil
}

// errNodeName keeps the node's name for connections made by Dial.
var errNodeName = errors.New("the name of the node itself")

// endLogins ends the sessions whose login has expired.
func (b *Broker) endLogins(now time.Time) {
	for _, c := range b.conns.snapshot() {
		if p := c.peer.Load(); p != nil && p.login != nil && !p.login.Expires.IsZero() && !now.Before(p.login.Expires) {
			c.kick(ReasonExpired, packets.ErrNotAuthorized)
		}
	}
}

// watch ends the session when its login says so.
func (b *Broker) watch(c *conn, l *Login) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-c.gone
		cancel()
	}()
	if err := l.Watch(ctx); err != nil && ctx.Err() == nil {
		c.end(ReasonLogin, err.Error())
		c.dismiss(packets.ErrNotAuthorized)
	}
}

// RecheckLogins closes the connections whose Login is no longer valid.
func (b *Broker) RecheckLogins() {
	for _, c := range b.conns.snapshot() {
		p := c.peer.Load()
		if p == nil {
			continue
		}
		if err := p.login.still(); err != nil {
			c.end(ReasonLogin, err.Error())
			c.dismiss(packets.ErrNotAuthorized)
		}
	}
}
