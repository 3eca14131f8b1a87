package agent_test

import (
	"strings"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/signing"
	"pinseal/signing/boxtec"
)

func TestPolicyChangesWithoutDroppingTheSession(t *testing.T) {
	s := setup{address: startBroker(t, "allow_anonymous true")}
	w := &wire{dial: dialer(s.address)}
	s.change = func(cfg *agent.Config) { cfg.Dial = w.open }
	n := startNode(t, s)
	connection := w.conn.Load()

	p := n.policy(t, "operator", "stranger", "veteran") // neither guest nor sensor
	p.Permits = []agent.Permit{{Signer: "stranger", Output: "led", Actions: []actuator.Action{actuator.Off}}}
	p.Telemetry = []agent.TelemetryRule{{Signer: "operator", Filter: "telemetry/new/#"}}
	p.Legacy = nil
	if err := n.agent.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	if got := n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `"on"`)); got != signing.ReasonNotPermitted {
		t.Errorf("the operator got %s", got)
	}
	if got := n.command("stranger", ledTopic, n.sealed(t, "stranger", ledTopic, `"off"`)); got != signing.ReasonApplied {
		t.Errorf("the stranger got %s", got)
	}
	counted := n.delta(func() {
		n.publish(ledTopic, n.sealed(t, "guest", ledTopic, `"on"`))
		n.publish("telemetry/sensor-1/load", n.sealed(t, "operator", "telemetry/sensor-1/load", `1`))
		n.publish("telemetry/new/load", n.sealed(t, "operator", "telemetry/new/load", `2`))
		if m := n.next(); m.Topic != "verified/new/load" {
			t.Errorf("got a message on %s", m.Topic)
		}
		n.command("stranger", ledTopic, n.sealed(t, "stranger", ledTopic, `"off"`))
	})
	if counted[signing.ReasonUnknownKey] != 1 || counted[signing.ReasonApplied] != 1 || len(counted) != 2 {
		t.Errorf("counted %v", counted)
	}
	if w.conn.Load() != connection {
		t.Error("connected again")
	}
}

