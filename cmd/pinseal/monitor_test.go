package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/internal/metrics"
)

// TestHealth: healthy is only what has just heard itself; many who ask share one message.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		deaf := atomic.Bool{}
		m := &monitor{log: slog.New(slog.DiscardHandler), hears: func(ctx context.Context) error {
			asked.Add(1)
			if !deaf.Load() {
				return nil
			}
			<-ctx.Done()
			return errors.New("did not come back")
		}}
		get := func() (int, string) {
			w := httptest.NewRecorder()
			m.health(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
			return w.Code, w.Body.String()
		}
		for range 100 {
			if code, body := get(); code != http.StatusOK || body != "ok\n" {
				t.Fatalf("%d %q", code, body)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("100 questions at one moment: %d messages", n)
		}
		time.Sleep(2 * time.Second)
		deaf.Store(true)
		start := time.Now()
		if code, body := get(); code != http.StatusServiceUnavailable || !strings.Contains(body, "did not come back") || time.Since(start) != healthTimeout {
			t.Errorf("deaf: %d %q after %v", code, body, time.Since(start))
		}
		// Who goes away while it waits has not found out anything.
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, context.Canceled)
		defer cancel()
		gone, leave := context.WithCancel(ctx)
		time.AfterFunc(time.Second/2, leave)
		if m.ask(gone) == nil {
			t.Error("healthy, says who did not wait")
		}
		deaf.Store(false)
		if code, body := get(); code != http.StatusOK {
			t.Errorf("hears again: %d %q", code, body)
		}
	})
}

// TestMonitorCaps: connections beyond the cap wait for one that ends.
func TestMonitorCaps(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{
		listener: listener, log: slog.New(slog.DiscardHandler), hears: func(context.Context) error { return nil },
		collectors: []metrics.Collector{func(w *metrics.Writer) { w.Gauge("x", "X.", 1) }},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	var silent []net.Conn
	for range monitorConnections {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	answered := make(chan string)
	go func() {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String()+"/metrics", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer answer.Body.Close() //nolint:errcheck // a test
		text, _ := io.ReadAll(answer.Body)
		answered <- string(text)
	}()
	select {
	case text := <-answered:
		t.Errorf("answered beyond the cap: %q", text)
	case <-time.After(100 * time.Millisecond):
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
	if text := <-answered; !strings.Contains(text, "x 1\n") {
		t.Errorf("got %q", text)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
