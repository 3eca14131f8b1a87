package broker

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"time"
)

// Config says what a Broker is made of.
type Config struct {
	// Node is the identity of the connections made with Dial. It may read everything and is the only one that may
	// publish to Policy.Reserved. A certificate with this name is refused on the network.
	Node string
	// Listeners may be empty: then only Dial leads in.
	Listeners []Listener
	// Policy must not be nil; the zero Policy allows nothing.
	Policy *Policy
	// Limits whose value is zero take the value of DefaultLimits.
	Limits Limits
	// Hold, unless nil, keeps the listeners from accepting until it is closed, while Dial works: whoever connects earlier
	// waits, and is not acknowledged messages that nobody hears yet.
	Hold <-chan struct{}
	// Version is what the broker calls itself in $SYS/broker/version.
	Version string
	// SystemInterval is how often the $SYS topics are brought up to date; 0 is every 10 seconds, as mosquitto does.
	SystemInterval time.Duration
	// Persistence says what survives a restart.
	Persistence Persistence
	// Log gets connects, refusals and denials, never a payload. nil discards.
	Log *slog.Logger
}

// Persistence is how retained messages, sessions, their subscriptions and their messages survive a restart.
type Persistence struct {
	// Path is the file for it; without one, nothing survives. A file that is damaged is moved to Path.damaged.
	Path string
	// Interval is how often the file is written. 0 writes what a client is to be told before it is told: no
	// acknowledgement is sent for what is not on disk. With an Interval, a crash loses what came within it.
	Interval time.Duration
	// OpenFile is os.OpenFile where it is nil; tests of broken disks replace it.
	OpenFile func(name string, flag int, perm os.FileMode) (*os.File, error)
}

// Listener is one way in from the network.
type Listener struct {
	// Name is used in logs and must be unique.
	Name string
	// Net is bound by the caller and closed by Run.
	Net net.Listener
	// TLS must verify client certificates: the identity is the common name of that certificate. It may let clients in
	// without one, which are then asked for a user name and a password.
	TLS *tls.Config
	// Plain allows TLS to be nil: who is between a client and the broker can read and change everything.
	Plain bool
	// WebSocket expects MQTT in the messages of a WebSocket (RFC 6455), over TLS or without as the rest says.
	WebSocket bool
	// Origins are those of web pages that may connect to a WebSocket, such as "https://example.org"; "*" is every page.
	// Pages from the broker's own address may, and programs that are no browsers.
	Origins []string
	// MaxConnections bounds the connections of this listener, beside Limits.MaxConnections; 0 does not.
	MaxConnections int
	// IgnoreCertificateName asks clients with a certificate for a user name and a password all the same.
	IgnoreCertificateName bool
	// Authenticate judges user names and passwords; nil refuses them all. Its error is logged and not told to the client.
	Authenticate func(context.Context, Credentials) (Login, error)
	// AllowAnonymous lets clients in that have neither certificate nor user name. Their identity is "".
	AllowAnonymous bool
	// ClientIDIsIdentity refuses clients whose client id is not their identity.
	ClientIDIsIdentity bool
}

