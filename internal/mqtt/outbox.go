package mqtt

import (
	"context"
	"fmt"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// window is how many messages may be on their way without confirmation.
const window = 256

// outgoing is a message with the one to tell of its fate.
type outgoing struct {
	Message
	done      func(error)
	withdrawn bool // guarded by outbox.mu
}

// outbox keeps what is to be sent, in order, until it is confirmed.
type outbox struct {
	limit int
	ready chan struct{} // holds a token when there may be something in unsent

	mu      sync.Mutex
	unsent  []*outgoing
	unacked []*outgoing // sent over the present connection
	closed  error
}

func (b *outbox) put(o *outgoing) error {
	if err := checkMessage(o.Message); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed != nil:
		return b.closed
	case len(b.unsent) >= b.limit && (!o.Retained || len(b.unsent) >= b.limit+b.limit/2):
		return ErrQueueFull
	}
	b.unsent = append(b.unsent, o)
	b.signal()
	return nil
}

func (b *outbox) wait(ctx context.Context, m Message) error {
	result := make(chan error, 1)
	o := &outgoing{Message: m, done: func(err error) { result <- err }}
	if err := b.put(o); err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		b.mu.Lock()
		o.withdrawn = true
		b.mu.Unlock()
		return fmt.Errorf("publishing to %s: %w", m.Topic, ctx.Err())
	}
}

// signal says that there is work; a token that is already there says so too.
func (b *outbox) signal() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// next gives the message to send now, or nil when l is lost.
func (b *outbox) next(l *link) *outgoing {
	for {
		if o := b.take(l); o != nil {
			return o
		}
		select {
		case <-b.ready:
		case <-l.down:
			b.signal() // for the next connection: the token may have been taken here
			return nil
		}
	}
}

// take moves the first unsent message to the unacknowledged ones. It takes nothing for a lost connection, so that a
// sender that outlives its connection cannot disturb the next.
func (b *outbox) take(l *link) *outgoing {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-l.down:
		return nil
	default:
	}
	for len(b.unsent) > 0 {
		o := b.unsent[0]
		b.unsent[0] = nil
		b.unsent = b.unsent[1:]
		if !o.withdrawn {
			b.unacked = append(b.unacked, o)
			return o
		}
	}
	return nil
}

func (b *outbox) send(l *link) {
	for {
		o := b.next(l)
		if o == nil {
			return
		}
		token := l.paho.Publish(o.Topic, o.QoS, o.Retained, o.Payload)
		select {
		case l.sent <- flight{o, token}:
		case <-l.down:
			return
		}
	}
}

// confirm waits for the messages in the order they were sent, which is the order brokers confirm them in. One that
// fails takes the connection with it: over the next, all that are not confirmed are sent again in their order.
func (b *outbox) confirm(l *link) {
	for {
		var f flight
		select {
		case f = <-l.sent:
		case <-l.down:
			return
		}
		select {
		case <-f.token.Done():
		case <-l.down:
			return
		}
		if err := f.token.Error(); err != nil {
			l.lose(fmt.Errorf("sending: %w", err))
			return
		}
		b.finish(f.outgoing)
	}
}

// finish takes the oldest unconfirmed message, which is o, out and tells.
func (b *outbox) finish(o *outgoing) {
	b.mu.Lock()
	b.unacked[0] = nil
	b.unacked = b.unacked[1:]
	b.mu.Unlock()
	o.done(nil)
}

// rewind makes what the lost connection has not confirmed the first to be sent by the next.
func (b *outbox) rewind() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.unacked) > 0 {
		b.unsent = append(b.unacked, b.unsent...)
		b.unacked = nil
	}
	b.signal()
}

// fail ends the outbox: everything in it fails with err, and so does whatever comes.
func (b *outbox) fail(err error) {
	b.mu.Lock()
	left := append(b.unacked, b.unsent...)
	b.unacked, b.unsent, b.closed = nil, nil, err
	b.mu.Unlock()
	for _, o := range left {
		o.done(err)
	}
}

// flight is a message on its way.
type flight struct {
	*outgoing
	token paho.Token
}
