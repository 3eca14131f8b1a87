package agent_test

import (
	"testing"

	"pinseal/agent"
	"pinseal/signing"
)

func TestTelemetryIsPublishedPlain(t *testing.T) {
	n := startNode(t, setup{})
	for _, test := range []struct{ msg, want string }{
		{`21.50`, "21.50"},
		{`"warm"`, "warm"},
		{`"a \"b\" \u00e9\n"`, "a \"b\" é\n"},
		{`true`, "true"},
		{`{ "t": 21.5, "list": [ 1, 2 ] }`, `{"t":21.5,"list":[1,2]}`},
		{`"<>"`, "<>"},
		{`["<&>"]`, `["<&>"]`},
		{`""`, ""},
	} {
		t.Run(test.msg, func(t *testing.T) {
			n.t = t
			n.publish("telemetry/sensor-1/a/b", n.sealed(t, "sensor", "telemetry/sensor-1/a/b", test.msg))
			m := n.next()
			if m.Topic != "verified/sensor-1/a/b" || string(m.Payload) != test.want || m.Retained {
				t.Errorf("got %q on %s (retained: %v), want %q", m.Payload, m.Topic, m.Retained, test.want)
			}
		})
	}
}

func TestTelemetryRights(t *testing.T) {
	n := startNode(t, setup{})
	for _, test := range []struct {
		name, signer, topic string
		want                signing.Reason // applied: published
	}{
		{"its own", "sensor", "telemetry/sensor-1/load", signing.ReasonApplied},
		{"its own, deep", "sensor", "telemetry/sensor-1/a/b/c", signing.ReasonApplied},
		{"its own root", "sensor", "telemetry/sensor-1", signing.ReasonApplied},
		{"by wildcard", "operator", "telemetry/sensor-1/load", signing.ReasonApplied},
		{"by wildcard, another device", "operator", "telemetry/other/load", signing.ReasonApplied},
		{"another device", "sensor", "telemetry/other/load", signing.ReasonNotPermitted},
		{"another measure", "operator", "telemetry/sensor-1/temperature", signing.ReasonNotPermitted},
		{"no rule at all", "guest", "telemetry/sensor-1/load", signing.ReasonNotPermitted},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			n.publish(test.topic, n.sealed(t, test.signer, test.topic, `1`))
			if test.want == signing.ReasonApplied {
				verified, _ := agent.VerifiedTopic(test.topic)
				if m := n.next(); m.Topic != verified {
					t.Errorf("got a message on %s", m.Topic)
				}
				return
			}
			if v := n.verdict(test.signer); v.Reason != test.want || v.Topic != test.topic || v.State != "" {
				t.Errorf("got %+v, want %s", v, test.want)
			}
		})
	}
}

func TestTelemetryForAnotherTopic(t *testing.T) {
	n := startNode(t, setup{})
	raw := n.sealed(t, "sensor", "telemetry/sensor-1/load", `1`)
	if got := n.command("sensor", "telemetry/sensor-1/temperature", raw); got != signing.ReasonWrongTopic {
		t.Errorf("got %s", got)
	}
}

func TestTelemetryOrder(t *testing.T) {
	const topic = "telemetry/sensor-1/load"
	n := startNode(t, setup{})
	base := n.seq.Add(100)
	send := func(seq uint64, msg string) { n.publish(topic, n.sealed(t, "sensor", topic, msg, numbered(seq))) }
	for _, i := range []uint64{0, 63, 1, 62, 2} {
		send(base+i, `1`)
		if m := n.next(); m.Topic != "verified/sensor-1/load" {
			t.Fatalf("number %d: a message on %s", i, m.Topic)
		}
	}
	send(base+62, `2`)
	if v := n.verdict("sensor"); v.Reason != signing.ReasonEquivocation || v.Sequence != base+62 {
		t.Errorf("got %+v", v)
	}
	for i := range uint64(64) {
		send(base+100+i, `1`)
		n.next()
	}
	send(base, `1`)
	if v := n.verdict("sensor"); v.Reason != signing.ReasonReplay {
		t.Errorf("got %+v", v)
	}
	if got := n.agent.Stats().Telemetry; got != 5+64 {
		t.Errorf("counted %d", got)
	}
}

func TestTelemetryUpToTheSignatureIsNotAnswered(t *testing.T) {
	const topic = "telemetry/sensor-1/load"
	n := startNode(t, setup{})
	counted := n.delta(func() {
		n.publish(topic, []byte("21.5"))
		n.publish(topic, n.sealed(t, "rogue", topic, `1`))
		n.publish(topic, damaged(n.sealed(t, "sensor", topic, `1`)))
		n.publish(topic, n.sealed(t, "sensor", topic, `2`))
		if m := n.next(); string(m.Payload) != "2" {
			t.Errorf("got %s on %s", m.Payload, m.Topic)
		}
	})
	for _, reason := range []signing.Reason{
		signing.ReasonMalformed, signing.ReasonUnknownKey, signing.ReasonBadSignature,
	} {
		if counted[reason] != 1 {
			t.Errorf("counted %v", counted)
		}
	}
}
