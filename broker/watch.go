package broker

import "errors"

// Watcher sees what clients ask of the broker. Its functions must not block, and are called by several goroutines.
type Watcher struct {
	// Published is told of every PUBLISH from the network, before it is delivered. Payload must not be kept or changed.
	Published func(p Publication, payload []byte)
	// Refused is told of every connection that is refused or ended.
	Refused func(reason Reason, identity, address, detail string)
}

// Publication is a PUBLISH and what the policy says to it.
type Publication struct {
	Identity, Address, Topic string
	QoS                      byte
	Retain                   bool
	// Decision is why it goes on, or why not.
	Decision Decision
}

// Watch shows w what happens until stop is called. There can be one at a time.
func (b *Broker) Watch(w *Watcher) (stop func(), err error) {
	if !b.watcher.CompareAndSwap(nil, w) {
		return nil, errors.New("the broker is being watched already")
	}
	return func() { b.watcher.CompareAndSwap(w, nil) }, nil
}

func (b *Broker) watchPublish(c *conn, topic string, payload []byte, qos byte, retain bool) {
	if w := b.watcher.Load(); w != nil && c.listener != nil {
		d := c.session.Load().grants().publication(topic, qos, retain)
		w.Published(Publication{c.identity(), c.raw.RemoteAddr().String(), topic, qos, retain, d}, payload)
	}
}

func (b *Broker) watchRefusal(reason Reason, c *conn, detail string) {
	if w := b.watcher.Load(); w != nil {
		w.Refused(reason, c.identity(), c.raw.RemoteAddr().String(), detail)
	}
}
