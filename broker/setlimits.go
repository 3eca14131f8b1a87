package broker

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/mochi-mqtt/server/v2/packets"
)

// SetLimits replaces the limits. What a client was told when it connected holds for as long as it is connected: the
// largest packet, the receive maximum, the keep alive, and with them the length of topics and the number of filters and
// user properties. Connections beyond the new caps end, the youngest first; what a session has too much of stays.
func (b *Broker) SetLimits(l Limits) {
	l = l.withDefaults()
	b.limits.Store(&l)
	b.rates.set(&l)
	for _, c := range b.conns.excess(&l) {
		c.kick(ReasonTooManyConnections, packets.ErrQuotaExceeded)
	}
}

// excess returns the connections that are too many under the limits.
func (s *conns) excess(l *Limits) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.connects) // they have the old rate
	// Those that are ending already need no other to go for them.
	list := slices.DeleteFunc(s.list(), func(c *conn) bool { return c.listener == nil || c.ending.Load() != nil })
	slices.SortFunc(list, func(a, b *conn) int { return cmp.Compare(a.number, b.number) })
	kept, of := 0, map[netip.Prefix]int{}
	return slices.DeleteFunc(list, func(c *conn) bool {
		shares := l.connectionsOf(c.address)
		stays := kept < l.MaxConnections && shares.within(of, 1)
		if stays {
			kept++
			shares.count(of, 1)
		}
		return stays
	})
}
