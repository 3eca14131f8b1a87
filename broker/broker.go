package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pinseal/pki"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Broker is an MQTT broker. Its methods are safe for concurrent use.
type Broker struct {
	node      string
	listeners []Listener
	limits    atomic.Pointer[Limits]
	hold      <-chan struct{}
	judge     atomic.Pointer[func(tls.ConnectionState) error] // see Recheck
	log       *slog.Logger
	policy    atomic.Pointer[policy]
	watcher   atomic.Pointer[Watcher]
	conns     conns
	turns     turns
	sessions  sessions
	index     index
	retained  retained
	keeper    keeper
	stored    stored
	waiting   stored // of connected clients, see tab
	journal   journal
	system    system
	tidier    tidier
	version   string
	pieces    pieces
	decoded   sync.Pool // of *packets.Packet
	wsBuffers sync.Pool // of what is being written to a WebSocket
	rates     publishRates
	started   atomic.Bool
	ready     chan struct{}
	stopping  chan struct{}
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Broker, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	p, err := compile(cfg.Policy, cfg.Node)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		node:      cfg.Node,
		listeners: cfg.Listeners,
		hold:      cfg.Hold,
		log:       cfg.Log,
		conns:     newConns(),
		turns:     newTurns(),
		version:   cfg.Version,
		sessions:  sessions{owners: map[string]*conn{}, all: map[string]*session{}},
		rates:     publishRates{of: map[string]*publishRate{}},
		retained:  retained{of: map[string]usage{}},
		keeper:    keeper{config: cfg.Persistence},
		stored:    stored{of: map[string]usage{}},
		waiting:   stored{of: map[string]usage{}},
		ready:     make(chan struct{}),
		stopping:  make(chan struct{}),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.system.interval = cmp.Or(cfg.SystemInterval, systemInterval)
	b.policy.Store(p)
	b.limits.Store(new(cfg.Limits.withDefaults()))
	b.journal.init()
	return b, nil
}

func check(cfg Config) error {
	if !pki.ValidName(cfg.Node) {
		return fmt.Errorf("broker: node name %q does not match [A-Za-z0-9_-]{1,64}", cfg.Node)
	}
	names := map[string]bool{}
	for _, l := range cfg.Listeners {
		switch {
		case l.Net == nil || l.Name == "":
			return errors.New("broker: listener without name or socket")
		case l.TLS == nil && !l.Plain:
			return fmt.Errorf("broker: listener %s has no TLS", l.Name)
		case names[l.Name]:
			return fmt.Errorf("broker: two listeners are named %s", l.Name)
		}
		names[l.Name] = true
	}
	return nil
}

// Run serves until ctx ends and then closes every connection and listener, which takes at most 2 seconds whatever the
// clients do. It must be called once. It returns an error if a listener was closed by someone else.
func (b *Broker) Run(ctx context.Context) error {
	if !b.started.CompareAndSwap(false, true) {
		return errors.New("broker: Run was called before")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := b.openStore(); err != nil {
		return err
	}
	b.publishSystem(time.Now())
	var helpers sync.WaitGroup
	for i := range b.listeners {
		helpers.Go(func() { b.accept(ctx, &b.listeners[i], cancel) })
	}
	helpers.Go(func() { b.tick(ctx) })
	close(b.ready)

	<-ctx.Done()
	var err error
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		err = cause
	}
	return errors.Join(err, b.shutDown(&helpers), b.keeper.close())
}

// tick does what has to be done once in a while.
func (b *Broker) tick(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			b.expire(now)
			b.endLogins(now)
			b.conns.forgetConnects(now)
			b.rates.forget(now)
			b.publishSystem(now)
			b.tidy()
		}
	}
}

const (
	goodbyeTime = 300 * time.Millisecond // for clients that listen
	// shutdownTime is for what cannot be interrupted: the hash of a password takes more than a second on a Pi Zero, and the
	// sync of a worn SD card as well.
	shutdownTime = 5 * time.Second
)

func (b *Broker) shutDown(helpers *sync.WaitGroup) error {
	for _, l := range b.listeners {
		_ = l.Net.Close() // it accepts nothing more, whatever it says
	}
	list := b.conns.stop()
	close(b.stopping)
	for _, c := range list {
		c.dismiss(packets.ErrServerShuttingDown)
	}
	ended := make(chan struct{})
	go func() {
		helpers.Wait()
		b.conns.serving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(goodbyeTime):
		for _, c := range list {
			_ = c.raw.Close() // no more manners
		}
	}
	select {
	case <-ended:
		return nil
	case <-time.After(shutdownTime):
		return errors.New("broker: connections did not end in time")
	}
}

// Ready is closed when Dial works and the listeners accept, or would but for Config.Hold.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// SetPolicy replaces the policy. Subscriptions that it does not allow end, and messages on the way to them are dropped.
// MQTT has no way to tell a client so. Wills that were accepted are judged again when they are due. Whoever is denied
// loses everything: connections, sessions, wills, retained messages, and the messages that wait for others.
func (b *Broker) SetPolicy(p *Policy) error {
	compiled, err := compile(p, b.node)
	if err != nil {
		return err
	}
	b.policy.Store(compiled)
	for _, s := range b.snapshotSessions() {
		b.endSubscriptions(s)
	}
	b.expel()
	return nil
}
