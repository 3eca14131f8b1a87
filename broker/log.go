package broker

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// How a connection ends where we do not end it; beside the reasons, in the log only.
const (
	endGoodbye  = "goodbye"  // the client has said DISCONNECT
	endLost     = "lost"     // it has gone without
	endShutdown = "shutdown" // the broker stops
)

const maxLoggedID = 128 // bytes

// hello is what a CONNECT says about who sends it.
type hello struct {
	clientID string // as the client says it, or as it was assigned
	protocol string // as people call it
}

func (c *conn) noteHello(pk *packets.Packet) {
	protocol := "3.1.1"
	if pk.ProtocolVersion == version5 {
		protocol = "5.0"
	}
	c.hello.Store(&hello{shortened(pk.Connect.ClientIdentifier), protocol})
}

// shortened keeps a client that has not been let in from writing long lines.
func shortened(clientID string) string {
	if len(clientID) <= maxLoggedID {
		return clientID
	}
	return strings.ToValidUTF8(clientID[:maxLoggedID], "") + "…"
}

func (c *conn) noteAssigned(clientID string) {
	c.hello.Store(&hello{shortened(clientID), c.hello.Load().protocol})
}

// attrs is who a client is, as far as it is known.
func (c *conn) attrs() slog.Attr {
	listener := "memory"
	if c.listener != nil {
		listener = c.listener.Name
	}
	who := []any{
		slog.String("identity", c.identity()), slog.String("listener", listener), slog.String("address", c.raw.RemoteAddr().String()),
	}
	if h := c.hello.Load(); h != nil {
		who = append(who, slog.String("id", h.clientID), slog.String("protocol", h.protocol))
	}
	return slog.Group("client", who...)
}

func (b *Broker) connected(c *conn, id string) {
	c.since = time.Now()
	if write, suppressed := b.journal.connected.count(); write {
		b.log.LogAttrs(context.Background(), slog.LevelInfo, "client connected",
			slog.String("session", id), c.attrs(), unlogged(suppressed))
	}
}

// disconnected notes the end of every connection that was let in. What we ended has a line with details already.
func (b *Broker) disconnected(c *conn, id string) {
	if c.since.IsZero() {
		return
	}
	if write, suppressed := b.journal.departed.count(); write {
		b.log.LogAttrs(context.Background(), slog.LevelInfo, "client disconnected",
			slog.String("reason", b.whyGone(c)), slog.String("session", id), c.attrs(),
			slog.Float64("seconds", float64(time.Since(c.since).Round(time.Millisecond).Milliseconds())/1000), unlogged(suppressed))
	}
}

func (b *Broker) whyGone(c *conn) string {
	if reason := c.ending.Load(); reason != nil {
		return string(*reason)
	}
	if c.goodbye {
		return endGoodbye
	}
	select {
	case <-b.stopping:
		return endShutdown
	default:
		return endLost
	}
}
