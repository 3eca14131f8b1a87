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

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// conn is a connection from being accepted to its end. To mochi it is a net.Conn that only ever delivers well-formed
// packets, whose writes never block and whose Close returns at once.
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

	peer     atomic.Pointer[peer]        // set by the handshake
	client   atomic.Pointer[mqtt.Client] // set by OnConnect
	admitted atomic.Bool                 // the CONNACK is out
	ending   atomic.Pointer[Reason]      // why we ended it, if we did
	ended    chan struct{}               // closed when ending is set
	password []byte                      // between reading the CONNECT and judging it
	gone     chan struct{}               // closed when mochi is done with it
	closing  chan struct{}               // closed by Close and after a failed write

	hello   atomic.Pointer[hello] // set when its CONNECT is read
	since   time.Time             // when it was let in; this and goodbye are of the goroutine that reads
	goodbye bool                  // it has said DISCONNECT

	clientID  string // set by OnConnect, as is the will
	will      *will
	maxPacket uint32            // the largest packet the client takes, 0 for any
	aliases   map[uint16]string // of topics, as the client has given them; of the goroutine that reads
	emptyWill bool              // mochi refuses a will without payload

	session atomic.Pointer[session] // set when it is acquired
	present bool                    // there was one, and it goes on

	publishing *publishRate // of the identity, as soon as it has published; of the goroutine that reads
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

// Read is called by one goroutine of mochi.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.broker.journal.traffic.bytesIn.Add(uint64(n)) //nolint:gosec // not negative
	if err != nil {
		c.readFailed(err)
	}
	return n, err
}

// readFailed tells a client that broke the protocol so, where the protocol has words for it.
func (c *conn) readFailed(err error) {
	bad, isBad := errors.AsType[*frame.Error](err)
	switch {
	case isBad:
		reason := ReasonMalformed
		switch bad.Code {
		case frame.CodeTooLarge:
			reason = ReasonTooLarge
		case frame.CodeUnsupportedVersion:
			reason = ReasonVersion
			_, _ = c.Write([]byte{0x20, 2, 0, 1}) // CONNACK of MQTT 3.1.1 section 3.2.2.3; the connection ends anyway
		}
		if c.end(reason, bad.Text) && c.admitted.Load() && c.in.Version() == frame.Version5 {
			_, _ = c.Write([]byte{0xe0, 2, bad.Code, 0}) // DISCONNECT; the connection ends anyway
		}
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.closed():
		c.end(ReasonTimeout, "")
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

// SetDeadline is how mochi sets the keep alive; writes have a deadline of their own.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

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
	cl := c.client.Load()
	if cl == nil || !c.admitted.Load() {
		_ = c.raw.Close() // whoever serves it finds out
		return
	}
	// Its error is that of a client that has gone already.
	_ = c.broker.server.DisconnectClient(cl, code)
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
