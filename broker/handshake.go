package broker

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
)

// turns are what handshakes compute in: as many at a time as there are processors. A handshake costs much more than a
// message, and strangers decide how many there are: without turns, whoever is let in already would share the processors
// with all of them.
type turns chan struct{}

func newTurns() turns { return make(turns, runtime.GOMAXPROCS(0)) }

func (t turns) take() { t <- struct{}{} }
func (t turns) give() { <-t }

// shake does the handshake of TLS over raw. While it waits for the peer, others have the turn.
func (t turns) shake(ctx context.Context, raw net.Conn, config *tls.Config) (*tls.Conn, error) {
	waiting := &waitingConn{Conn: raw, turns: t}
	conn := tls.Server(waiting, config)
	t.take()
	defer func() { // also where that panics
		t.give()
		waiting.turns = nil
	}()
	return conn, conn.HandshakeContext(ctx)
}

// waitingConn gives its turn to others while it reads and writes.
type waitingConn struct {
	net.Conn
	turns turns // nil after the handshake
}

func (c *waitingConn) Read(p []byte) (int, error) {
	if c.turns != nil {
		c.turns.give()
		defer c.turns.take()
	}
	return c.Conn.Read(p)
}

func (c *waitingConn) Write(p []byte) (int, error) {
	if c.turns != nil {
		c.turns.give()
		defer c.turns.take()
	}
	return c.Conn.Write(p)
}
