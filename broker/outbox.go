package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	// closeGrace is how long what was written before Close may take to go out, once it is tried.
	closeGrace = time.Second
	// lingerTime is how long a client may go on writing that was sent away.
	lingerTime = 500 * time.Millisecond
	// writeChunk is what Limits.WriteTimeout is granted for.
	writeChunk = 32 << 10
)

// outbox collects what is written to a client. A goroutine that lives only while there is something to send sends it. So
// nobody who writes, maybe with locks that others need, is ever held up by a client, and many small packets leave in one
// system call.
type outbox struct {
	mu       sync.Mutex
	changed  sync.Cond
	pile     pile
	flushing bool
	closed   bool
	grace    *time.Timer
	finished chan struct{}
	messages int  // in pile
	sending  int  // bytes that were in pile and are being sent
	full     bool // a message was turned away: the session is told when there is room
	tab      tab  // of pile, and of what is being sent

	aliases     map[string]uint16 // of topics, as the client was told
	mostAliases uint16            // that the client takes, and we give

	held []*heldAnswer // answers that wait for the disk, and those behind them
}

// heldAnswer is what a client is owed. Answers go out in the order of its requests (MQTT 5.0 section 4.6).
type heldAnswer struct {
	packet []byte
	ready  bool
}

// Write never blocks.
func (c *conn) Write(p []byte) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if err := c.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// write is Write with out.mu held.
func (c *conn) write(p []byte) error {
	o := &c.out
	if o.closed {
		return net.ErrClosed
	}
	o.pile.add(&c.broker.pieces, p)
	c.broker.journal.traffic.packetsOut.Add(1)
	c.startFlushing()
	return nil
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
	if o.sending > 0 {
		c.limitFlush()
	}
	o.changed.Broadcast()
	c.startFlushing()
	return c.SetReadDeadline(time.Unix(1, 0))
}

// limitFlush has the flush end in time, once the connection is closed. A flush that has not begun, on a machine with much
// else to do, may first begin. out.mu is held.
func (c *conn) limitFlush() {
	if c.out.grace == nil {
		c.out.grace = time.AfterFunc(closeGrace, func() { _ = c.raw.Close() })
	}
}

func (c *conn) flush() {
	o := &c.out
	if c.listener != nil {
		// What runs already goes first: the node with the command that is acknowledged here, and who writes to this
		// client, whose packets then leave together.
		runtime.Gosched()
	}
	for {
		o.mu.Lock()
		pending, full := o.pile, o.full
		o.pile, o.messages, o.full = pile{}, 0, false
		o.sending = pending.size
		if o.closed {
			c.limitFlush()
		}
		if pending.size == 0 {
			o.flushing = false
			o.tab.pay(c.broker)
			o.changed.Broadcast()
			closed := o.closed
			o.mu.Unlock()
			if closed {
				c.shut()
			}
			return
		}
		o.changed.Broadcast()
		o.mu.Unlock()
		if s := c.session.Load(); full && s != nil {
			s.drained()
		}
		if err := c.send(pending); err != nil {
			c.abandon(err)
		}
	}
}

func (c *conn) send(p pile) error {
	for _, piece := range p.pieces {
		err := c.sendPiece(piece)
		c.broker.pieces.giveBack(piece)
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) sendPiece(p []byte) error {
	for len(p) > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.broker.limits.Load().WriteTimeout)); err != nil {
			return err
		}
		n, err := c.Conn.Write(p[:min(len(p), writeChunk)])
		c.broker.journal.traffic.bytesOut.Add(uint64(n)) //nolint:gosec // not negative
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
	c.out.pile = pile{}
	c.out.changed.Broadcast()
}

// shut is called once, by the last flush.
func (c *conn) shut() {
	c.linger()
	// TLS says goodbye, which may fail; the socket is closed whatever happens.
	_ = c.Conn.Close()
	_ = c.raw.Close()
	if c.out.grace != nil {
		c.out.grace.Stop()
	}
	close(c.out.finished)
}

// linger lets a client that was sent away learn why: a socket that is closed while something waits in it to be read is
// reset, and what was written last is lost on the way. What still comes is read and dropped, for a short time.
func (c *conn) linger() {
	closer, ok := c.Conn.(interface{ CloseWrite() error })
	why := c.ending.Load()
	if !ok || why == nil || *why == ReasonPanic || !c.admitted.Load() || closer.CloseWrite() != nil {
		return
	}
	<-c.gone // who reads has been told to stop by a deadline in the past
	// Its error is the end of the wait.
	_ = c.raw.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.Copy(io.Discard, c.raw)
}

