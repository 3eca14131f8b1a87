package broker

// What waits in memory for connected clients is bounded for each connection; one identity may have hundreds. So what goes
// beyond a little is claimed from a room that all share, in blocks, because messages come too fast to claim for each.

const (
	// freeRoom is what a connection's outbox, what has come of a packet on it, and a session that ends with its connection may
	// each have in any case.
	freeRoom = 16 << 10
	// roomBlock is what is claimed at once.
	roomBlock = 16 << 10
	// messageOverhead is what keeps a message in a queue takes, beside what itemOverhead counts.
	messageOverhead = 256
)

// weight is what a usage takes in memory.
func (u usage) weight() int { return u.bytes + messageOverhead*u.messages }

// tab is what has been claimed, and for whom. Its owner guards it.
type tab struct {
	claimed  int
	identity string
}

// reach reports whether there is room for so many bytes in all.
func (t *tab) reach(b *Broker, identity string, bytes int) bool {
	short := bytes - freeRoom - t.claimed
	if short <= 0 {
		return true
	}
	if t.claimed == 0 {
		t.identity = identity // who is not known yet may be later
	}
	more := (short + roomBlock - 1) / roomBlock * roomBlock
	if !b.waiting.claim(usage{bytes: b.limits.Load().MaxWaitingBytes}, t.identity, usage{bytes: more}) {
		return false
	}
	t.claimed += more
	return true
}

// pay gives everything back.
func (t *tab) pay(b *Broker) {
	if t.claimed > 0 {
		b.waiting.count(t.identity, usage{bytes: -t.claimed})
		t.claimed = 0
	}
}

// mayHold reports whether there is room for so many bytes of what has come on the connection and is no whole packet yet.
func (c *conn) mayHold(bytes int) bool {
	if c.listener == nil {
		return true
	}
	if bytes <= freeRoom {
		c.reading.pay(c.broker)
	}
	return c.reading.reach(c.broker, c.identity(), bytes)
}
