package agent_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/replay"
)

// What the node reports is sealed by its key, each with a higher number, and comes out plain as verified telemetry does.
func TestReport(t *testing.T) {
	n := startNode(t, setup{})
	if err := n.observer.Subscribe(t.Context(), mqtt.Subscription{Filter: "telemetry/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for _, test := range []struct{ msg, plain string }{{`{"state": "ON"}`, `{"state":"ON"}`}, {`"warm"`, "warm"}, {`21.5`, "21.5"}} {
		if err := n.agent.Report("door", []byte(test.msg)); err != nil {
			t.Fatal(err)
		}
		m := n.next()
		if m.Topic != "telemetry/raspiflow/door" || m.Retained {
			t.Fatalf("on %s (retained: %v)", m.Topic, m.Retained)
		}
		sealed := n.open(m)
		if string(sealed.JSON()) != test.msg || sealed.Sequence() <= last {
			t.Errorf("sealed %s with number %d after %d", sealed.JSON(), sealed.Sequence(), last)
		}
		last = sealed.Sequence()
		if m := n.next(); m.Topic != "verified/raspiflow/door" || string(m.Payload) != test.plain {
			t.Errorf("plain %s on %s", m.Payload, m.Topic)
		}
	}
}

// A telemetry rule may cover what the node says itself. That is no telemetry of an unknown key.
func TestReportComesBack(t *testing.T) {
	n := startNode(t, setup{change: func(c *agent.Config) {
		c.Policy.Telemetry = append(c.Policy.Telemetry, agent.TelemetryRule{Signer: "operator", Filter: "telemetry/#"})
	}})
	if err := n.agent.Report("door", []byte(`1`)); err != nil {
		t.Fatal(err)
	}
	n.next() // plain
	n.publish("telemetry/raspiflow/door", n.sealed(t, "rogue", "telemetry/raspiflow/door", `1`))
	n.publish("telemetry/raspiflow/door", n.sealed(t, "operator", "telemetry/raspiflow/door", `2`))
	if m := n.next(); string(m.Payload) != "2" {
		t.Fatalf("got %s on %s", m.Payload, m.Topic)
	}
	if got := n.agent.Counters()[signing.ReasonUnknownKey]; got != 1 {
		t.Errorf("%d messages of unknown keys, want the rogue's", got)
	}
}

func TestPress(t *testing.T) {
	n := startNode(t, setup{})
	for _, test := range []struct {
		action string
		want   bool
	}{{string(actuator.Toggle), true}, {string(actuator.Toggle), false}, {string(actuator.On), true}, {string(actuator.Off), false}} {
		if err := n.agent.Press("door", "led", test.action); err != nil {
			t.Fatal(err)
		}
		if got := <-n.led.set; got != test.want {
			t.Errorf("%s drove the line to %v", test.action, got)
		}
	}
	n.retained(agent.StateTopic(nodeName, "led"), agent.Off)
	if n.agent.Press("door", "lamp", string(actuator.On)) == nil || n.agent.Press("door", "led", "burn") == nil {
		t.Error("an output or an action that there is not was taken")
	}
	n.stop()
	if n.agent.Press("door", "led", string(actuator.On)) == nil {
		t.Error("an action was taken after the end")
	}
	if n.led.On() {
		t.Error("the line was driven after the end")
	}
}

// What an input does is held to the output's rules as a command is, and does not take the place of a signed hand.
func TestPressUnderRules(t *testing.T) {
	lock, up, down, held := new(actuator.Interlock), newLine(), newLine(), newLine()
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Outputs = []agent.Output{
			{Name: "led", Topic: ledTopic, Actuator: act(t, "led", up, actuator.Rules{Lock: lock})},
			{Name: "fan", Topic: "fanStatus", Actuator: act(t, "fan", down, actuator.Rules{Lock: lock})},
			{Name: "saw", Actuator: act(t, "saw", held, actuator.Rules{Hold: time.Hour})},
		}
		cfg.Policy.Permits = append(cfg.Policy.Permits, agent.Permit{Signer: "operator", Output: "saw", Actions: []actuator.Action{actuator.On}})
	}})
	press := func(output string, action actuator.Action) {
		t.Helper()
		if err := n.agent.Press("door", output, string(action)); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(want uint64) { // what a command after them was answered for certain
		t.Helper()
		if got := n.agent.Counters()[signing.ReasonNotPermitted]; got != want {
			t.Errorf("%d were refused, want %d", got, want)
		}
	}
	press("led", actuator.On)
	<-up.set
	press("fan", actuator.On)
	press("fan", actuator.Toggle)
	if got := n.command("operator", "fanStatus", n.sealed(t, "operator", "fanStatus", `"on"`)); got != signing.ReasonNotPermitted {
		t.Errorf("commanded while the other is on: %s", got)
	}
	refused(3)
	press("led", actuator.Off)
	<-up.set
	press("fan", actuator.On)
	if !<-down.set {
		t.Error("not on, although the other is off")
	}

	press("saw", actuator.On)
	setTopic := agent.SetTopic(nodeName, "saw")
	n.command("operator", setTopic, n.sealed(t, "operator", setTopic, `"on"`))
	refused(4)
	press("saw", actuator.Off)
	if on, off := <-held.set, <-held.set; !on || off {
		t.Error("an input cannot let go")
	}
}

// With no broker in reach a button still switches.
func TestPressWithoutBroker(t *testing.T) {
	led, cast := newLine(), newCast(t)
	n := &node{cast: cast, t: t, led: led, fan: newLine(), clock: &fakeClock{}}
	cfg := n.config()
	cfg.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("no network") }
	store, err := replay.Open(filepath.Join(t.TempDir(), "state.db"), replay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	cfg.Replay = store
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	if err := a.Press("door", "led", string(actuator.On)); err != nil {
		t.Fatal(err)
	}
	select {
	case on := <-led.set:
		if !on {
			t.Error("switched off")
		}
	case <-time.After(patience):
		t.Error("not switched")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
