package enrol

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	window        = time.Minute    // of requests, connections and codes
	renewalWindow = 24 * time.Hour // of renewals
	maxAskers     = 4096
)

// counter counts what each asker, an address or a name, has had within a window
// of time. It holds a bounded number of askers: beyond, those it does not know
// have no more to come.
type counter[K comparable] struct {
	most   int
	window time.Duration

	mu    sync.Mutex
	since time.Time
	seen  map[K]int
}

func newCounter[K comparable](most int, window time.Duration) *counter[K] {
	return &counter[K]{most: most, window: window, seen: map[K]int{}}
}

// allows reports whether the asker has any left, without taking one.
func (c *counter[K]) allows(asker K, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(now)
	n, known := c.seen[asker]
	return n < c.most && (known || len(c.seen) < maxAskers)
}

// add takes one.
func (c *counter[K]) add(asker K, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(now)
	if _, known := c.seen[asker]; known || len(c.seen) < maxAskers {
		c.seen[asker]++
	}
}

func (c *counter[K]) turn(now time.Time) {
	if age := now.Sub(c.since); age >= c.window || age < 0 {
		c.since = now
		clear(c.seen)
	}
}

// origin is what one asker has: an IPv4 address, or an IPv6 network of 64 bits.
func origin(address string) netip.Prefix {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{} // all that are strange are one
	}
	addr, bits := parsed.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// limitedListener closes connections beyond a number, in all and for one asker.
// Beyond a number a minute too: a handshake costs more than an answer.
type limitedListener struct {
	net.Listener
	limits Limits
	now    func() time.Time
	recent *counter[netip.Prefix]

	mu   sync.Mutex
	open map[netip.Prefix]int
	all  int
}

func limitListener(l net.Listener, limits Limits, now func() time.Time) *limitedListener {
	return &limitedListener{Listener: l, limits: limits, now: now, recent: newCounter[netip.Prefix](limits.MaxRequests, window), open: map[netip.Prefix]int{}}
}

// Accept returns the next connection that is not one too many.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := origin(conn.RemoteAddr().String())
		if l.take(from) {
			return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { l.release(from) })}, nil
		}
		_ = conn.Close() // nothing was said on it
	}
}

func (l *limitedListener) take(from netip.Prefix) bool {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.limits.MaxConnections || l.open[from] >= l.limits.MaxConnectionsPerAddress || !l.recent.allows(from, now) {
		return false
	}
	l.recent.add(from, now)
	l.all++
	l.open[from]++
	return true
}

func (l *limitedListener) release(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close closes the connection and makes room for another.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
