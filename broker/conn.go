package broker

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"pinseal/broker/internal/frame"

	"github.com/mochi-mqtt/server/v2/packets"
)

// conn is a connection from being accepted to its end. Its writes never block, and its Close returns at once.
type conn struct {
	net.Conn // raw, TLS over it, or a WebSocket over either
	raw      net.Conn
	tls      *tls.Conn // nil without TLS
	broker   *Broker
	listener *Listener // nil for connections made by Dial
	limits   *Limits   // of when it was made: some of them the client is told, and keeps to
	address  netip.Addr
	number   uint64 // of connections from the network, in the order in which they came
	in       *frame.Reader
	out      outbox

	peer     atomic.Pointer[peer]    // set by the handshake
	hello    atomic.Pointer[hello]   // set when its CONNECT is read
	session  atomic.Pointer[session] // set when it is acquired
	admitted atomic.Bool             // the CONNACK is out
	ending   atomic.Pointer[Reason]  // why we ended it, if we did
	ended    chan struct{}           // closed when ending is set
	closing  chan struct{}           // closed by Close and after a failed write
	gone     chan struct{}           // closed when its session is free again

	// What its CONNECT has said. Other goroutines may read it once the client is admitted.
	version        byte
	clean          bool
	terse          bool // it wants no reasons (section 3.1.2.11.7)
	clientID       string
	will           *will
	keepAlive      uint16 // in seconds, 0 before the CONNECT
	receiveMaximum uint16 // how many QoS 1 and 2 messages it takes at a time
	maxPacket      int32  // the largest packet it takes, 0 for any

	// Of the goroutine that reads.
	expiry     uint32            // of the session in seconds, within the limit
	since      time.Time         // when it was let in
	heard      bool              // it has sent a packet since the keep alive was renewed
	goodbye    bool              // it has said DISCONNECT
	topic      string            // of the last PUBLISH
	aliases    map[uint16]string // of topics, as the client has given them
	publishing *publishRate      // of the identity, as soon as it has published
	reading    tab               // of what has come of a packet
}

// peer is who a client is, as far as it is known.
type peer struct {
	identity string
	named    bool   // by its certificate, or because it is the node
	err      error  // why the certificate names nobody
	login    *Login // by which it was let in, if not by its certificate
}

func (c *conn) identity() string {
	if p := c.peer.Load(); p != nil {
		return p.identity
	}
	return ""
}

func newConn(b *Broker, raw net.Conn, l *Listener, address netip.Addr) *conn {
	c := &conn{Conn: raw, raw: raw, broker: b, listener: l, limits: b.limits.Load(), address: address, gone: make(chan struct{}), closing: make(chan struct{}), ended: make(chan struct{})}
	c.out.changed.L = &c.out.mu
	c.out.finished = make(chan struct{})
	return c
}

// Read reads what the client sends. It renews the keep alive once for each packet that it waits for, which must then come
// as a whole (section 3.1.2.10).
func (c *conn) Read(p []byte) (int, error) {
	if c.heard && c.keepAlive > 0 {
		c.heard = false
		if err := c.SetReadDeadline(time.Now().Add(time.Duration(c.keepAlive) * time.Second * 3 / 2)); err != nil {
			return 0, err
		}
		if c.closed() { // and the deadline that Close has set is no longer
			return 0, net.ErrClosed
		}
	}
	return c.Conn.Read(p)
}

// readFailed tells a client that broke the protocol so, where the protocol has words for it.
func (c *conn) readFailed(err error) {
	bad, isBad := errors.AsType[*frame.Error](err)
	switch {
	case isBad:
		reason := ReasonMalformed
		switch {
		case errors.Is(err, frame.ErrNoRoom):
			reason = ReasonWaitingFull
		case bad.Code == frame.CodeTooLarge:
			reason = ReasonTooLarge
		case bad.Code == frame.CodeUnsupportedVersion:
			reason = ReasonVersion
			_, _ = c.Write([]byte{0x20, 2, 0, 1}) // CONNACK of MQTT 3.1.1 section 3.2.2.3; the connection ends anyway
		}
		if c.end(reason, bad.Text) && c.admitted.Load() && c.in.Version() == frame.Version5 {
			_, _ = c.Write([]byte{0xe0, 2, bad.Code, 0}) // DISCONNECT; the connection ends anyway
		}
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.closed():
		c.kick(ReasonTimeout, packets.ErrKeepAliveTimeout)
	}
}

// closed reports whether Close was called, which ends a Read by a deadline in the past.
func (c *conn) closed() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// end notes why the connection ends. Only the first reason counts; end reports whether this was it.
func (c *conn) end(reason Reason, detail string) bool {
	if !c.ending.CompareAndSwap(nil, &reason) {
		return false
	}
	close(c.ended)
	c.broker.refused(reason, c, detail)
	return true
}

// kick ends the connection from outside.
func (c *conn) kick(reason Reason, code packets.Code) {
	c.end(reason, "")
	c.dismiss(code)
}

// dismiss closes the connection; an MQTT 5 client is told why.
func (c *conn) dismiss(code packets.Code) {
	if !c.admitted.Load() {
		_ = c.raw.Close() // whoever serves it finds out
		return
	}
	c.sendDisconnect(code)
	_ = c.Close() // at most the second time
}

// acceptable reports whether the connection would still be let in, as far as certificates and logins are concerned.
func (c *conn) acceptable(ok func(tls.ConnectionState) error) Reason {
	p := c.peer.Load() // it is stored after tls
	if p == nil {
		return "" // it is judged when its handshake is done
	}
	if c.tls != nil {
		if state := c.tls.ConnectionState(); len(state.PeerCertificates) > 0 && ok(state) != nil {
			return ReasonCertificate
		}
	}
	if p.login.still() != nil {
		return ReasonLogin
	}
	return ""
}
