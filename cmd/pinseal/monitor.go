package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"pinseal/internal/metrics"
)

// monitorConfig is [monitor]: where programs on this machine learn how the node is.
type monitorConfig struct {
	Address    monitorAddress `toml:"address"` // empty: nowhere
	AllowPlain bool           `toml:"allow_plain"`
}

// monitorAddress is HOST:PORT.
type monitorAddress listenAddress

func (a monitorAddress) check() error {
	if listenAddress(a).unix() {
		return fmt.Errorf("%q is not an address such as \"127.0.0.1:9883\"", a)
	}
	return listenAddress(a).check()
}

func (m *monitorConfig) check(data []byte) error {
	if m.Address != "" && !listenAddress(m.Address).local() && !m.AllowPlain {
		return at(data, place{"monitor", 0, "address"}, "%s is not a loopback address, and there is neither TLS nor a password: write allow_plain = true if everybody who can reach it may read it", m.Address)
	}
	return nil
}

// Bounds of the monitor: it is for a few programs that ask every few seconds.
const (
	monitorConnections = 16
	monitorTimeout     = 10 * time.Second // for one request and its answer
	healthTimeout      = 5 * time.Second  // for a message to ourselves
	healthFor          = time.Second      // how long an answer stands for the next question too
)

// monitor answers /metrics and /healthz over HTTP.
type monitor struct {
	listener   net.Listener
	log        *slog.Logger
	collectors []metrics.Collector
	hears      func(context.Context) error
	anyHost    bool

	mu      sync.Mutex
	asked   time.Time
	healthy error
}

func (m *monitorConfig) listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", string(m.Address)) //nolint:noctx // binding does not block
	if err != nil {
		return nil, withHint(fmt.Errorf("listening on %s for [monitor]: %w", m.Address, err), "see who has the port: ss -ltnp")
	}
	return listener, nil
}

func (n *node) openMonitor() error {
	cfg := n.config.Monitor
	if cfg.Address == "" {
		return nil
	}
	listener, err := cfg.listen()
	if err != nil {
		return err
	}
	n.monitor = &monitor{listener: listener, log: n.log.With("part", "monitor"), collectors: n.collectors(), hears: n.agent.Loopback, anyHost: cfg.AllowPlain}
	return nil
}

// Run answers until ctx ends.
func (m *monitor) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", m.metrics)
	mux.HandleFunc("GET /healthz", m.health)
	server := &http.Server{
		Handler:           m.named(mux),
		ReadTimeout:       monitorTimeout,
		WriteTimeout:      monitorTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: monitorTimeout,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // whoever asks, asks again
	defer stop()
	err := server.Serve(&cappedListener{Listener: m.listener, taken: make(chan struct{}, monitorConnections), ended: ctx.Done()})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("answering on %s: %w", m.listener.Addr(), err)
}

// named lets only requests through that name this machine by its address: a web page elsewhere can have the browser of
// somebody here ask for a name of its own that leads to the loopback.
func (m *monitor) named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" && !m.anyHost {
			http.Error(w, "ask by address", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (m *monitor) metrics(w http.ResponseWriter, _ *http.Request) {
	var reading metrics.Writer
	for _, collect := range m.collectors {
		collect(&reading)
	}
	w.Header().Set("Content-Type", metrics.ContentType)
	if _, err := reading.WriteTo(w); err != nil {
		m.log.Error("writing metrics", "error", err)
	}
}

// health says ok only if a message to ourselves has come back just now.
func (m *monitor) health(w http.ResponseWriter, r *http.Request) {
	if err := m.ask(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n") // who asked may have gone
}

// ask lets those who ask at the same time share one message.
func (m *monitor) ask(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.asked.IsZero() && time.Since(m.asked) < healthFor {
		return m.healthy
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	err := m.hears(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // who asked has gone: that says nothing about the node
	}
	m.asked, m.healthy = time.Now(), err
	return err
}

// cappedListener lets only so many connections be open at a time.
type cappedListener struct {
	net.Listener
	taken chan struct{}
	ended <-chan struct{} // the server closes its connections only after Accept has returned
}

func (l *cappedListener) Accept() (net.Conn, error) {
	select {
	case l.taken <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.taken
		return nil, err
	}
	return &cappedConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.taken })}, nil
}

type cappedConn struct {
	net.Conn
	leave func()
}

func (c *cappedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
