package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/internal/freeport"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// makeNode makes a node's files and gives their folder.
func makeNode(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	quiet := streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	if code := run(t.Context(), []string{"init", "--dir", dir, "--node", "raspiflow", "--chip", "sim", "--listen", address}, quiet); code != exitDone {
		t.Fatalf("init ended with %d", code)
	}
	return dir
}

// runNode runs a node until the test ends; it gives the operator's bundle.
func runNode(t *testing.T, dir string) string {
	t.Helper()
	return runNodeAt(t, dir, nil)
}

// runNodeAt is runNode with another clock, nil being the machine's.
func runNodeAt(t *testing.T, dir string, now func() time.Time) string {
	t.Helper()
	told, tell := io.Pipe()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"run", "--dir", dir}, streams{in: strings.NewReader(""), out: io.Discard, err: tell, now: now})
		_ = tell.Close()
	}()
	lines := bufio.NewScanner(told)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "ready:") {
	}
	go func() { _, _ = io.Copy(io.Discard, told) }()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != exitDone {
			t.Errorf("the node ended with %d", code)
		}
	})
	return filepath.Join(dir, "bundles", "operator")
}

// replaceIn changes a file.
func replaceIn(t *testing.T, path, old, by string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, by, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whoever lives in 1970 is told the time by the node, and what it has to say arrives with the right time; what is old is
// not made young.
func TestWrongClockIsToldTheTime(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		serve bool
		wrong time.Duration // our clock
		age   time.Duration // of the message
		want  signing.Reason
	}{
		{"1970", true, -time.Since(time.Unix(0, 0)), 0, signing.ReasonApplied},
		{"an hour ahead", true, time.Hour, 0, signing.ReasonApplied},
		{"1970, an old message", true, -time.Since(time.Unix(86400, 0)), time.Hour, signing.ReasonStale},
		{"right, an old message", true, 0, time.Hour, signing.ReasonStale},
		{"1970, the node does not tell", false, -time.Since(time.Unix(0, 0)), 0, signing.ReasonStale},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := makeNode(t)
			if !tt.serve {
				replaceIn(t, filepath.Join(dir, "pinseal.toml"), "serve = true", "serve = false")
			}
			client, err := connectFlags{Bundle: runNode(t, dir)}.client(streams{err: io.Discard})
			if err != nil {
				t.Fatal(err)
			}
			s, err := newCommander(t.Context(), client, func(agent.Verdict, bool) {})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close() //nolint:errcheck // it is over
			s.clock.wall = func() time.Time { return time.Now().Add(tt.wrong) }
			q, err := s.send(mqtt.Message{Topic: "ledStatus", Payload: []byte(`"on"`), QoS: 1}, false, s.clock.now().Add(-tt.age))
			if err != nil {
				t.Fatal(err)
			}
			v, err := s.follow(t.Context(), q)
			if err != nil || v.Reason != tt.want {
				t.Errorf("%s (%s), %v, want %s", v.Reason, v.Detail, err, tt.want)
			}
			if off := time.Since(s.clock.now()).Abs(); tt.want == signing.ReasonApplied && off > time.Minute {
				t.Errorf("afterwards our clock is off by %v", off)
			}
		})
	}
}