// Limits bounds what clients can make the broker hold or wait for.
type Limits struct {
	// MaxPacketBytes is the largest packet accepted, its fixed header included.
	MaxPacketBytes int
	// MaxConnections counts all network connections, MaxConnectionsPerAddress those of one IP address. A connection
	// above either is closed at once. An IPv6 network of 64 bits may have half of what is between the two, beyond what an
	// address may; so it is with pending ones. It may connect at twice the rate of an address.
	MaxConnections, MaxConnectionsPerAddress int
	// MaxConnectRate is the number of connections a second that one IP address may open. One above it is closed at once.
	MaxConnectRate int
	// MaxPending and MaxPendingPerAddress bound the connections whose CONNECT has not been accepted yet. A new one above
	// either displaces the oldest, so that silent connections cannot lock out others.
	MaxPending, MaxPendingPerAddress int
	// ConnectTimeout is the time from accepting a connection to having read its CONNECT, the TLS handshake included.
	ConnectTimeout time.Duration
	// WriteTimeout is how long a client may take to accept 32 KiB.
	WriteTimeout time.Duration
	// MaxKeepAlive is the longest keep alive, at most 12 hours; see the package comment.
	MaxKeepAlive time.Duration
	// MaxSessionExpiry is how long a session is kept for a client that is away.
	MaxSessionExpiry time.Duration
	// MaxStoredSessions is the number of such sessions an identity may have; the one longest away is forgotten first.
	MaxStoredSessions int
	// MaxSubscriptions bounds the subscriptions of a session, MaxFilters those of one SUBSCRIBE or UNSUBSCRIBE.
	MaxSubscriptions, MaxFilters int
	// MaxTopicBytes and MaxTopicLevels bound topic names and filters ($share/<group>/ counts); the bytes are at most 16384.
	MaxTopicBytes, MaxTopicLevels int
	// MaxTopicAliases bounds the topic aliases of a connection in each direction; it is at most 1024.
	MaxTopicAliases int
	// MaxClientIDBytes bounds client identifiers; it is at most 8192.
	MaxClientIDBytes int
	// MaxUserProperties bounds the user properties of one packet.
	MaxUserProperties int
	// MaxInflight and MaxInflightBytes bound the QoS 1 and 2 messages a session has not acknowledged, those stored for an
	// absent client included. A message beyond displaces the oldest that was not sent yet; if all were sent, it is not
	// delivered to that session. More than 65535 have no identifiers.
	MaxInflight, MaxInflightBytes int
	// MaxRetained and MaxRetainedBytes bound the retained messages of all clients; the bytes are those of topics, payloads
	// and properties. A publish beyond is refused, but for one that takes no more than what it replaces. What the node retains
	// does not count.
	MaxRetained, MaxRetainedBytes int
	// MaxRetainedPerIdentity and MaxRetainedBytesPerIdentity are the same for what one identity was the last to publish.
	MaxRetainedPerIdentity, MaxRetainedBytesPerIdentity int
	// MaxStoredMessages and MaxStoredBytes bound what the sessions of all clients hold that outlive their connections:
	// the QoS 1 and 2 messages they have not acknowledged, once for each session, and in bytes also subscriptions, wills,
	// and for each of all these the session's name and 64. One identity may hold as much as it leaves to the others, and
	// 4 KiB of every session are always there. A message beyond displaces those of its session that were not sent yet; if
	// these are too few, it is not delivered to that session. A subscription or a QoS 2 message from the client beyond is
	// refused, and for a will beyond the connection ends.
	MaxStoredMessages, MaxStoredBytes int
	// ReceiveMaximum bounds the QoS 2 messages a client has published and not yet released.
	ReceiveMaximum int
	// MaxPublishRate is the number of messages a second that one identity may publish, over all its connections. Beyond,
	// the broker reads from it more slowly. The node itself is not limited. Each filter of a SUBSCRIBE or UNSUBSCRIBE
	// counts as a message, and so do every 16 levels of retained topics that are looked through for it.
	MaxPublishRate int
	// MaxPublishBytesRate is the same for the bytes of topics and payloads.
	MaxPublishBytesRate int
	// MaxQueuedMessages and MaxQueuedBytes bound what is written for a connected client that reads too slowly. At QoS 0
	// messages beyond are not delivered to it, at QoS 1 and 2 they wait.
	MaxQueuedMessages, MaxQueuedBytes int
	// MaxWaitingBytes bounds what waits in memory for all connected clients, beyond 16 KiB of each connection in either
	// direction and 16 KiB of each session that ends with its connection: what is written for them, packets that have come in
	// part, and in such sessions also messages that are not acknowledged, subscriptions and wills. It is shared as
	// MaxStoredBytes is. A message beyond displaces those of its session that were not sent yet; if these are too few, or at
	// QoS 0, it is not delivered. A subscription beyond is refused, a client that does not read its answers is not read, and
	// the connection with a packet or a will beyond ends.
	MaxWaitingBytes int
}

