package broker

import (
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

// conns knows every connection, so that they can be capped, found and closed.
type conns struct {
	mu        sync.Mutex
	stopping  bool
	all       map[*conn]struct{}
	origins   map[netip.Prefix]int
	connects  map[netip.Prefix]*rate.Limiter
	listeners map[*Listener]int
	network   int     // those in all that came through a listener
	accepted  uint64  // how many have ever
	pending   []*conn // those that have not been admitted, oldest first
	serving   sync.WaitGroup
}

func newConns() conns {
	return conns{all: map[*conn]struct{}{}, origins: map[netip.Prefix]int{}, connects: map[netip.Prefix]*rate.Limiter{}, listeners: map[*Listener]int{}}
}

// add counts the connection in, or says why there is no room for it. A new connection displaces an old one that is still
// silent, which the caller ends.
func (s *conns) add(c *conn) (displaced *conn, refused Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, ReasonTooManyConnections
	}
	if c.listener != nil {
		limits := c.broker.limits.Load()
		if most := c.listener.MaxConnections; most > 0 && s.listeners[c.listener] >= most {
			return nil, ReasonTooManyConnections
		}
		if s.network >= limits.MaxConnections || !limits.connectionsOf(c.address).within(s.origins, 1) {
			return nil, ReasonTooManyConnections
		}
		if !s.mayConnect(c.address, limits) {
			return nil, ReasonConnectRate
		}
		displaced = s.displace(c.address, limits)
		s.network++
		s.accepted++
		c.number = s.accepted
		limits.connectionsOf(c.address).count(s.origins, 1)
		s.listeners[c.listener]++
		s.pending = append(s.pending, c)
	}
	s.all[c] = struct{}{}
	s.serving.Add(1)
	return displaced, ""
}

// displace makes room among the pending connections; nil if there was some.
func (s *conns) displace(address netip.Addr, limits *Limits) *conn {
	for _, share := range limits.pendingOf(address) {
		oldest, same := -1, 0
		for i, p := range s.pending {
			if share.covers(p.address) {
				if same++; oldest < 0 {
					oldest = i
				}
			}
		}
		if same >= share.most {
			return s.drop(oldest)
		}
	}
	if len(s.pending) >= limits.MaxPending {
		return s.drop(0)
	}
	return nil
}

// drop takes one off the pending connections.
func (s *conns) drop(i int) *conn {
	victim := s.pending[i]
	s.pending = slices.Delete(s.pending, i, i+1)
	return victim
}

// settle takes a connection off the pending ones once its CONNECT was accepted.
func (s *conns) settle(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unpend(c)
}

func (s *conns) unpend(c *conn) {
	if i := slices.Index(s.pending, c); i >= 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
	}
}

func (s *conns) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unpend(c)
	delete(s.all, c)
	if c.listener != nil {
		s.network--
		s.listeners[c.listener]--
		c.broker.limits.Load().connectionsOf(c.address).count(s.origins, -1)
	}
	s.serving.Done()
}

// stop lets no more connections in and returns those there are.
func (s *conns) stop() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	return s.list()
}

func (s *conns) list() []*conn {
	list := make([]*conn, 0, len(s.all))
	for c := range s.all {
		list = append(list, c)
	}
	return list
}

// snapshot returns the connections there are.
func (s *conns) snapshot() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

func (s *conns) counts() (network, pending int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.network, len(s.pending)
}