// A signer that is revoked while its command waits is not obeyed.
func TestRevocationReachesWhatWaits(t *testing.T) {
	n := startNode(t, setup{})
	hold := make(chan struct{})
	n.clock.hold.Store(&hold)
	n.publish(ledTopic, n.sealed(t, "guest", ledTopic, `"on"`)) // is held while it is judged
	hold <- struct{}{}
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"off"`))
	n.publish("fanStatus", n.sealed(t, "operator", "fanStatus", `"on"`))
	if got := n.verdict("operator"); got.Topic != "fanStatus" || got.Reason != signing.ReasonApplied {
		t.Fatalf("got %+v", got)
	}
	if err := n.agent.SetPolicy(n.policy(t, "guest", "veteran")); err != nil {
		t.Fatal(err)
	}
	counted := n.delta(func() {
		hold <- struct{}{}
		n.command("guest", ledTopic, n.sealed(t, "guest", ledTopic, `"on"`))
		n.verdict("guest")
	})
	if counted[signing.ReasonUnknownKey] != 1 || n.led.count() != 2 {
		t.Errorf("counted %v, acted %d times", counted, n.led.count())
	}
}

func TestSpentRateOutlivesAPolicy(t *testing.T) {
	small := func(p *agent.Policy) *agent.Policy {
		p.Rate, p.Burst = 1e-6, 1
		return p
	}
	n := startNode(t, setup{change: func(cfg *agent.Config) { small(cfg.Policy) }})
	n.fence()
	if err := n.agent.SetPolicy(small(n.policy(t))); err != nil {
		t.Fatal(err)
	}
	if got := n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `1`)); got != signing.ReasonRateLimited {
		t.Errorf("got %s", got)
	}
}

func TestBadPolicies(t *testing.T) {
	n := startNode(t, setup{})
	veteran := n.keys["veteran"].Public()
	for _, test := range []struct {
		name, want string
		change     func(*agent.Policy)
	}{
		{"no keyring", "keyring", func(p *agent.Policy) { p.Keyring = nil }},
		{"too long an age", "at most", func(p *agent.Policy) { p.MaxAge = 61 * time.Second }},
		{"negative age", "at most", func(p *agent.Policy) { p.MaxAge = -1 }},
		{"negative rate", "rate", func(p *agent.Policy) { p.Rate = -1 }},
		{"negative burst", "rate", func(p *agent.Policy) { p.Burst = -1 }},
		{"unknown output", "lamp", func(p *agent.Policy) { p.Permits[0].Output = "lamp" }},
		{"unknown action", "burn", func(p *agent.Policy) { p.Permits[0].Actions = []actuator.Action{"burn"} }},
		{"negative max_on", "negative", func(p *agent.Policy) { p.Permits[0].MaxOn = -1 }},
		{"no action", "no action", func(p *agent.Policy) { p.Permits[0].Actions = nil }},
		{"filter beyond telemetry", "telemetry/", func(p *agent.Policy) { p.Telemetry[0].Filter = "#" }},
		{"filter of everything", "telemetry/", func(p *agent.Policy) { p.Telemetry[0].Filter = "telemetry/" }},
		{"bad filter", "malformed", func(p *agent.Policy) { p.Telemetry[0].Filter = "telemetry/#/x" }},
		{"bad level", "malformed", func(p *agent.Policy) { p.Telemetry[0].Filter = "telemetry/a+/x" }},
		{"negative telemetry age", "negative", func(p *agent.Policy) { p.Telemetry[0].MaxAge = -1 }},
		{"legacy curve", "secp256k1", func(p *agent.Policy) { p.Legacy[0].Key = n.keys["operator"].Public() }},
		{"legacy hash", "hash", func(p *agent.Policy) { p.Legacy[0].Hash = "md5" }},
		{"legacy topic", "commands no output", func(p *agent.Policy) { p.Legacy[0].Topic = "telemetry/x" }},
		{"legacy plain topic", "commands no output", func(p *agent.Policy) { p.Legacy[0].Topic = "plain/led" }},
		{"two legacy topics", "two topics", func(p *agent.Policy) {
			p.Legacy = append(p.Legacy, agent.LegacyKey{Signer: "veteran", Topic: ledTopic, Hash: boxtec.SHA1, Key: veteran})
		}},
		{"two legacy keys", "two legacy keys", func(p *agent.Policy) {
			other := newKey(t, signing.ES256K).Public()
			p.Legacy = append(p.Legacy, agent.LegacyKey{Signer: "x", Topic: "fanStatus", Hash: boxtec.SHA1, Key: other})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := n.policy(t)
			test.change(p)
			if err := n.agent.SetPolicy(p); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want something with %q", err, test.want)
			}
		})
	}
	n.fence() // the old policy stands
	if err := n.agent.SetPolicy(nil); err == nil {
		t.Error("no policy at all was accepted")
	}
}

func TestBadConfigurations(t *testing.T) {
	n := startNode(t, setup{})
	for _, test := range []struct {
		name, want string
		change     func(*agent.Config)
	}{
		{"node", "name", func(c *agent.Config) { c.Node = "a/b" }},
		{"no key", "key", func(c *agent.Config) { c.Key = nil }},
		{"no sequence", "sequence", func(c *agent.Config) { c.Sequence = nil }},
		{"no replay database", "replay", func(c *agent.Config) { c.Replay = nil }},
		{"no clock", "clock", func(c *agent.Config) { c.Clock = nil }},
		{"no policy", "keyring", func(c *agent.Config) { c.Policy = nil }},
		{"no way to dial", "dial", func(c *agent.Config) { c.Dial = nil }},
		{"output name", "not a name", func(c *agent.Config) { c.Outputs[0].Name = "a b" }},
		{"output named verdict", "not a name", func(c *agent.Config) { c.Outputs[0].Name = "verdict" }},
		{"same output", "two outputs", func(c *agent.Config) { c.Outputs[1].Name = "led" }},
		{"no actuator", "actuator", func(c *agent.Config) { c.Outputs[0].Actuator = nil }},
		{"unknown plain action", "burn", func(c *agent.Config) { c.Outputs[0].PlainActions = []actuator.Action{"burn"} }},
		{"negative plain rate", "negative", func(c *agent.Config) { c.Outputs[0].PlainRate = -1 }},
		{"same topic", "twice", func(c *agent.Config) { c.Outputs[1].Topic = ledTopic }},
		{"plain and sealed", "twice", func(c *agent.Config) { c.Outputs[0].PlainTopic = ledTopic }},
		{"wildcard", "none", func(c *agent.Config) { c.Outputs[0].Topic = "led/#" }},
		{"telemetry", "telemetry", func(c *agent.Config) { c.Outputs[0].Topic = "telemetry/led" }},
		{"verified", "telemetry", func(c *agent.Config) { c.Outputs[0].PlainTopic = "verified/led" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := n.config()
			test.change(&cfg)
			if _, err := agent.New(cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want something with %q", err, test.want)
			}
		})
	}
}

func TestParseVerdictAndChallenge(t *testing.T) {
	for _, bad := range []string{``, `{}`, `[]`, `{"topic":"t","kid":"k","reason":"","seq":1}`, `{"topic":1}`, `"applied"`} {
		if v, err := agent.ParseVerdict([]byte(bad)); err == nil {
			t.Errorf("read %+v from %q", v, bad)
		}
	}
	for _, bad := range []string{``, `{}`, `"x"`, `{"challenge":1}`} {
		if c, err := agent.ParseChallenge([]byte(bad)); err == nil {
			t.Errorf("read %q from %q", c, bad)
		}
	}
}
