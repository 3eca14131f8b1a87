package broker_test

import (
	"crypto/tls"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/broker"
)

// shakes begins so many handshakes as somebody; the result waits for the end of all.
func (s *site) shakes(tb testing.TB, n int, config *tls.Config) (wait func()) {
	tb.Helper()
	done := make(chan error, n)
	for range n {
		go func() {
			c, err := (&tls.Dialer{Config: config}).DialContext(tb.Context(), "tcp", s.addr)
			if err == nil {
				err = c.Close()
			}
			done <- err
		}()
	}
	return func() {
		tb.Helper()
		for range n {
			if err := <-done; err != nil {
				tb.Error(err)
			}
		}
	}
}

// arrive waits until so many have come.
func arrive(tb testing.TB, n int, arrivals <-chan struct{}) {
	tb.Helper()
	late := time.After(timeout)
	for i := range n {
		select {
		case <-arrivals:
		case <-late:
			tb.Fatalf("%d of %d have come", i, n)
		}
	}
}

// TestHandshakesTakeTurns: there are never more at work than processors, and who is let in is served beside them.
func TestHandshakesTakeTurns(t *testing.T) {
	processors := runtime.GOMAXPROCS(0)
	var held atomic.Bool
	var busy, most atomic.Int64
	entered, release := make(chan struct{}, 4*processors), make(chan struct{})
	s := start(t, func(c *broker.Config) {
		config := c.Listeners[0].TLS.Clone()
		choose := config.GetConfigForClient
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if held.Load() {
				n := busy.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				entered <- struct{}{}
				<-release
				busy.Add(-1)
			}
			return choose(hello)
		}
		c.Listeners[0].TLS = config
	})
	c := s.connect(t, "a", "a")
	held.Store(true)
	wait := s.shakes(t, 4*processors, s.clientTLS(t, "b"))
	arrive(t, processors, entered)
	for range 100 {
		c.publish(t, "x", "y", 1)
	}
	close(release)
	wait()
	if n := most.Load(); n > int64(processors) {
		t.Errorf("%d handshakes at work at a time on %d processors", n, processors)
	}
}

// TestSilentHandshakesKeepNobodyWaiting: who does not answer does not have the turn.
func TestSilentHandshakesKeepNobodyWaiting(t *testing.T) {
	s := start(t, nil)
	silent := s.clientTLS(t, "b").Clone()
	certificate, reached, release := silent.Certificates[0], make(chan struct{}), make(chan struct{})
	silent.Certificates = nil
	silent.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		reached <- struct{}{}
		<-release
		return &certificate, nil
	}
	many := 2 * runtime.GOMAXPROCS(0)
	wait := s.shakes(t, many, silent)
	arrive(t, many, reached)
	s.connect(t, "a", "a").publish(t, "x", "y", 1)
	close(release)
	wait()
}
