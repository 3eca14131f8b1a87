package agent_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// taker is a clock that wants to be told the time until it is.
type taker struct {
	told    chan time.Time
	content atomic.Bool
}

func newTaker() *taker { return &taker{told: make(chan time.Time, 100)} }

func (k *taker) Wants() bool { return !k.content.Load() }

func (k *taker) Tell(now time.Time) error {
	if now.Before(time.Now().Add(-24 * time.Hour)) {
		return errors.New("below the floor")
	}
	k.told <- now
	return nil
}

// Who asks gets the time, sealed and for this question alone; a node that is not sure itself says nothing.
func TestTimeIsServed(t *testing.T) {
	t.Parallel()
	n := startNode(t, setup{change: func(c *agent.Config) { c.ServeTime = true }})
	if err := n.observer.Subscribe(t.Context(), mqtt.Subscription{Filter: agent.TimeTopic(nodeName)}); err != nil {
		t.Fatal(err)
	}
	ask := agent.TimeRequestTopic(nodeName)
	for _, malformed := range []string{"", "short", strings.Repeat("a", 65), "spaces are not base64url at all", `{"nonce":"AAAAAAAAAAAAAAAAAAAAAA"}`} {
		n.publish(ask, []byte(malformed))
	}
	n.clock.untrusted.Store(true)
	n.publish(ask, []byte(agent.NewTimeNonce()))
	n.fenceUntrusted()
	n.clock.untrusted.Store(false)
	nonce := agent.NewTimeNonce()
	n.publish(ask, []byte(nonce))
	m := n.next()
	if m.Topic != agent.TimeTopic(nodeName) || m.Retained {
		t.Fatalf("got %s (retained: %v), want the time", m.Topic, m.Retained)
	}
	answer := n.open(m)
	told, err := agent.ParseTime(answer, nonce)
	if off := time.Since(told); err != nil || off < 0 || off > timely {
		t.Errorf("told %v (%v ago), %v", told, off, err)
	}
	if _, err := agent.ParseTime(answer, agent.NewTimeNonce()); err == nil {
		t.Error("it answers another question, too")
	}
}

const timely = time.Minute

// fenceUntrusted waits until the agent has seen what was sent before. What it published meanwhile would come first.
func (n *node) fenceUntrusted() {
	n.t.Helper()
	n.publish(ledTopic, n.sealed(n.t, "operator", ledTopic, `"on"`))
	if v := n.verdict("operator"); v.Reason != signing.ReasonClockUnsynchronised {
		n.t.Fatalf("verdict %s", v.Reason)
	}
}

// The time is taken from the one node that is asked, as the answer to the open question, once.
func TestTimeIsTaken(t *testing.T) {
	t.Parallel()
	clock := newTaker()
	clock.content.Store(true) // it asks only when it is told to
	n := startNode(t, setup{change: func(c *agent.Config) { c.TimeFrom, c.TellTime = "guest", clock }})
	questions := make(chan string, 100)
	asker, err := mqtt.Connect(t.Context(), mqtt.Config{
		Dial: dialer(n.address), CleanSession: true,
		Subscriptions: []mqtt.Subscription{{Filter: agent.TimeRequestTopic("guest")}},
		OnMessage:     func(m mqtt.Message, ack func()) { questions <- string(m.Payload); ack() },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close() //nolint:errcheck // it always closes
	topic := agent.TimeTopic("guest")
	answer := func(signer, aud, nonce string, at time.Time) []byte {
		msg, err := json.Marshal(map[string]time.Time{"time": at})
		if err != nil {
			t.Fatal(err)
		}
		return n.sealed(t, signer, aud, string(msg), func(c *signing.Claims) { c.Nonce = nonce })
	}
	n.agent.AskTime()
	nonce := <-questions
	real := time.Now().Add(3 * time.Hour).UTC()
	for name, m := range map[string]mqtt.Message{
		"an answer to another question": {Payload: answer("guest", topic, agent.NewTimeNonce(), real)},
		"one without nonce":             {Payload: answer("guest", topic, "", real)},
		"of another signer":             {Payload: answer("operator", topic, nonce, real)},
		"of a stranger":                 {Payload: answer("rogue", topic, nonce, real)},
		"for another topic":             {Payload: answer("guest", agent.TimeTopic("else"), nonce, real)},
		"retained":                      {Payload: answer("guest", topic, nonce, real), Retained: true},
		"no time in it":                 {Payload: n.sealed(t, "guest", topic, `{"challenge":"x"}`, func(c *signing.Claims) { c.Nonce = nonce })},
		"plain":                         {Payload: []byte(real.Format(time.RFC3339))},
	} {
		m.Topic, m.QoS = topic, 1
		if m.Retained { // a broker marks it only for those who subscribe afterwards: say it ourselves
			n.agent.Receive(m)
		} else {
			n.send(m)
		}
		n.fence()
		if len(clock.told) > 0 {
			t.Fatalf("%s was taken", name)
		}
	}
	right := answer("guest", topic, nonce, real)
	n.publish(topic, right)
	if got := <-clock.told; !got.Equal(real) {
		t.Errorf("told %v, want %v", got, real)
	}
	n.publish(topic, right)
	n.fence()
	if len(clock.told) > 0 {
		t.Error("the same answer was taken twice")
	}
	// An answer that was held up is worth nothing, and neither is one from below the floor.
	n.agent.AskTime()
	nonce = <-questions
	n.publish(topic, answer("guest", topic, nonce, time.Now().Add(-48*time.Hour)))
	n.fence()
	if len(clock.told) > 0 {
		t.Error("a time below the floor was taken")
	}
	n.agent.AskTime()
	nonce = <-questions
	n.agent.AgeQuestion(agent.TimeAnswerIn)
	n.publish(topic, answer("guest", topic, nonce, real))
	n.fence()
	if len(clock.told) > 0 {
		t.Error("an answer that took too long was taken")
	}
}