// waitRoom waits until less than MaxQueuedBytes are on the way, and until there are not too many answers that wait for
// the disk. It ends when the connection does.
func (c *conn) waitRoom() {
	o, l := &c.out, c.broker.limits.Load()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && (o.pile.size > l.MaxQueuedBytes || len(o.held) >= l.ReceiveMaximum || !c.mayQueue(o.pile.size)) {
		o.changed.Wait()
	}
}

// mayQueue reports whether there is room for so many bytes in the outbox, beside what is being sent. out.mu is held.
func (c *conn) mayQueue(bytes int) bool {
	return c.listener == nil || c.out.tab.reach(c.broker, c.identity(), c.out.sending+bytes)
}

// written is what became of a message.
type written int

const (
	outboxTook written = iota
	outboxFull         // the session's drained is called when there is room
	tooLarge           // the client does not take packets of that size
)

// writeMessage never blocks. It is called by the connection's session.
func (c *conn) writeMessage(version byte, d *delivery, now int64) written {
	o, l := &c.out, c.broker.limits.Load()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return outboxTook // the session learns of it soon
	}
	if o.pile.size >= l.MaxQueuedBytes || o.messages >= l.MaxQueuedMessages {
		o.full = true
		return outboxFull
	}
	use := o.aliasFor(d.message.topic)
	size := publishBytes(version, d, use)
	if c.maxPacket > 0 && size > int(c.maxPacket) {
		return tooLarge
	}
	if o.pile.size > 0 && !c.mayQueue(o.pile.size+size) { // one alone is sent at once
		o.full = true
		return outboxFull
	}
	o.pile.room(&c.broker.pieces, size)
	last := &o.pile.pieces[len(o.pile.pieces)-1]
	*last = appendPublish(*last, version, d, now, use)
	o.pile.size += size
	if use.number > 0 && !use.known {
		o.aliases[strings.Clone(d.message.topic)] = use.number // which may refer to the whole packet that it came in
	}
	o.messages++
	j := &c.broker.journal
	j.delivered.Add(1)
	j.traffic.packetsOut.Add(1)
	j.traffic.payloadOut.Add(uint64(len(d.message.payload)))
	c.startFlushing()
	return outboxTook
}

// aliasUse is how a PUBLISH names its topic: by an alias that is known, or in full, with an alias for the next time.
type aliasUse struct {
	number uint16 // 0 for none
	known  bool
}

// aliasFor gives aliases to the first topics that come, as many as there may be (MQTT 5.0 section 3.3.2.3.4). mu is held.
func (o *outbox) aliasFor(topic string) aliasUse {
	if o.mostAliases == 0 {
		return aliasUse{}
	}
	if number, known := o.aliases[topic]; known {
		return aliasUse{number, true}
	}
	if len(o.aliases) >= int(o.mostAliases) {
		return aliasUse{}
	}
	if o.aliases == nil {
		o.aliases = map[string]uint16{}
	}
	return aliasUse{number: uint16(len(o.aliases) + 1)} //nolint:gosec // at most mostAliases
}

// resolveAlias puts the topic in the place of its alias, or notes a new one. It reports false for one that is not known.
func (c *conn) resolveAlias(pk *packets.Packet) bool {
	alias := pk.Properties.TopicAlias
	switch {
	case alias == 0:
		return true
	case pk.TopicName == "":
		pk.TopicName = c.aliases[alias]
		return pk.TopicName != ""
	case c.aliases == nil:
		c.aliases = map[uint16]string{}
	}
	c.aliases[alias] = pk.TopicName
	return true
}

// answer sends a packet once what it needs is on disk, and after all answers before it. instead is told whether that has
// failed and says what to send; it is nil where a later try will do.
func (c *conn) answer(packet []byte, need mark, instead func(error) []byte) {
	if need == 0 && c.answerNow(packet) {
		return
	}
	a := &heldAnswer{packet: packet}
	c.out.mu.Lock()
	c.out.held = append(c.out.held, a)
	c.out.mu.Unlock()
	c.await(a, need, instead)
}

func (c *conn) await(a *heldAnswer, need mark, instead func(error) []byte) {
	c.broker.keeper.after(need, func(err error) {
		switch {
		case instead != nil:
			a.packet = instead(err)
		case err != nil && !c.broker.keeper.durable(need): // where nobody waits for the disk, it always is
			if !c.closed() {
				c.await(a, need, nil)
			}
			return
		}
		c.releaseAnswers(a)
	})
}

// answerNow reports false if there are answers that wait.
func (c *conn) answerNow(packet []byte) bool {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.held) > 0 {
		return false
	}
	_ = c.write(packet) // its error is that the connection has gone
	return true
}

func (c *conn) releaseAnswers(ready *heldAnswer) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	ready.ready = true
	for len(o.held) > 0 && o.held[0].ready {
		_ = c.write(o.held[0].packet) // its error is that the connection has gone
		o.held = o.held[1:]
	}
	o.changed.Broadcast()
}
