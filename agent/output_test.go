package agent_test

import (
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/signing"
)

// What a rule forbids is answered with the rule, and costs its number all the same.
func TestRuleRefuses(t *testing.T) {
	lock, lines := new(actuator.Interlock), []*fakeLine{newLine(), newLine()}
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		for i, l := range lines {
			cfg.Outputs[i].Actuator = act(t, cfg.Outputs[i].Name, l, actuator.Rules{Lock: lock, MaxOn: time.Hour})
		}
	}})
	on := n.sealed(t, "operator", ledTopic, `"on"`)
	n.publish(ledTopic, on)
	if v := n.verdict("operator"); v.Reason != signing.ReasonApplied || v.Detail != "limited to 3600 s by max_on" || v.State != agent.On {
		t.Errorf("got %+v", v)
	}
	refused := n.sealed(t, "operator", "fanStatus", `"toggle"`)
	n.publish("fanStatus", refused)
	if v := n.verdict("operator"); v.Reason != signing.ReasonNotPermitted || v.Detail != "by interlock: led is on" || v.State != agent.Off {
		t.Errorf("got %+v", v)
	}
	if lines[1].count() != 0 {
		t.Error("the fan was driven")
	}
	if got := n.command("operator", "fanStatus", refused); got != signing.ReasonDuplicate {
		t.Errorf("the same again: %s", got)
	}
}

// The status follows the state, and each is retained.
func TestStatusTopic(t *testing.T) {
	n := startNode(t, setup{})
	n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	n.retained(agent.StateTopic(nodeName, "led"), "ON")
	n.retained(agent.StatusTopic(nodeName, "led"), `{"state":"ON","color_mode":"onoff","effect":"off"}`)
	n.retained(agent.StatusTopic(nodeName, "fan"), `{"state":"OFF","color_mode":"onoff","effect":"off"}`)
}

// What an output does by itself is shown too.
func TestStateAfterAPulse(t *testing.T) {
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Policy.Permits[0].Actions = []actuator.Action{actuator.Pulse}
	}})
	n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `{"state":"ON","pulse":0.05}`))
	<-n.led.set
	if on := <-n.led.set; on {
		t.Error("driven on twice")
	}
	n.retained(agent.StateTopic(nodeName, "led"), "OFF")
}

// Each action counts as the most lenient block says, and a command by the strictest of what it needs.
func TestPermitLimits(t *testing.T) {
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Outputs[0].Dims = true
		permit := func(maxOn time.Duration, actions ...actuator.Action) agent.Permit {
			return agent.Permit{Signer: "guest", Output: "led", Actions: actions, MaxOn: maxOn}
		}
		cfg.Policy.Permits = []agent.Permit{
			permit(time.Minute, actuator.On), permit(2*time.Minute, actuator.On), permit(time.Second, actuator.On),
			permit(time.Hour, actuator.Pulse), permit(0, actuator.Pulse), permit(90*time.Second, actuator.Brightness),
			{Signer: "operator", Output: "led", Actions: []actuator.Action{actuator.Off}},
		}
	}})
	for _, test := range []struct{ msg, detail string }{
		{`"on"`, "limited to 120 s by the permit's max_on"},
		{`{"state":"ON","pulse":86400}`, ""},
		{`{"state":"ON","brightness":7}`, "limited to 90 s by the permit's max_on"},
	} {
		n.publish(ledTopic, n.sealed(t, "guest", ledTopic, test.msg))
		if v := n.verdict("guest"); v.Reason != signing.ReasonApplied || v.Detail != test.detail {
			t.Errorf("%s: got %+v", test.msg, v)
		}
		n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `"off"`))
	}
	n.publish(ledTopic, n.sealed(t, "guest", ledTopic, `"off"`))
	if v := n.verdict("guest"); v.Reason != signing.ReasonNotPermitted || v.Detail != "guest may not command led: off" {
		t.Errorf("got %+v", v)
	}
}

func TestPlainLimits(t *testing.T) {
	const burst = 3
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Outputs[0].PlainActions = []actuator.Action{actuator.Toggle}
		cfg.Outputs[0].PlainRate, cfg.Outputs[0].PlainBurst = 1e-6, burst
	}})
	n.publish("plain/led", []byte("on"))
	for range 9 {
		n.publish("plain/led", []byte("toggle"))
	}
	n.fence()
	c := n.agent.Counters()
	if c[signing.ReasonNotPermitted] != 1 || c[signing.ReasonRateLimited] != 10-burst || n.led.count() != burst-1+1 {
		t.Errorf("counted %v, acted %d times", c, n.led.count())
	}
}

// The node is told when the broker is lost, and when it is back.
func TestOnBroker(t *testing.T) {
	s := setup{address: startBroker(t, "allow_anonymous true")}
	w := &wire{dial: dialer(s.address)}
	told := make(chan bool, 10)
	s.change = func(cfg *agent.Config) { cfg.Dial, cfg.OnBroker = w.open, func(up bool) { told <- up } }
	startNode(t, s)
	for i, want := range []bool{true, false, true} {
		if i == 1 {
			w.cut()
		}
		select {
		case up := <-told:
			if up != want {
				t.Fatalf("told %v, want %v", up, want)
			}
		case <-time.After(patience):
			t.Fatal("not told")
		}
	}
}
