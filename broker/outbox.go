package broker

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// closeGrace is how long what was written before Close may take to go out.
	closeGrace = time.Second
	// writeChunk is what Limits.WriteTimeout is granted for.
	writeChunk = 32 << 10
)

// outbox collects what mochi writes. A goroutine that lives only while there is something to send sends it. So mochi,
// which writes while it holds locks that publishers need, is never held up by a client, and many small packets leave in
// one system call.
type outbox struct {
	mu       sync.Mutex
	changed  sync.Cond
	buf      []byte
	flushing bool
	closed   bool
	grace    *time.Timer
	finished chan struct{}

	window  int // how many QoS 1 and 2 messages may be unacknowledged, 0 for no limit
	unacked int
}

// Write never blocks.
func (c *conn) Write(p []byte) (int, error) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, net.ErrClosed
	}
	if o.buf == nil {
		o.buf = c.broker.buffer()
	}
	o.buf = append(o.buf, p...)
	c.startFlushing()
	return len(p), nil
}

func (c *conn) startFlushing() {
	if !c.out.flushing {
		c.out.flushing = true
		go c.flush()
	}
}

// Close lets what was written go out, for a short time, and then closes the connection. It does not wait.
func (c *conn) Close() error {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	close(c.closing)
	o.grace = time.AfterFunc(closeGrace, func() { _ = c.raw.Close() })
	o.changed.Broadcast()
	c.startFlushing()
	return c.SetReadDeadline(time.Unix(1, 0))
}

func (c *conn) flush() {
	o := &c.out
	for {
		o.mu.Lock()
		pending := o.buf
		o.buf = nil
		if len(pending) == 0 {
			o.flushing = false
			closed := o.closed
			o.mu.Unlock()
			if closed {
				c.shut()
			}
			return
		}
		o.changed.Broadcast()
		o.mu.Unlock()
		err := c.send(pending)
		c.broker.recycle(pending)
		if err != nil {
			c.abandon(err)
		}
	}
}

func (c *conn) send(p []byte) error {
	for len(p) > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.broker.limits.WriteTimeout)); err != nil {
			return err
		}
		n, err := c.Conn.Write(p[:min(len(p), writeChunk)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// abandon gives up after a failed write.
func (c *conn) abandon(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.end(ReasonSlow, "")
	}
	_ = c.raw.Close() // it has failed already
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if !c.out.closed {
		c.out.closed = true
		close(c.closing)
	}
	c.out.buf = nil
	c.out.changed.Broadcast()
}

// shut is called once, by the last flush.
func (c *conn) shut() {
	// TLS says goodbye, which may fail; the socket is closed whatever happens.
	_ = c.Conn.Close()
	_ = c.raw.Close()
	if c.out.grace != nil {
		c.out.grace.Stop()
	}
	close(c.out.finished)
}

// waitRoom waits until less than MaxQueuedBytes are on the way and, for a message that must be acknowledged, until the
// client's receive maximum allows another one. It ends when the connection does.
func (c *conn) waitRoom(acknowledged bool) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && (len(o.buf) > c.broker.limits.MaxQueuedBytes || acknowledged && o.window > 0 && o.unacked >= o.window) {
		o.changed.Wait()
	}
}

// admit marks the session as established: what mochi had stored for it is on its way.
func (c *conn) admit() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.admitted.Store(true)
	c.out.changed.Broadcast()
}

// waitAdmitted waits until the session is established, so that nothing new overtakes what was stored.
func (c *conn) waitAdmitted() {
	if c.admitted.Load() {
		return
	}
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && !c.admitted.Load() {
		o.changed.Wait()
	}
}

func (c *conn) sentUnacknowledged() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.unacked++
}

func (c *conn) acknowledged() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.unacked = max(0, c.out.unacked-1)
	c.out.changed.Broadcast()
}
