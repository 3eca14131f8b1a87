package mqtt

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Client is a connection to a broker that comes back by itself. It is safe for concurrent use.
type Client struct {
	cfg    Config
	outbox outbox

	mu     sync.Mutex
	subs   []Subscription // what every connection subscribes to
	gen    int            // counts the changes of subs
	link   *link          // nil while there is no subscribed connection
	cancel context.CancelFunc
	closed bool

	done chan struct{} // closed when the goroutine that keeps the connection has ended
}

// New makes a client that is not connected yet. Messages may be published already; they wait.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = defaultKeepAlive
	}
	if cfg.MaxQueue == 0 {
		cfg.MaxQueue = defaultMaxQueue
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, subs: append([]Subscription(nil), cfg.Subscriptions...), done: make(chan struct{})}
	c.outbox.limit = cfg.MaxQueue
	c.outbox.ready = make(chan struct{}, 1)
	return c, nil
}

// Connect is New and Client.Connect in one.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.Connect(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Connect makes the first connection and subscribes. When it returns nil the client stays connected until Close,
// whatever becomes of ctx; after an error it may be called again.
func (c *Client) Connect(ctx context.Context) error {
	c.mu.Lock()
	started, closed := c.cancel != nil, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case started:
		return errors.New("already connected")
	}
	first, err := c.open(ctx)
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.mu.Lock()
	closed = c.closed
	if !closed {
		c.cancel = cancel
	}
	c.mu.Unlock()
	if closed {
		cancel()
		first.close()
		return ErrClosed
	}
	go func() {
		defer cancel()
		c.keep(run, first)
	}()
	return nil
}

// keep serves one connection after the other until ctx ends.
func (c *Client) keep(ctx context.Context, l *link) {
	defer close(c.done)
	defer c.outbox.fail(ErrClosed)
	var wait backoff
	for l != nil {
		since := time.Now()
		err := c.serve(ctx, l)
		if ctx.Err() != nil {
			return
		}
		c.cfg.Log.Warn("connection to the broker lost", "error", err)
		if c.cfg.OnDown != nil {
			c.cfg.OnDown(err)
		}
		if time.Since(since) > stableAfter {
			wait = backoff{}
		}
		l = c.reopen(ctx, &wait)
	}
}

// serve sends over l until it is lost or ctx ends.
func (c *Client) serve(ctx context.Context, l *link) error {
	if c.cfg.OnUp != nil {
		c.cfg.OnUp()
	}
	// Sending is not waited for: paho may hold on to a publication for seconds after the connection is gone.
	go c.outbox.send(l)
	var confirming sync.WaitGroup
	confirming.Go(func() { c.outbox.confirm(l) })
	select {
	case <-ctx.Done():
		l.close()
	case <-l.down:
	}
	c.mu.Lock()
	c.link = nil
	c.mu.Unlock()
	confirming.Wait()
	c.outbox.rewind()
	return l.err
}

func (c *Client) reopen(ctx context.Context, wait *backoff) *link {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.next()):
		}
		l, err := c.open(ctx)
		if err == nil {
			return l
		}
		if ctx.Err() == nil {
			c.cfg.Log.Warn("cannot connect to the broker", "error", err)
		}
	}
}

// open connects and subscribes, and repeats the latter if the subscriptions changed meanwhile.
func (c *Client) open(ctx context.Context) (*link, error) {
	l, err := dial(ctx, &c.cfg)
	if err != nil {
		return nil, err
	}
	for {
		c.mu.Lock()
		subs, gen := append([]Subscription(nil), c.subs...), c.gen
		c.mu.Unlock()
		if err := l.subscribe(ctx, subs); err != nil {
			l.close()
			return nil, err
		}
		c.mu.Lock()
		if c.gen == gen {
			c.link = l
			c.mu.Unlock()
			return l, nil
		}
		c.mu.Unlock()
	}
}

// Subscribe adds subscriptions, to this connection and to all that follow. While there is none it only remembers
// them. If the broker refuses one it is an error, and none of them is remembered.
func (c *Client) Subscribe(ctx context.Context, subs ...Subscription) error {
	filters := make([]string, 0, len(subs))
	for _, sub := range subs {
		if err := checkSubscription(sub); err != nil {
			return err
		}
		filters = append(filters, sub.Filter)
	}
	l := c.change(filters, subs)
	if l == nil {
		return nil
	}
	err := l.subscribe(ctx, subs)
	if errors.Is(err, ErrSubscriptionRefused) {
		c.change(filters, nil)
	}
	if errors.Is(err, errLost) {
		return nil // the next connection subscribes
	}
	return err
}

// Unsubscribe ends subscriptions, here and for all later connections.
func (c *Client) Unsubscribe(ctx context.Context, filters ...string) error {
	l := c.change(filters, nil)
	if l == nil {
		return nil
	}
	if err := l.unsubscribe(ctx, filters); !errors.Is(err, errLost) {
		return err
	}
	return nil
}

// change replaces the subscriptions of these filters and tells the connection to repeat that on.
func (c *Client) change(filters []string, subs []Subscription) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := make([]Subscription, 0, len(c.subs)+len(subs))
	for _, sub := range c.subs {
		if !slices.Contains(filters, sub.Filter) {
			kept = append(kept, sub)
		}
	}
	c.subs = append(kept, subs...)
	c.gen++
	return c.link
}

// Publish sends a message and waits: at QoS 0 until it was handed to the connection, above until the broker has
// confirmed it, across reconnects if need be. When ctx ends first the message is withdrawn, but it may have arrived.
func (c *Client) Publish(ctx context.Context, m Message) error {
	return c.outbox.wait(ctx, m)
}

// PublishAsync hands a message over and returns at once. Messages leave in the order they were handed over. done, if
// not nil, is called once, when Publish would return; it must not block, and it may be called before PublishAsync
// returns.
func (c *Client) PublishAsync(m Message, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	if err := c.outbox.put(&outgoing{Message: m, done: done}); err != nil {
		done(err)
	}
}

// Close says goodbye to the broker, without the will, and fails what is still waiting with ErrClosed. It takes well
// under a second whatever the broker does, and may be called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	cancel := c.cancel
	c.mu.Unlock()
	if cancel == nil {
		c.outbox.fail(ErrClosed)
		return nil
	}
	cancel()
	<-c.done
	return nil
}

// stableAfter is how long a connection must have lasted to count as a success. A broker that lets us in and throws us
// out again, say because another client has our id, is not asked at full speed.
const stableAfter = 10 * time.Second

// backoff doubles from 100 ms to at most 5 s, a random part of it left out so that many clients do not come at once.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	const first, most = 100 * time.Millisecond, 5 * time.Second
	b.last = min(max(2*b.last, first), most)
	return b.last/2 + rand.N(b.last/2) //nolint:gosec // spreads load, guards nothing
}
