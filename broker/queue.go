package broker

// delivery is a message on its way to one session.
type delivery struct {
	message     *message
	id          uint16 // packet identifier, 0 at QoS 0
	number      uint64 // counts upwards in its session
	qos         byte
	retain      bool
	identifiers []int // of the subscriptions
	sent        bool  // on this connection or a former one
	underway    bool  // on this connection
	released    bool  // at QoS 2: the client has it, and has not said PUBCOMP
	revoked     bool  // it is not to be sent again, and counts until it is acknowledged or the connection ends
	need        mark  // what must be on disk

	previous, next *delivery
}

// queue holds the QoS 1 and 2 messages of a session that were not acknowledged, in the order in which they came. Its
// session guards it.
type queue struct {
	first, last *delivery
	unsent      *delivery // the first that was not sent on this connection; all behind it were not either
	byID        map[uint16]*delivery
	lastID      uint16
	lastNumber  uint64
	length      int
	bytes       int    // of messages
	expiring    int    // messages that expire
	underway    int    // sent on this connection and not acknowledged
	lastSent    uint64 // the highest number that was ever sent
	window      int    // how many may be
}

// push appends a new delivery and gives it its identifier and number. There must be an identifier left.
func (q *queue) push(d *delivery) {
	for taken := true; taken; {
		if q.lastID++; q.lastID == 0 {
			q.lastID = 1
		}
		_, taken = q.byID[q.lastID]
	}
	q.lastNumber++
	d.id, d.number = q.lastID, q.lastNumber
	q.link(d)
}

// link appends a delivery that has its identifier and number.
func (q *queue) link(d *delivery) {
	d.previous = q.last
	if q.last == nil {
		q.first = d
	} else {
		q.last.next = d
	}
	q.last = d
	if q.unsent == nil {
		q.unsent = d
	}
	q.byID[d.id] = d
	q.length++
	q.count(d.message, 1)
}

// count counts a message in (1) or out (-1).
func (q *queue) count(m *message, sign int) {
	q.bytes += sign * m.size()
	if m.expires != 0 {
		q.expiring += sign
	}
}

// release leaves nothing but the identifier of a QoS 2 message that the client has.
func (q *queue) release(d *delivery) {
	q.count(d.message, -1)
	d.message, d.released = &message{}, true
}

func (q *queue) remove(d *delivery) {
	if d.previous == nil {
		q.first = d.next
	} else {
		d.previous.next = d.next
	}
	if d.next == nil {
		q.last = d.previous
	} else {
		d.next.previous = d.previous
	}
	if q.unsent == d {
		q.unsent = d.next
	}
	delete(q.byID, d.id)
	q.length--
	q.count(d.message, -1)
	if d.underway {
		q.underway--
	}
}

// sent moves on behind the first unsent one.
func (q *queue) sent(d *delivery) {
	d.sent, d.underway = true, true
	q.underway++
	q.lastSent = max(q.lastSent, d.number)
	q.unsent = d.next
}

// rewind begins from the start, for a new connection whose client takes so many unacknowledged messages.
func (q *queue) rewind(window uint16) {
	for d := q.first; d != nil; d = d.next {
		d.underway = false
	}
	q.unsent, q.underway, q.window = q.first, 0, int(window)
}

// neverSent returns the oldest delivery that no client has seen, or nil.
func (q *queue) neverSent() *delivery {
	d := q.unsent
	for d != nil && d.sent {
		d = d.next
	}
	return d
}
