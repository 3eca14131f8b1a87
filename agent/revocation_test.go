package agent_test

import (
	"bytes"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/signing"
)

// accepted publishes a command to the LED and waits until it was accepted; it has not been acted on then if the line is
// held.
func (n *node) accepted(raw []byte) {
	n.t.Helper()
	const stepNumber = 10
	passed := make(chan struct{})
	stop, err := n.agent.Trace(&agent.Tracer{
		Wants: func(_ string, payload []byte) bool { return bytes.Equal(payload, raw) },
		Step: func(s agent.Step) {
			if s.Number == stepNumber && s.Reason == "" {
				close(passed)
			}
		},
		Done: func() {},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	defer stop()
	n.publish(ledTopic, raw)
	select {
	case <-passed:
	case <-time.After(patience):
		n.t.Fatal("the command was not accepted")
	}
}

// Commands that were accepted and wait for those before them are not obeyed once their signer is revoked, or has lost
// the right to them.
func TestRevocationReachesWhatWasAccepted(t *testing.T) {
	n := startNode(t, setup{})
	gate := make(chan struct{})
	n.led.gate = gate
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`)) // is held while it drives the line
	n.accepted(n.sealed(t, "guest", ledTopic, `"on"`))
	n.accepted(n.sealed(t, "operator", ledTopic, `"off"`))
	p := n.policy(t, "operator", "veteran")
	p.Permits[0].Actions = []actuator.Action{actuator.On}
	if err := n.agent.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	counted := n.delta(func() {
		close(gate)
		for _, want := range []signing.Reason{signing.ReasonApplied, signing.ReasonNotPermitted} {
			if got := n.verdict("operator").Reason; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
	if counted[signing.ReasonUnknownKey] != 1 || n.led.count() != 1 || !n.led.On() {
		t.Errorf("counted %v, acted %d times", counted, n.led.count())
	}
}

// A command that was fresh when it was accepted, and has waited since, for the disk or for those before it, is not obeyed
// when it has become stale meanwhile.
func TestCommandsGetStaleWhileTheyWait(t *testing.T) {
	n := startNode(t, setup{})
	gate := make(chan struct{})
	n.led.gate = gate
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`, aged(-4*time.Second))) // is held while it drives the line, or before
	n.accepted(n.sealed(t, "operator", ledTopic, `"off"`))
	n.accepted(n.sealed(t, "operator", ledTopic, `"on"`, aged(-4*time.Second)))
	n.accepted(n.sealed(t, "operator", ledTopic, `"off"`, aged(-4*time.Second), func(c *signing.Claims) { c.Expires = time.Now().Add(20 * time.Second) }))
	n.clock.shift.Store(int64(31 * time.Second))
	close(gate)
	for i, want := range []signing.Reason{signing.ReasonApplied, signing.ReasonStale, signing.ReasonApplied, signing.ReasonStale} {
		if v := n.verdict("operator"); v.Reason != want {
			t.Errorf("command %d: %s (%s), want %s", i, v.Reason, v.Detail, want)
		}
	}
	if !n.led.On() || n.led.count() != 2 {
		t.Errorf("driven %d times, on %v", n.led.count(), n.led.On())
	}
}

// A key that is given to somebody else speaks for that one from then on, in messages under way too.
func TestKeyChangesHandsUnderWay(t *testing.T) {
	n := startNode(t, setup{})
	hold := make(chan struct{})
	n.clock.hold.Store(&hold)
	n.publish(ledTopic, n.sealed(t, "guest", ledTopic, `"on"`, aged(time.Hour))) // is held while it is judged
	hold <- struct{}{}
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"off"`))
	n.publish("fanStatus", n.sealed(t, "operator", "fanStatus", `"on"`))
	if got := n.verdict("operator"); got.Topic != "fanStatus" || got.Reason != signing.ReasonApplied {
		t.Fatalf("got %+v", got)
	}
	n.keys["operator"], n.keys["stranger"] = n.keys["stranger"], n.keys["operator"]
	if err := n.agent.SetPolicy(n.policy(t)); err != nil {
		t.Fatal(err)
	}
	hold <- struct{}{}
	if got := n.verdict("guest").Reason; got != signing.ReasonStale {
		t.Errorf("the guest got %s", got)
	}
	if got := n.verdict("stranger").Reason; got != signing.ReasonNotPermitted {
		t.Errorf("the stranger, whose key was the operator's, got %s", got)
	}
}
