package broker

import "sync"

// retained holds the last retained message of each topic (MQTT 5.0 section 3.3.1.3).
type retained struct {
	mu       sync.RWMutex
	topics   tree[message]
	count    int
	expiring int // messages that expire
	// Those that limits count: the node's own are not among them.
	limited usage
	of      map[string]usage // of them, by who was the last to publish
}

// set keeps a retained message, or with an empty one forgets the topic's. It reports false if there is no room. need is
// what must be on disk before the publisher may be told that it is kept.
func (r *retained) set(b *Broker, m *message) (need mark, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.topics.get(m.topic)
	if len(m.payload) > 0 && !r.hasRoomFor(b.limits.Load(), m, old) {
		return 0, false
	}
	if old != nil {
		r.drop(old)
	}
	if len(m.payload) > 0 {
		r.add(m)
		if !m.own { // which is stored in the old one's place: at no time is there none
			return b.keeper.putRetained(m), true
		}
	}
	if old != nil && !old.own {
		need = b.keeper.deleteRetained(m.topic)
	}
	return need, true
}

func (r *retained) hasRoomFor(l *Limits, m, old *message) bool {
	if m.own {
		return true
	}
	sender, cost := m.sender(), usage{1, m.size()}
	all, own := cost, cost // more than there is now
	if old != nil && !old.own {
		before := usage{1, old.size()}
		if all = all.minus(before); old.sender() == sender {
			own = own.minus(before)
		}
	}
	return all.fits(r.limited, usage{l.MaxRetained, l.MaxRetainedBytes}) &&
		own.fits(r.of[sender], usage{l.MaxRetainedPerIdentity, l.MaxRetainedBytesPerIdentity})
}

// fits reports whether there is room for as much more. What is no more always fits: limits may have been lowered.
func (u usage) fits(now, most usage) bool {
	return (u.messages <= 0 || now.messages+u.messages <= most.messages) && (u.bytes <= 0 || now.bytes+u.bytes <= most.bytes)
}

// account counts a message in (1) or out (-1). r.mu is held.
func (r *retained) account(m *message, sign int) {
	r.count += sign
	if m.expires != 0 {
		r.expiring += sign
	}
	if m.own {
		return
	}
	sender, u := m.sender(), usage{sign, sign * m.size()}
	r.limited = r.limited.plus(u)
	if r.of[sender] = r.of[sender].plus(u); r.of[sender] == (usage{}) {
		delete(r.of, sender)
	}
}

// add counts a message in. r.mu is held, and the topic has none.
func (r *retained) add(m *message) {
	r.topics.put(m.topic, m)
	r.account(m, 1)
}

// drop counts a message out, which stays stored. r.mu is held.
func (r *retained) drop(m *message) {
	r.topics.remove(m.topic)
	r.account(m, -1)
}

// search returns the messages on the topics that a filter matches, and how many levels it had to look at.
func (r *retained) search(filter string, now int64) (found []*message, levels int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	levels = r.topics.search(filter, func(m *message) {
		if !m.expired(now) {
			found = append(found, m)
		}
	})
	return found, levels
}

// expire forgets the messages whose time is up.
func (r *retained) expire(b *Broker, now int64) {
	r.mu.RLock()
	expiring := r.expiring
	r.mu.RUnlock()
	if expiring > 0 {
		r.forget(b, func(m *message) bool { return m.expired(now) })
	}
}

// forget forgets what is not to be kept any more.
func (r *retained) forget(b *Broker, over func(*message) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*message
	r.topics.each(func(m *message) {
		if over(m) {
			found = append(found, m)
		}
	})
	for _, m := range found {
		if r.drop(m); !m.own {
			b.keeper.deleteRetained(m.topic)
		}
	}
}

// size is how many messages there are, and the bytes of those that limits count.
func (r *retained) size() (messages, bytes int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count, r.limited.bytes
}

func (r *retained) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count
}