// DefaultLimits returns the limits used where Config.Limits says nothing.
func DefaultLimits() Limits {
	return Limits{
		MaxPacketBytes:              128 << 10,
		MaxConnections:              1024,
		MaxConnectionsPerAddress:    512,
		MaxConnectRate:              200,
		MaxPending:                  256,
		MaxPendingPerAddress:        128,
		ConnectTimeout:              10 * time.Second,
		WriteTimeout:                10 * time.Second,
		MaxKeepAlive:                time.Hour,
		MaxSessionExpiry:            24 * time.Hour,
		MaxStoredSessions:           32,
		MaxSubscriptions:            128,
		MaxFilters:                  64,
		MaxTopicBytes:               512,
		MaxTopicLevels:              16,
		MaxTopicAliases:             10,
		MaxClientIDBytes:            256,
		MaxUserProperties:           32,
		MaxInflight:                 4096,
		MaxInflightBytes:            8 << 20,
		MaxRetained:                 16384,
		MaxRetainedBytes:            16 << 20,
		MaxRetainedPerIdentity:      8192,
		MaxRetainedBytesPerIdentity: 8 << 20,
		MaxStoredMessages:           65536,
		MaxStoredBytes:              64 << 20,
		ReceiveMaximum:              1024,
		MaxPublishRate:              20000,
		MaxPublishBytesRate:         32 << 20,
		MaxQueuedMessages:           8192,
		MaxQueuedBytes:              1 << 20,
		MaxWaitingBytes:             64 << 20,
	}
}

// maxKeepAlive is less than what fits the 16 bits of the protocol's seconds.
const maxKeepAlive = 12 * time.Hour

// maxTopicAliases is what a client may make us remember, at most.
const maxTopicAliases = 1024

// Both together fit into a key of the store.
const maxTopicBytes, maxClientIDBytes = 16 << 10, 8 << 10

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct {
		value    *int
		fallback int
	}{
		{&l.MaxPacketBytes, d.MaxPacketBytes},
		{&l.MaxConnections, d.MaxConnections},
		{&l.MaxConnectionsPerAddress, d.MaxConnectionsPerAddress},
		{&l.MaxConnectRate, d.MaxConnectRate},
		{&l.MaxPending, d.MaxPending},
		{&l.MaxPendingPerAddress, d.MaxPendingPerAddress},
		{&l.MaxStoredSessions, d.MaxStoredSessions},
		{&l.MaxSubscriptions, d.MaxSubscriptions},
		{&l.MaxFilters, d.MaxFilters},
		{&l.MaxTopicBytes, d.MaxTopicBytes},
		{&l.MaxTopicLevels, d.MaxTopicLevels},
		{&l.MaxTopicAliases, d.MaxTopicAliases},
		{&l.MaxClientIDBytes, d.MaxClientIDBytes},
		{&l.MaxUserProperties, d.MaxUserProperties},
		{&l.MaxInflight, d.MaxInflight},
		{&l.MaxInflightBytes, d.MaxInflightBytes},
		{&l.MaxRetained, d.MaxRetained},
		{&l.MaxRetainedBytes, d.MaxRetainedBytes},
		{&l.MaxRetainedPerIdentity, d.MaxRetainedPerIdentity},
		{&l.MaxRetainedBytesPerIdentity, d.MaxRetainedBytesPerIdentity},
		{&l.MaxStoredMessages, d.MaxStoredMessages},
		{&l.MaxStoredBytes, d.MaxStoredBytes},
		{&l.ReceiveMaximum, d.ReceiveMaximum},
		{&l.MaxPublishRate, d.MaxPublishRate},
		{&l.MaxPublishBytesRate, d.MaxPublishBytesRate},
		{&l.MaxQueuedMessages, d.MaxQueuedMessages},
		{&l.MaxQueuedBytes, d.MaxQueuedBytes},
		{&l.MaxWaitingBytes, d.MaxWaitingBytes},
	} {
		if *f.value <= 0 {
			*f.value = f.fallback
		}
	}
	for _, f := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&l.ConnectTimeout, d.ConnectTimeout},
		{&l.WriteTimeout, d.WriteTimeout},
		{&l.MaxKeepAlive, d.MaxKeepAlive},
		{&l.MaxSessionExpiry, d.MaxSessionExpiry},
	} {
		if *f.value <= 0 {
			*f.value = f.fallback
		}
	}
	l.MaxKeepAlive = min(max(l.MaxKeepAlive, time.Second), maxKeepAlive)
	l.MaxTopicAliases = min(l.MaxTopicAliases, maxTopicAliases)
	l.MaxTopicBytes, l.MaxClientIDBytes = min(l.MaxTopicBytes, maxTopicBytes), min(l.MaxClientIDBytes, maxClientIDBytes)
	return l
}

// clamp converts to a smaller type, with that type's largest value for all that does not fit. n is not negative.
func clamp[To uint16 | uint32 | int32, From int | int64 | time.Duration](n From, largest To) To {
	if uint64(n) > uint64(largest) {
		return largest
	}
	return To(n)
}
