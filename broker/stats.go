package broker

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// Reason says why a connection was refused or ended, or why something a client asked for was denied.
type Reason string

// The fixed list of reasons.
const (
	ReasonTooManyConnections   Reason = "too-many-connections"    // the caps on connections
	ReasonConnectRate          Reason = "connect-rate"            // MaxConnectRate
	ReasonDisplaced            Reason = "displaced"               // the oldest silent connection made room for a new one
	ReasonHandshake            Reason = "handshake"               // TLS failed: no certificate, a foreign one, an expired one
	ReasonOrigin               Reason = "origin-not-allowed"      // a web page that is not in Listener.Origins
	ReasonTimeout              Reason = "timeout"                 // no CONNECT in time, or silence beyond the keep alive
	ReasonMalformed            Reason = "malformed"               // a packet that the protocol forbids
	ReasonTooLarge             Reason = "packet-too-large"        // a packet above MaxPacketBytes
	ReasonVersion              Reason = "unsupported-version"     // neither MQTT 3.1.1 nor 5.0
	ReasonIdentity             Reason = "bad-identity"            // no usable name in the certificate, or the node's own
	ReasonUsername             Reason = "wrong-username"          // a user name that is not the identity
	ReasonLogin                Reason = "bad-login"               // no name at all, an unknown one, a wrong password or token
	ReasonExpired              Reason = "login-expired"           // a session that outlived its token
	ReasonClientID             Reason = "bad-client-id"           // too long, not the identity, or missing
	ReasonAuthMethod           Reason = "bad-authentication"      // MQTT 5 enhanced authentication is not offered
	ReasonWill                 Reason = "will-not-permitted"      // a will that could not have been published
	ReasonPublish              Reason = "publish-not-permitted"   // no rule allows it
	ReasonReserved             Reason = "reserved"                // a topic that only the node may publish to
	ReasonRetained             Reason = "retained"                // a retained message where none is accepted
	ReasonQoS                  Reason = "qos-not-permitted"       // a rule allows it, at a lower quality of service
	ReasonSubscribe            Reason = "subscribe-not-permitted" // no rule allows it
	ReasonTooManySubscriptions Reason = "too-many-subscriptions"  // MaxSubscriptions
	ReasonDelivery             Reason = "delivery-not-permitted"  // a subscription that the policy no longer allows
	ReasonQueueFull            Reason = "queue-full"              // a message a client had no room for
	ReasonRetainedFull         Reason = "retained-full"           // a retained message beyond MaxRetained or MaxRetainedBytes, of all or of an identity
	ReasonStoredFull           Reason = "stored-full"             // what a session has no room for beyond MaxStoredMessages or MaxStoredBytes
	ReasonWaitingFull          Reason = "waiting-full"            // what a connected client has no room for beyond MaxWaitingBytes
	ReasonStorage              Reason = "storage"                 // a message that could not be written to the disk
	ReasonThrottled            Reason = "throttled"               // a publish that had to wait for MaxPublishRate or MaxPublishBytesRate
	ReasonReceiveMaximum       Reason = "receive-maximum"         // more QoS 2 messages than ReceiveMaximum without PUBREL
	ReasonSlow                 Reason = "slow"                    // a client that did not read within WriteTimeout
	ReasonCertificate          Reason = "certificate"             // a certificate that is no longer accepted
	ReasonRevoked              Reason = "revoked"                 // an identity that Policy.Denied names
	ReasonTakenOver            Reason = "taken-over"              // the same client connected again
	ReasonDisconnected         Reason = "disconnected"            // Disconnect was called
	ReasonPanic                Reason = "panic"                   // a defect; the connection was given up
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{
		ReasonTooManyConnections, ReasonConnectRate, ReasonDisplaced, ReasonHandshake, ReasonOrigin, ReasonTimeout, ReasonMalformed, ReasonTooLarge,
		ReasonVersion, ReasonIdentity, ReasonUsername, ReasonLogin, ReasonExpired, ReasonClientID, ReasonAuthMethod, ReasonWill, ReasonPublish,
		ReasonReserved, ReasonRetained, ReasonQoS, ReasonSubscribe, ReasonTooManySubscriptions, ReasonDelivery, ReasonQueueFull,
		ReasonRetainedFull, ReasonStoredFull, ReasonWaitingFull, ReasonStorage, ReasonReceiveMaximum,
		ReasonThrottled, ReasonSlow, ReasonCertificate, ReasonRevoked, ReasonTakenOver, ReasonDisconnected, ReasonPanic,
	}
}

