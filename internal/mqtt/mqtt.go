// Package mqtt is an MQTT 3.1.1 client for long-running programs, built on Eclipse paho.
//
// It differs from bare paho in what it promises:
//
//   - A publish at QoS 1 or 2 is reported done only once the broker has confirmed it. It survives any number of
//     reconnects in between and is sent again in the order it was handed over: at least once, also for QoS 2.
//   - A publish at QoS 0 waits for a connection; it is not dropped because there happens to be none.
//   - A subscription that the broker refuses is an error, and every connection is subscribed afresh.
//   - After a loss it connects again within five seconds, jittered, until it is closed.
//   - A message is acknowledged when its receiver says so, not when it was handed over.
//   - A broker that stops reading cannot hold up the program: writes have a deadline, and neither acknowledging nor
//     publishing asynchronously ever blocks.
//
// Nothing is kept on disk: what is not confirmed when the process ends is the caller's to send again.
//
// Every connection is a paho client of its own. Paho's reconnecting is not used, because there it completes the tokens
// of unconfirmed messages as if they had been confirmed, and sleeps without a way to wake it.
package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
)

// Message is a publication, received or to be sent.
type Message struct {
	Topic    string
	Payload  []byte
	QoS      byte
	Retained bool
}

// Subscription asks for the topics that match Filter, at QoS at most.
type Subscription struct {
	Filter string
	QoS    byte
}

// Config says where to connect, as whom, and what to do with what arrives. Only Dial is required.
//
// The callbacks are called one at a time for one connection and must not block: they hold up everything else that is
// to be received.
type Config struct {
	// Dial opens the transport: TCP, TLS, a pipe. It must give up when its context ends.
	Dial func(context.Context) (net.Conn, error)
	// ClientID names the session. It is required unless CleanSession is set.
	ClientID           string
	Username, Password string
	// CleanSession makes the broker forget the session with the connection. Otherwise it keeps the subscriptions and
	// delivers again whatever was not acknowledged.
	CleanSession bool
	// KeepAlive is the longest silence on the wire, in whole seconds; 30 s if zero.
	KeepAlive time.Duration
	// Will is published by the broker when the connection ends without a goodbye.
	Will          *Message
	Subscriptions []Subscription
	// MaxPayload in bytes protects the memory from oversized messages: of a longer payload more than MaxPayload bytes
	// arrive, but perhaps not all. Zero means no limit but MQTT's own of 256 MB.
	MaxPayload int
	// MaxQueue is how many messages may wait to be sent; 16384 if zero. Those that are retained may be half as many more:
	// what is has room when what was has taken all of it.
	MaxQueue int
	// OnMessage gets every message, whichever subscription asked for it. The receiver calls ack once it needs no
	// redelivery; ack never blocks, may be called from any goroutine, later, and more than once.
	OnMessage func(m Message, ack func())
	// OnUp is called whenever a connection is made and subscribed.
	OnUp func()
	// OnDown is called whenever a connection that was up is lost, with the cause.
	OnDown func(error)
	// Log gets what no caller is told: lost connections and attempts to connect again that came to nothing.
	Log *slog.Logger
}

// The errors a caller may want to tell apart.
var (
	ErrNotAuthorised       = errors.New("the broker does not authorise this client")
	ErrBadCredentials      = errors.New("the broker does not accept this user name and password")
	ErrIdentifierRejected  = errors.New("the broker does not accept this client id")
	ErrBadProtocol         = errors.New("the broker does not speak MQTT 3.1.1")
	ErrUnavailable         = errors.New("the broker is not available for now")
	ErrSubscriptionRefused = errors.New("the broker refused the subscription")
	ErrClosed              = errors.New("the MQTT client is closed")
	ErrQueueFull           = errors.New("too many messages are waiting for the broker")
)

// Permanent reports whether err is an answer of the broker that will not change by trying again.
func Permanent(err error) bool {
	for _, target := range []error{
		ErrNotAuthorised, ErrBadCredentials, ErrIdentifierRejected, ErrBadProtocol, ErrSubscriptionRefused,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

const (
	defaultKeepAlive = 30 * time.Second
	defaultMaxQueue  = 16384
	// connectTimeout bounds the handshake, TLS included, and the answer to a subscription.
	connectTimeout = 10 * time.Second
	// writeTimeout is how long a broker may refuse to read before the connection is given up.
	writeTimeout = 5 * time.Second
	// closeTimeout is how long each part of the goodbye may take.
	closeTimeout       = closeTimeoutMillis * time.Millisecond
	closeTimeoutMillis = 250
)

func (cfg *Config) check() error {
	switch {
	case cfg.Dial == nil:
		return errors.New("no way to dial the broker given")
	case cfg.ClientID == "" && !cfg.CleanSession:
		return errors.New("a session that outlives its connection needs a client id")
	}
	for _, sub := range cfg.Subscriptions {
		if err := checkSubscription(sub); err != nil {
			return err
		}
	}
	if cfg.Will != nil {
		return checkMessage(*cfg.Will)
	}
	return nil
}

// checkSubscription refuses what a broker would end the connection for, again and again.
func checkSubscription(sub Subscription) error {
	if sub.Filter == "" || len(sub.Filter) > 65535 || strings.ContainsRune(sub.Filter, 0) || !wildcardsFit(sub.Filter) || sub.QoS > 2 {
		return fmt.Errorf("bad subscription %q at QoS %d", sub.Filter, sub.QoS)
	}
	return nil
}

// wildcardsFit reports whether + and # fill a level each, and # the last (MQTT 3.1.1 section 4.7.1).
func wildcardsFit(filter string) bool {
	for level, rest, more := "", filter, true; more; {
		level, rest, more = strings.Cut(rest, "/")
		if strings.ContainsAny(level, "+#") && len(level) > 1 || level == "#" && more {
			return false
		}
	}
	return true
}

// checkMessage refuses what paho would put on the wire broken.
func checkMessage(m Message) error {
	const maxBytes = 256 << 20 // MQTT 3.1.1, 2.2.3
	switch {
	case m.Topic == "" || len(m.Topic) > 65535 || strings.ContainsAny(m.Topic, "+#\x00"):
		return fmt.Errorf("%q is not a topic to publish to", m.Topic)
	case m.QoS > 2:
		return fmt.Errorf("there is no QoS %d", m.QoS)
	case len(m.Payload)+len(m.Topic)+4 >= maxBytes:
		return fmt.Errorf("a message of %d bytes is too large for MQTT", len(m.Payload))
	}
	return nil
}
