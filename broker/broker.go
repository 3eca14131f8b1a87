package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// Broker is an MQTT broker. Its methods are safe for concurrent use.
type Broker struct {
	ready chan struct{}
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Broker, error) {
	return &Broker{ready: make(chan struct{})}, nil
}

// Run serves until ctx ends and then closes every connection and listener, which takes at most 2 seconds whatever the
// clients do. It must be called once.
func (b *Broker) Run(ctx context.Context) error {
	close(b.ready)
	<-ctx.Done()
	return nil
}

// Ready is closed when the listeners accept and Dial works.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Dial makes a connection in memory whose identity is Config.Node. It waits until the broker is ready.
func (b *Broker) Dial(ctx context.Context) (net.Conn, error) {
	return nil, errors.New("not there yet")
}

// SetPolicy replaces the policy. Subscriptions that it does not allow end, and messages on the way to them are dropped.
func (b *Broker) SetPolicy(p *Policy) error { return nil }

// Recheck closes the connections whose certificate ok no longer accepts. It is called after certificates, authorities or
// revocations have changed.
func (b *Broker) Recheck(ok func(tls.ConnectionState) error) {}

// Disconnect closes every connection of the identity and returns how many there were.
func (b *Broker) Disconnect(identity string) int { return 0 }

// Stats returns the counters.
func (b *Broker) Stats() Stats { return Stats{} }
