package broker

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// publishRate is how fast an identity may publish, over all its connections.
type publishRate struct {
	messages, bytes *rate.Limiter
	users           int // connections
}

// perSecond allows so much a second, and at once what a second allows.
func perSecond(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(n), n) }

// publishRates has an entry for each identity that has connections, or has published a moment ago.
type publishRates struct {
	mu sync.Mutex
	of map[string]*publishRate
}

func (p *publishRates) get(identity string, l *Limits) *publishRate {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.of[identity]
	if r == nil {
		r = &publishRate{messages: perSecond(l.MaxPublishRate), bytes: rate.NewLimiter(rate.Limit(l.MaxPublishBytesRate), l.publishBurst())}
		p.of[identity] = r
	}
	r.users++
	return r
}

// leave is called when a connection that has got a rate ends; r may be nil.
func (p *publishRates) leave(r *publishRate) {
	if r == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r.users--
}

// forget forgets the identities that have gone for long enough to be like new.
func (p *publishRates) forget(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for identity, r := range p.of {
		if r.users == 0 && isFull(r.messages, now) && isFull(r.bytes, now) {
			delete(p.of, identity)
		}
	}
}

// isFull reports whether all that a limiter allows may be taken at once.
func isFull(l *rate.Limiter, now time.Time) bool { return l.TokensAt(now) >= float64(l.Burst()) }

// publishBurst lets a packet of any allowed size have its turn.
func (l *Limits) publishBurst() int { return max(l.MaxPublishBytesRate, l.MaxPacketBytes) }

func (p *publishRates) set(l *Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.of {
		r.messages.SetLimit(rate.Limit(l.MaxPublishRate))
		r.messages.SetBurst(l.MaxPublishRate)
		r.bytes.SetLimit(rate.Limit(l.MaxPublishBytesRate))
		// Who is connected may go on sending packets of the size it was told.
		r.bytes.SetBurst(max(l.publishBurst(), r.bytes.Burst()))
	}
}

// throttle waits until the identity may publish another message of that size. Meanwhile nothing is read from the
// connection.
func (b *Broker) throttle(c *conn, size int) {
	if r := b.rateOf(c); r != nil {
		now := time.Now()
		b.slowDown(c, max(r.messages.ReserveN(now, 1).DelayFrom(now), r.bytes.ReserveN(now, size).DelayFrom(now)))
	}
}

// levelsPerMessage is how many levels of topics can be looked at for what it takes to handle a message.
const levelsPerMessage = 16

// charge is throttle for so many messages' worth of work.
func (b *Broker) charge(c *conn, messages int) {
	r := b.rateOf(c)
	if r == nil {
		return
	}
	now, wait := time.Now(), time.Duration(0)
	for messages > 0 {
		n := min(messages, max(1, r.messages.Burst())) // no more can be reserved at a time
		wait = max(wait, r.messages.ReserveN(now, n).DelayFrom(now))
		messages -= n
	}
	b.slowDown(c, wait)
}

// rateOf is what the connection's identity may do; nil for the node, which is not limited.
func (b *Broker) rateOf(c *conn) *publishRate {
	if c.publishing == nil && c.listener != nil {
		c.publishing = b.rates.get(c.identity(), b.limits.Load())
	}
	return c.publishing
}

func (b *Broker) slowDown(c *conn, wait time.Duration) {
	if wait <= 0 {
		return
	}
	b.throttled(c)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closing:
	}
}

// mayConnect counts a connection of the address, if it and its network have not opened too many in the last second. s.mu
// is held.
func (s *conns) mayConnect(address netip.Addr, limits *Limits) bool {
	for _, share := range limits.connectRateOf(address) {
		r := s.connects[share.of]
		if r == nil {
			r = perSecond(share.most)
			s.connects[share.of] = r
		}
		if !r.Allow() {
			return false
		}
	}
	return true
}

// forgetConnects forgets the addresses that have not connected for long enough to be like new.
func (s *conns) forgetConnects(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for address, r := range s.connects {
		if isFull(r, now) {
			delete(s.connects, address)
		}
	}
}
