package mqtt

import (
	"context"
	"fmt"
	"sync"
)

// window is how many messages may be on their way without confirmation.
const window = 256

// outgoing is a message with the one to tell of its fate. What is not constant is guarded by outbox.mu.
type outgoing struct {
	Message
	done      func(error)
	withdrawn bool
	id        uint16 // on the present connection
	confirmed bool
}

// outbox keeps what is to be sent, in order, until it is confirmed. A link's mu may be held where its mu is taken, not
// the other way round.
type outbox struct {
	limit int

	mu      sync.Mutex
	link    *link // the present connection, if there is one
	unsent  []*outgoing
	unacked []*outgoing // sent over it
	once    int         // of these at QoS 0, and not known to be written
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
	case len(b.unsent) >= b.limit:
		return ErrQueueFull
	}
	b.unsent = append(b.unsent, o)
	if b.link != nil {
		b.link.stir()
	}
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

// attach has everything sent over l, until rewind.
func (b *outbox) attach(l *link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link = l
	l.stir()
}

// next appends the messages that are to be sent over l now. l.mu is held.
func (b *outbox) next(l *link, packets []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.link == l && len(b.unsent) > 0 && len(b.unacked) < window && len(packets) < maxBatch {
		o := b.unsent[0]
		b.unsent[0] = nil
		b.unsent = b.unsent[1:]
		if o.withdrawn {
			continue
		}
		if o.id = 0; o.QoS > 0 {
			o.id = l.newID(nil)
		} else {
			b.once++
		}
		b.unacked = append(b.unacked, o)
		packets = appendPublish(packets, &o.Message, o.id)
	}
	return packets
}

// written notes that all was written that was taken: that is all there is to know of a message at QoS 0.
func (b *outbox) written(l *link) {
	b.mu.Lock()
	if b.link != l || b.once == 0 {
		b.mu.Unlock()
		return
	}
	b.once = 0
	for _, o := range b.unacked {
		o.confirmed = o.confirmed || o.QoS == 0
	}
	b.mu.Unlock()
	b.tell(l)
}

// confirm notes what ends the delivery of a message: PUBACK at QoS 1, PUBCOMP at QoS 2. Anything else is left alone.
func (b *outbox) confirm(l *link, kind byte, id uint16) {
	qos := byte(1)
	if kind == typePubcomp {
		qos = 2
	}
	b.mu.Lock()
	if b.link == l {
		for _, o := range b.unacked { // brokers confirm in order: it is the first
			if o.id == id && o.QoS == qos {
				o.confirmed = true
				break
			}
		}
	}
	b.mu.Unlock()
	b.tell(l)
}

// tell takes out what is confirmed, in the order in which it was sent, and tells.
func (b *outbox) tell(l *link) {
	for o := b.take(l); o != nil; o = b.take(l) {
		if o.id != 0 {
			l.freeID(o.id)
		}
		o.done(nil)
	}
}

// take gives the oldest message if it is confirmed.
func (b *outbox) take(l *link) *outgoing {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link != l || len(b.unacked) == 0 || !b.unacked[0].confirmed {
		return nil
	}
	o := b.unacked[0]
	b.unacked[0] = nil
	b.unacked = b.unacked[1:]
	if len(b.unacked) == window-1 && len(b.unsent) > 0 {
		l.stir()
	}
	return o
}

// rewind makes what the lost connection has not confirmed the first to be sent by the next.
func (b *outbox) rewind() {
	b.mu.Lock()
	var confirmed, rest []*outgoing
	for _, o := range b.unacked {
		if o.confirmed {
			confirmed = append(confirmed, o)
		} else {
			rest = append(rest, o)
		}
	}
	b.link, b.unsent, b.unacked, b.once = nil, append(rest, b.unsent...), nil, 0
	b.mu.Unlock()
	for _, o := range confirmed {
		o.done(nil)
	}
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
