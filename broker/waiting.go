package broker

// What waits in memory for connected clients is bounded for each connection; one identity may have hundreds. So what goes
// beyond a little is claimed from a room that all share, in blocks, because messages come too fast to claim for each.

const (
	// freeRoom is what a connection's outbox, and a session that ends with its connection, may have in any case.
	freeRoom = 16 << 10
	// roomBlock is what is claimed at once.
	roomBlock = 16 << 10
	// messageOverhead is what keeps a message in a queue takes, beside what itemOverhead counts.
	messageOverhead = 256
)

// weight is what a usage takes in memory.
func (u usage) weight() int { return u.bytes + messageOverhead*u.messages }

// tab is what has been claimed. Its owner guards it.
type tab struct{ claimed int }

// reach reports whether there is room for so many bytes in all.
func (t *tab) reach(b *Broker, identity string, bytes int) bool {
	short := bytes - freeRoom - t.claimed
	if short <= 0 {
		return true
	}
	more := (short + roomBlock - 1) / roomBlock * roomBlock
	if !b.waiting.claim(usage{bytes: b.limits.Load().MaxWaitingBytes}, identity, usage{bytes: more}) {
		return false
	}
	t.claimed += more
	return true
}

// pay gives everything back.
func (t *tab) pay(b *Broker, identity string) {
	if t.claimed > 0 {
		b.waiting.count(identity, usage{bytes: -t.claimed})
		t.claimed = 0
	}
}
