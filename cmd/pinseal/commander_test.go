package main

import (
	"context"
	"io"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// What the broker has acknowledged and the node has not answered is sent again as soon as there is another connection.
func TestUnansweredIsAskedAgain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := connectFlags{Bundle: runNode(t, makeNode(t)), ID: "commander"}.client(streams{err: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newCommander(ctx, client, func(agent.Verdict, bool) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // it is over
	q, err := s.send(mqtt.Message{Topic: "ledStatus", Payload: []byte(`"on"`), QoS: 1}, false, s.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	if v := <-q.answer; v.Reason != signing.ReasonApplied {
		t.Fatalf("%s (%s)", v.Reason, v.Detail)
	}
	s.mu.Lock()
	s.open = append(s.open, q) // as if that answer had been lost
	s.mu.Unlock()
	another, err := client.connect(ctx, mqtt.Config{CleanSession: true}) // displaces the first
	if err != nil {
		t.Fatal(err)
	}
	if err := another.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case v := <-q.answer:
		if v.Reason != signing.ReasonDuplicate {
			t.Errorf("%s (%s)", v.Reason, v.Detail)
		}
	case <-ctx.Done():
		t.Error("it was not sent again")
	}
}
