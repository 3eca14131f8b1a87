package broker

import (
	"slices"
	"sync"
	"sync/atomic"
)

// subscription is what a session has subscribed to (MQTT 5.0 section 3.8.3).
type subscription struct {
	filter            string // as the client wrote it
	qos               byte
	noLocal           bool
	retainAsPublished bool
	retainHandling    byte
	identifier        int // 0 for none
}

// index finds the subscriptions that match a topic.
type index struct {
	mu      sync.RWMutex
	filters tree[subscribers]
	count   int
	shared  int // of them
}

// subscribers are the subscriptions to one filter.
type subscribers struct {
	sessions map[*session]*subscription
	groups   map[string]*group // of shared subscriptions
}

// group is a shared subscription (section 4.8.2).
type group struct {
	members []member
	next    atomic.Uint32
}

type member struct {
	session      *session
	subscription *subscription
}

// add adds a subscription, or replaces the one of that session with the same filter.
func (x *index) add(s *session, sub *subscription) {
	x.mu.Lock()
	defer x.mu.Unlock()
	name, filter := splitShared(sub.filter)
	at := x.filters.get(filter)
	if at == nil {
		at = &subscribers{}
		x.filters.put(filter, at)
	}
	if name == "" {
		if at.sessions == nil {
			at.sessions = map[*session]*subscription{}
		}
		if at.sessions[s] == nil {
			x.count++
		}
		at.sessions[s] = sub
		return
	}
	if at.groups == nil {
		at.groups = map[string]*group{}
	}
	if at.groups[name] == nil {
		at.groups[name] = &group{}
	}
	if at.groups[name].add(s, sub) {
		x.count++
		x.shared++
	}
}

// add reports whether the session is new in the group.
func (g *group) add(s *session, sub *subscription) bool {
	for i := range g.members {
		if g.members[i].session == s {
			g.members[i].subscription = sub
			return false
		}
	}
	g.members = append(g.members, member{s, sub})
	return true
}

func (x *index) remove(s *session, written string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	name, filter := splitShared(written)
	at := x.filters.get(filter)
	if at == nil {
		return
	}
	if name == "" {
		if at.sessions[s] != nil {
			x.count--
			delete(at.sessions, s)
		}
	} else if g := at.groups[name]; g != nil {
		if g.remove(s) {
			x.count--
			x.shared--
		}
		if len(g.members) == 0 {
			delete(at.groups, name)
		}
	}
	if len(at.sessions)+len(at.groups) == 0 {
		x.filters.remove(filter)
	}
}

func (g *group) remove(s *session) bool {
	for i := range g.members {
		if g.members[i].session == s {
			g.members = slices.Delete(g.members, i, i+1)
			return true
		}
	}
	return false
}

// target is a session that is to get a message.
type target struct {
	session           *session
	qos               byte
	retainAsPublished bool
	identifiers       []int
}

// match finds the sessions that are to get a message, each of them once: where several of its subscriptions match, the
// highest QoS counts, and all their identifiers are told (section 3.3.4).
func (x *index) match(m *message) []target {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list targets
	x.filters.match(m.topic, func(at *subscribers) {
		for s, sub := range at.sessions {
			if !sub.noLocal || s.id != m.origin {
				list.add(s, sub)
			}
		}
		for _, g := range at.groups {
			if chosen := g.choose(m.topic); chosen != nil {
				list.add(chosen.session, chosen.subscription)
			}
		}
	})
	return list.all
}

// choose takes the members in turn, those that are connected first, and none that may not receive the topic.
func (g *group) choose(topic string) *member {
	start := int(g.next.Add(1) % uint32(len(g.members))) //nolint:gosec // as many as there are sessions
	var absent *member
	for i := range g.members {
		m := &g.members[(start+i)%len(g.members)]
		switch {
		case !m.session.mayReceive(topic):
		case m.session.connected.Load():
			return m
		case absent == nil:
			absent = m
		}
	}
	return absent
}

// targets collects each session once.
type targets struct {
	all []target
	at  map[*session]int // only when there are many
}

const fewTargets = 8

func (t *targets) add(s *session, sub *subscription) {
	i := t.find(s)
	if i < 0 {
		t.all = append(t.all, target{session: s})
		i = len(t.all) - 1
		if t.at != nil {
			t.at[s] = i
		}
	}
	to := &t.all[i]
	to.qos = max(to.qos, sub.qos)
	to.retainAsPublished = to.retainAsPublished || sub.retainAsPublished
	if sub.identifier > 0 {
		to.identifiers = append(to.identifiers, sub.identifier)
	}
}

func (t *targets) find(s *session) int {
	if len(t.all) > fewTargets && t.at == nil {
		t.at = map[*session]int{}
		for i := range t.all {
			t.at[t.all[i].session] = i
		}
	}
	if t.at != nil {
		if i, ok := t.at[s]; ok {
			return i
		}
		return -1
	}
	for i := range t.all {
		if t.all[i].session == s {
			return i
		}
	}
	return -1
}

func (x *index) len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.count
}

func (x *index) lenShared() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.shared
}