// Stats is what the broker has counted since it was made.
type Stats struct {
	// Connections is the number of network connections now, Pending of those that have not been accepted yet.
	Connections, Pending int
	// Sessions counts the sessions of connected and absent clients now, Subscriptions theirs, Retained the messages.
	Sessions, Subscriptions, Retained int
	// StoredMessages and StoredBytes are what counts against the limits of these names.
	StoredMessages, StoredBytes int
	// WaitingBytes is what counts against MaxWaitingBytes.
	WaitingBytes int
	// Accepted counts the clients whose CONNECT was accepted.
	Accepted uint64
	// Received and Sent count PUBLISH packets.
	Received, Sent uint64
	// ByReason counts every refusal, denial and forced end.
	ByReason map[Reason]uint64
}

// journal counts by reason and writes the log, never more than a few lines a second for each reason.
type journal struct {
	counters  map[Reason]*counter // filled by init, then only read
	connected counter
	departed  counter
	published atomic.Uint64
	delivered atomic.Uint64
	traffic   traffic
}

type counter struct {
	total      atomic.Uint64
	suppressed atomic.Uint64
	lines      *rate.Limiter
}

const (
	linesPerSecond = 2
	lineBurst      = 10
)

func (j *journal) init() {
	j.counters = map[Reason]*counter{}
	for _, r := range Reasons() {
		j.counters[r] = &counter{lines: rate.NewLimiter(linesPerSecond, lineBurst)}
	}
	j.connected.lines = rate.NewLimiter(linesPerSecond, lineBurst)
	j.departed.lines = rate.NewLimiter(linesPerSecond, lineBurst)
}

// count counts, and reports whether a line may be written and how many were not since the last one.
func (c *counter) count() (write bool, suppressed uint64) {
	c.total.Add(1)
	if !c.lines.Allow() {
		c.suppressed.Add(1)
		return false, 0
	}
	return true, c.suppressed.Swap(0)
}

// unlogged says how many lines were left out since the last one; nothing if none were.
func unlogged(suppressed uint64) slog.Attr {
	if suppressed == 0 {
		return slog.Attr{}
	}
	return slog.Uint64("suppressed", suppressed)
}

// refused notes that a connection was refused or ended.
func (b *Broker) refused(reason Reason, c *conn, detail string) {
	b.watchRefusal(reason, c, detail)
	if write, suppressed := b.journal.counters[reason].count(); write {
		b.log.LogAttrs(context.Background(), slog.LevelWarn, "connection refused or ended",
			slog.String("reason", string(reason)), slog.String("detail", detail), c.attrs(),
			unlogged(suppressed))
	}
}

// party is a connection or a session, for the log.
type party interface{ attrs() slog.Attr }

// denied notes that a client did not get what it asked for.
func (b *Broker) denied(reason Reason, who party, topic string) {
	if write, suppressed := b.journal.counters[reason].count(); write {
		b.log.LogAttrs(context.Background(), slog.LevelWarn, "request denied",
			slog.String("reason", string(reason)), slog.String("topic", topic), who.attrs(),
			unlogged(suppressed))
	}
}

// withheld notes that a message was not delivered. Under an ACL file that is nothing to warn of: it allows subscriptions
// that are wider than what may be read.
func (b *Broker) withheld(s *session, topic string) {
	if b.policy.Load().file != nil {
		b.journal.counters[ReasonDelivery].total.Add(1)
		return
	}
	b.denied(ReasonDelivery, s, topic)
}

// throttled notes that a publish had to wait.
func (b *Broker) throttled(c *conn) {
	if write, suppressed := b.journal.counters[ReasonThrottled].count(); write {
		b.log.LogAttrs(context.Background(), slog.LevelWarn, "client publishes or subscribes too fast, slowing it down",
			slog.String("reason", string(ReasonThrottled)), c.attrs(), unlogged(suppressed))
	}
}

func (b *Broker) acceptFailed(l *Listener, err error) {
	b.log.LogAttrs(context.Background(), slog.LevelError, "accepting a connection, will try again",
		slog.String("listener", l.Name), slog.Any("error", err))
}

// Stats returns the counters.
func (b *Broker) Stats() Stats {
	s := Stats{
		Sessions:      len(b.snapshotSessions()),
		Subscriptions: b.index.len(),
		Retained:      b.retained.len(),
		Accepted:      b.journal.connected.total.Load(),
		Received:      b.journal.published.Load(),
		Sent:          b.journal.delivered.Load(),
		ByReason:      map[Reason]uint64{},
	}
	s.Connections, s.Pending = b.conns.counts()
	held := b.stored.held()
	s.StoredMessages, s.StoredBytes = held.messages, held.bytes
	s.WaitingBytes = b.waiting.held().bytes
	for r, c := range b.journal.counters {
		s.ByReason[r] = c.total.Load()
	}
	return s
}
