package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"pinseal/broker/internal/frame"
	"pinseal/pki"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	minAcceptBackoff = 5 * time.Millisecond
	maxAcceptBackoff = time.Second
)

// accept serves a listener until it is closed. An error that is not the end of the listener (out of file descriptors, a
// connection reset while it waited) is tried again; failed is told when someone else closes the listener.
func (b *Broker) accept(ctx context.Context, l *Listener, failed func(error)) {
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return
		}
	}
	backoff := minAcceptBackoff
	for {
		raw, err := l.Net.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close() // nothing was said on it
			}
			return
		}
		if err == nil {
			backoff = minAcceptBackoff
			b.admit(raw, l)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			failed(fmt.Errorf("listener %s: %w", l.Name, err))
			return
		}
		b.acceptFailed(l, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxAcceptBackoff)
	}
}

// admit starts serving a connection if the caps allow it.
func (b *Broker) admit(raw net.Conn, l *Listener) {
	b.journal.traffic.sockets.Add(1)
	c := newConn(b, raw, l, addressOf(raw))
	displaced, reason := b.conns.add(c)
	if reason == "" {
		go b.greet(c)
		if displaced != nil {
			displaced.kick(ReasonDisplaced, packets.ErrServerBusy)
		}
		return
	}
	c.end(reason, "")
	_ = raw.Close() // nothing was said on it
}

func addressOf(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// greet brings a connection to where serve goes on, or to its end. Then its goroutine ends, and takes the stack along that
// a handshake and a CONNECT need and what comes later does not.
func (b *Broker) greet(c *conn) {
	if b.guarded(c, b.welcome) {
		go b.serve(c)
		return
	}
	b.depart(c)
}

// welcome reports whether a client is let in.
func (b *Broker) welcome(c *conn) bool {
	if err := c.raw.SetDeadline(time.Now().Add(b.limits.Load().ConnectTimeout)); err != nil {
		return false // closed already
	}
	if err := c.handshake(); err != nil {
		c.end(ReasonHandshake, err.Error())
		return false
	}
	if ok := b.judge.Load(); ok != nil && c.listener != nil { // the handshake may have begun before a change
		if reason := c.acceptable(*ok); reason != "" {
			c.end(reason, "")
			return false
		}
	}
	return b.connect(c)
}

// guarded keeps a panic from ending more than the connection.
func (b *Broker) guarded(c *conn, do func(*conn) bool) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			ok = false
			c.end(ReasonPanic, fmt.Sprint(p))
			b.log.LogAttrs(context.Background(), slog.LevelError, "recovered from a panic",
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		}
	}()
	return do(c)
}

// depart leaves nothing of the connection.
func (b *Broker) depart(c *conn) {
	_ = c.Close() // at most the second time
	b.guarded(c, b.release)
	b.rates.leave(c.publishing)
	c.reading.pay(b)
	close(c.gone)
	<-c.out.finished
	b.conns.remove(c)
}

// handshake finds out who the client is, and puts TLS and WebSocket between it and us. The connection made by Dial is
// the node itself.
func (c *conn) handshake() error {
	if c.listener == nil {
		c.peer.Store(&peer{identity: c.broker.node, named: true})
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.broker.limits.Load().ConnectTimeout)
	defer cancel()
	p := &peer{}
	if c.listener.TLS != nil {
		var err error
		if c.tls, err = c.broker.turns.shake(ctx, c.raw, c.listener.TLS); err != nil {
			return err
		}
		c.Conn = c.tls
		if p, err = c.named(); err != nil {
			return err
		}
	}
	if c.listener.WebSocket {
		socket, err := c.upgrade(c.Conn)
		if err != nil {
			return err
		}
		c.Conn = socket
		if deadline, ok := ctx.Deadline(); ok { // the upgrade takes them away
			if err := c.raw.SetDeadline(deadline); err != nil {
				return err
			}
		}
	}
	c.peer.Store(p)
	return nil
}

// named is who the certificate says that the client is.
func (c *conn) named() (*peer, error) {
	cs := c.tls.ConnectionState()
	verified := len(cs.PeerCertificates) > 0 && len(cs.VerifiedChains) > 0
	switch l := c.listener; {
	case !verified && (len(cs.PeerCertificates) > 0 || !l.AllowAnonymous && l.Authenticate == nil):
		return nil, errors.New("no verified client certificate")
	case !verified || l.IgnoreCertificateName:
		return &peer{}, nil
	}
	identity, err := pki.Identity(cs.PeerCertificates[0])
	if err == nil && identity == c.broker.node {
		err = errNodeName
	}
	return &peer{identity: identity, named: true, err: err}, nil
}

func (l *Limits) frame() frame.Limits {
	return frame.Limits{
		PacketBytes:    l.MaxPacketBytes,
		TopicBytes:     l.MaxTopicBytes,
		TopicLevels:    l.MaxTopicLevels,
		Filters:        l.MaxFilters,
		TopicAliases:   l.MaxTopicAliases,
		UserProperties: l.MaxUserProperties,
	}
}

// Dial makes a connection in memory whose identity is Config.Node. It waits until the broker is ready. After Run has
// ended, the error is net.ErrClosed.
func (b *Broker) Dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.ready:
	}
	near, far := net.Pipe()
	c := newConn(b, far, nil, netip.Addr{})
	if _, refused := b.conns.add(c); refused != "" {
		return nil, net.ErrClosed
	}
	go b.greet(c)
	return near, nil
}

// Recheck closes the connections whose certificate ok no longer accepts, and those whose Login is no longer valid. From
// then on ok, which must be safe for concurrent use, also judges every handshake when it is done: it may have begun before
// the change. Recheck is called after certificates, authorities, revocations or passwords have changed.
func (b *Broker) Recheck(ok func(tls.ConnectionState) error) {
	b.judge.Store(&ok)
	for _, c := range b.conns.snapshot() {
		if c.listener == nil {
			continue
		}
		if reason := c.acceptable(ok); reason != "" {
			c.kick(reason, packets.ErrNotAuthorized)
		}
	}
}

// Disconnect closes every connection of the identity and returns how many there were.
func (b *Broker) Disconnect(identity string) int {
	n := 0
	for _, c := range b.conns.snapshot() {
		if c.identity() == identity {
			n++
			c.kick(ReasonDisconnected, packets.ErrAdministrativeAction)
		}
	}
	return n
}
