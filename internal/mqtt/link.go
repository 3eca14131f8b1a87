package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// errLost means that the connection went away under an exchange.
var errLost = errors.New("the connection to the broker was lost")

// link is one connection: a paho client that lives exactly as long.
type link struct {
	paho paho.Client
	sent chan flight
	acks acks

	once sync.Once
	err  error         // why it is down; set before down is closed
	down chan struct{} // closed when the connection is no more
}

// dial connects and answers the broker's handshake; it does not subscribe.
func dial(ctx context.Context, cfg *Config) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	l := &link{sent: make(chan flight, window), down: make(chan struct{})}
	l.acks.ready = make(chan struct{}, 1)
	var dialErr error
	opts := l.options(cfg)
	opts.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		var conn net.Conn
		if conn, dialErr = cfg.Dial(ctx); dialErr != nil {
			return nil, dialErr
		}
		return newFrameConn(conn, cfg.MaxPayload), nil
	})
	l.paho = paho.NewClient(opts)
	token, _ := l.paho.Connect().(*paho.ConnectToken)
	select {
	case <-token.Done():
	case <-ctx.Done():
		go l.close()
		return nil, fmt.Errorf("connecting to the broker: %w", ctx.Err())
	}
	if err := token.Error(); err != nil {
		if dialErr != nil {
			return nil, fmt.Errorf("connecting to the broker: %w", dialErr)
		}
		return nil, refusal(token.ReturnCode(), err)
	}
	go l.acks.run(l.down)
	return l, nil
}

func (l *link) options(cfg *Config) *paho.ClientOptions {
	opts := paho.NewClientOptions()
	opts.AddBroker("tcp://broker") // paho asks for an address before it dials; ours is in Dial
	opts.SetProtocolVersion(4)     // or a refusal would be tried again as MQTT 3.1
	opts.SetAutoReconnect(false)
	opts.SetConnectTimeout(connectTimeout)
	opts.SetClientID(cfg.ClientID)
	opts.SetUsername(cfg.Username)
	opts.SetPassword(cfg.Password)
	opts.SetCleanSession(cfg.CleanSession)
	opts.SetKeepAlive(cfg.KeepAlive)
	opts.SetPingTimeout(writeTimeout)
	opts.SetWriteTimeout(writeTimeout)
	opts.SetStore(paho.NewMemoryStore())
	opts.SetOrderMatters(true)
	opts.SetAutoAckDisabled(true)
	if w := cfg.Will; w != nil {
		opts.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retained)
	}
	// Set before Connect: a session that the broker kept delivers at once.
	opts.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		ack := func() { l.acks.put(m.Ack) }
		if cfg.OnMessage == nil {
			ack()
			return
		}
		cfg.OnMessage(Message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retained: m.Retained()}, ack)
	})
	opts.SetConnectionLostHandler(func(_ paho.Client, err error) { l.ended(fmt.Errorf("%w: %w", errLost, err)) })
	return opts
}

// refusal translates a CONNACK (MQTT 3.1.1, 3.2.2.3) and leaves out paho's prefix of a network error.
func refusal(code byte, err error) error {
	switch code {
	case packets.ErrRefusedNotAuthorised:
		return ErrNotAuthorised
	case packets.ErrRefusedBadUsernameOrPassword:
		return ErrBadCredentials
	case packets.ErrRefusedIDRejected:
		return ErrIdentifierRejected
	case packets.ErrRefusedBadProtocolVersion:
		return ErrBadProtocol
	case packets.ErrRefusedServerUnavailable:
		return ErrUnavailable
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if parts := joined.Unwrap(); len(parts) == 2 && parts[1] != nil {
			err = parts[1]
		}
	}
	return fmt.Errorf("connecting to the broker: %w", err)
}

// refused is the return code of a subscription that was not granted (MQTT 3.1.1, 3.9.3).
const refused = 0x80

func (l *link) subscribe(ctx context.Context, subs []Subscription) error {
	if len(subs) == 0 {
		return nil
	}
	filters := make(map[string]byte, len(subs))
	for _, sub := range subs {
		filters[sub.Filter] = sub.QoS
	}
	token, _ := l.paho.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	if err := l.await(ctx, token); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	for _, sub := range subs {
		if code, ok := token.Result()[sub.Filter]; !ok || code >= refused {
			return fmt.Errorf("%w to %s", ErrSubscriptionRefused, sub.Filter)
		}
	}
	return nil
}

func (l *link) unsubscribe(ctx context.Context, filters []string) error {
	if len(filters) == 0 {
		return nil
	}
	if err := l.await(ctx, l.paho.Unsubscribe(filters...)); err != nil {
		return fmt.Errorf("unsubscribing: %w", err)
	}
	return nil
}

// await waits for the broker's answer. One that does not come costs the connection.
func (l *link) await(ctx context.Context, token paho.Token) error {
	timeout := time.NewTimer(connectTimeout)
	defer timeout.Stop()
	select {
	case <-token.Done():
		if err := token.Error(); err != nil {
			return fmt.Errorf("%w: %w", errLost, err)
		}
		return nil
	case <-l.down:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		l.lose(errors.New("the broker does not answer"))
		return l.err
	}
}

// lose gives the connection up.
func (l *link) lose(err error) {
	l.paho.Disconnect(0)
	l.ended(fmt.Errorf("%w: %w", errLost, err))
}

// close ends the connection with a goodbye, after the acknowledgements that wait.
func (l *link) close() {
	flushed := make(chan struct{})
	l.acks.put(func() { close(flushed) })
	select {
	case <-flushed:
	case <-l.down:
	case <-time.After(closeTimeout):
	}
	l.paho.Disconnect(closeTimeoutMillis)
	l.ended(ErrClosed)
}

func (l *link) ended(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.down)
	})
}

// acks sends acknowledgements in the order they were given, away from those who give them: paho's Ack blocks for as
// long as the broker does not read. What is in it is bounded by what the broker sends unacknowledged.
type acks struct {
	ready chan struct{}
	mu    sync.Mutex
	queue []func()
}

func (a *acks) put(ack func()) {
	a.mu.Lock()
	a.queue = append(a.queue, ack)
	a.mu.Unlock()
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

func (a *acks) run(down <-chan struct{}) {
	for {
		select {
		case <-a.ready:
		case <-down:
			return
		}
		a.mu.Lock()
		queue := a.queue
		a.queue = nil
		a.mu.Unlock()
		for _, ack := range queue {
			ack()
		}
	}
}
