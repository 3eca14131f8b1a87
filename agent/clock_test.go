package agent_test

import (
	"fmt"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/signing"
	"pinseal/signing/boxtec"
)

// The clock matrix: what is judged by which clock, and how.
func TestClock(t *testing.T) {
	n := startNode(t, setup{})
	challenge := n.challenge()
	const (
		none  = ""
		wrong = "AAAAAAAAAAAAAAAAAAAAAA"
	)
	for _, test := range []struct {
		name      string
		untrusted bool
		shift     time.Duration // of the node's clock
		age       time.Duration // of the command, by the real clock
		nonce     string
		want      signing.Reason
	}{
		{"trusted", false, 0, 0, none, signing.ReasonApplied},
		{"trusted, just fresh", false, 0, 29 * time.Second, none, signing.ReasonApplied},
		{"trusted, just not too early", false, 0, -4 * time.Second, none, signing.ReasonApplied},
		{"trusted, old", false, 0, 31 * time.Second, none, signing.ReasonStale},
		{"trusted, early", false, 0, -6 * time.Second, none, signing.ReasonFuture},
		{"trusted, right nonce", false, 0, 0, challenge, signing.ReasonApplied},
		{"trusted, right nonce, old", false, 0, time.Minute, challenge, signing.ReasonStale},
		{"trusted, wrong nonce", false, 0, 0, wrong, signing.ReasonStale},
		{"trusted, a year ahead", false, 365 * 24 * time.Hour, 0, none, signing.ReasonStale},
		{"trusted, a year behind", false, -365 * 24 * time.Hour, 0, none, signing.ReasonFuture},
		{"untrusted", true, 0, 0, none, signing.ReasonClockUnsynchronised},
		{"untrusted, right nonce", true, 0, 0, challenge, signing.ReasonApplied},
		{"untrusted, right nonce, old", true, 0, time.Hour, challenge, signing.ReasonApplied},
		{"untrusted, right nonce, early", true, 0, -time.Hour, challenge, signing.ReasonApplied},
		{"untrusted, wrong nonce", true, 0, 0, wrong, signing.ReasonStale},
		{"1970, no nonce", true, -time.Since(time.Unix(60, 0)), 0, none, signing.ReasonClockUnsynchronised},
		{"1970, right nonce", true, -time.Since(time.Unix(60, 0)), 0, challenge, signing.ReasonApplied},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			n.clock.untrusted.Store(test.untrusted)
			n.clock.shift.Store(int64(test.shift))
			raw := n.sealed(t, "operator", ledTopic, `"on"`, aged(test.age), nonce(test.nonce))
			n.publish(ledTopic, raw)
			if v := n.verdict("operator"); v.Reason != test.want {
				t.Errorf("got %s (%s), want %s", v.Reason, v.Detail, test.want)
			}
		})
	}
	t.Run("right again", func(t *testing.T) { // no key was poisoned
		n.t = t
		n.clock.untrusted.Store(false)
		n.clock.shift.Store(0)
		n.fence()
	})
}

// Without a clock nobody knows how old the command is that keeps a dead man's switch on. Off is always possible.
func TestClockAndHold(t *testing.T) {
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Outputs[0].Actuator = act(t, "led", newLine(), actuator.Rules{Hold: time.Hour})
	}})
	for _, test := range []struct {
		untrusted bool
		word      string
		want      signing.Reason
		detail    string
	}{
		{true, `"on"`, signing.ReasonNotPermitted, "by hold: only a signed command whose age is known may switch it on"},
		{false, `"on"`, signing.ReasonApplied, "off after 3600 s without another command, by hold"},
		{true, `"on"`, signing.ReasonNotPermitted, "by hold: only a signed command whose age is known may switch it on"},
		{true, `"off"`, signing.ReasonApplied, ""},
	} {
		n.clock.untrusted.Store(test.untrusted)
		n.publish(ledTopic, n.sealed(t, "operator", ledTopic, test.word, nonce(n.challenge())))
		if v := n.verdict("operator"); v.Reason != test.want || v.Detail != test.detail {
			t.Errorf("%+v: got %s: %s", test, v.Reason, v.Detail)
		}
	}
}

func TestClockAndTelemetry(t *testing.T) {
	const topic = "telemetry/sensor-1/t"
	n := startNode(t, setup{})
	for i, test := range []struct {
		name      string
		untrusted bool
		shift     time.Duration
		age       time.Duration
		nonce     string
		want      signing.Reason // applied: published as verified
		unjudged  uint64
	}{
		{"trusted", false, 0, 0, "", signing.ReasonApplied, 0},
		{"trusted, within its own age", false, 0, 55 * time.Second, "", signing.ReasonApplied, 0},
		{"trusted, old", false, 0, 61 * time.Second, "", signing.ReasonStale, 0},
		{"trusted, early", false, 0, -10 * time.Second, "", signing.ReasonFuture, 0},
		{"trusted, wrong nonce", false, 0, 0, "x", signing.ReasonStale, 0},
		{"trusted, a year ahead", false, 365 * 24 * time.Hour, 0, "", signing.ReasonStale, 0},
		{"untrusted", true, 0, 0, "", signing.ReasonApplied, 1},
		{"untrusted, old", true, 0, time.Hour, "", signing.ReasonApplied, 2},
		{"1970", true, -time.Since(time.Unix(60, 0)), 0, "", signing.ReasonApplied, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			n.clock.untrusted.Store(test.untrusted)
			n.clock.shift.Store(int64(test.shift))
			n.publish(topic, n.sealed(t, "sensor", topic, fmt.Sprint(i), aged(test.age), nonce(test.nonce)))
			if test.want == signing.ReasonApplied {
				if m := n.next(); string(m.Payload) != fmt.Sprint(i) {
					t.Errorf("got %s on %s", m.Payload, m.Topic)
				}
			} else if v := n.verdict("sensor"); v.Reason != test.want {
				t.Errorf("got %s (%s), want %s", v.Reason, v.Detail, test.want)
			}
			if got := n.agent.Stats().Unjudged; got != test.unjudged {
				t.Errorf("%d accepted by sequence alone, want %d", got, test.unjudged)
			}
		})
	}
}

func TestClockAndLegacy(t *testing.T) {
	n := startNode(t, setup{})
	n.clock.untrusted.Store(true)
	raw, err := boxtec.Seal(n.keys["veteran"], boxtec.SHA1, time.Now(), "on")
	if err != nil {
		t.Fatal(err)
	}
	if got := n.command("veteran", "fanStatus", raw); got != signing.ReasonClockUnsynchronised {
		t.Errorf("got %s", got)
	}
}

func TestMaxAge(t *testing.T) {
	n := startNode(t, setup{change: func(cfg *agent.Config) { cfg.Policy.MaxAge = time.Minute }})
	if got := n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `1`, aged(59*time.Second))); got != signing.ReasonApplied {
		t.Errorf("got %s", got)
	}
}
