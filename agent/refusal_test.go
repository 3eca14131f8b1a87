package agent_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pinseal/internal/boltfile/disktest"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// attempt is something sent to the node and how it must end.
type attempt struct {
	name   string
	topic  string // ledTopic if empty
	signer string // who must be told; nobody if empty
	reason signing.Reason
	send   func(*node) []byte // what to publish
}

// damaged changes a character of the signature.
func damaged(raw []byte) []byte {
	raw = bytes.Clone(raw)
	at := &raw[len(raw)-10]
	if *at == 'A' {
		*at = 'B'
	} else {
		*at = 'A'
	}
	return raw
}

// applied publishes a good command and returns it.
func (n *node) applied() []byte {
	n.t.Helper()
	raw := n.sealed(n.t, "operator", ledTopic, `"off"`)
	if got := n.command("operator", ledTopic, raw); got != signing.ReasonApplied {
		n.t.Fatalf("a good command was answered with %s", got)
	}
	return raw
}

func refusals() []attempt {
	led := func(signer, msg string, change ...func(*signing.Claims)) func(*node) []byte {
		return func(n *node) []byte { return n.sealed(n.t, signer, ledTopic, msg, change...) }
	}
	return []attempt{
		{name: "plain text", reason: signing.ReasonMalformed, send: func(*node) []byte { return []byte("1") }},
		{name: "empty", reason: signing.ReasonMalformed, send: func(*node) []byte { return nil }},
		{name: "too large", reason: signing.ReasonMalformed, send: func(*node) []byte { return make([]byte, 1<<20) }},
		{name: "unknown key", reason: signing.ReasonUnknownKey, send: led("rogue", `"on"`)},
		{name: "damaged", reason: signing.ReasonBadSignature, send: func(n *node) []byte {
			return damaged(n.sealed(n.t, "operator", ledTopic, `"on"`))
		}},
		{
			name: "other topic", signer: "operator", reason: signing.ReasonWrongTopic,
			send: func(n *node) []byte { return n.sealed(n.t, "operator", "fanStatus", `"on"`) },
		},
		{
			name: "other name of the topic", topic: "pinseal/raspiflow/led/set", signer: "operator",
			reason: signing.ReasonWrongTopic, send: led("operator", `"on"`),
		},
		{name: "no permit", signer: "stranger", reason: signing.ReasonNotPermitted, send: led("stranger", `"on"`)},
		{name: "no permit for the action", signer: "guest", reason: signing.ReasonNotPermitted, send: led("guest", `"off"`)},
		{name: "old", signer: "operator", reason: signing.ReasonStale, send: led("operator", `"on"`, aged(31*time.Second))},
		{name: "expired", signer: "operator", reason: signing.ReasonStale, send: led("operator", `"on"`, aged(2*time.Second),
			func(c *signing.Claims) { c.Expires = c.IssuedAt.Add(time.Second) })},
		{name: "early", signer: "operator", reason: signing.ReasonFuture, send: led("operator", `"on"`, aged(-time.Minute))},
		{name: "word", signer: "operator", reason: signing.ReasonBadCommand, send: led("operator", `"bright"`)},
		{name: "number", signer: "operator", reason: signing.ReasonBadCommand, send: led("operator", `2`)},
		{name: "fraction", signer: "operator", reason: signing.ReasonBadCommand, send: led("operator", `1.0`)},
		{name: "array", signer: "operator", reason: signing.ReasonBadCommand, send: led("operator", `["on"]`)},
		{name: "empty object", signer: "operator", reason: signing.ReasonBadCommand, send: led("operator", `{}`)},
		{
			name: "unknown member", signer: "operator", reason: signing.ReasonBadCommand,
			send: led("operator", `{"state":"on","brightness":3}`),
		},
		{name: "number as state", signer: "operator", reason: signing.ReasonBadCommand, send: led("operator", `{"state":1}`)},
		{name: "other member", signer: "operator", reason: signing.ReasonBadCommand, send: led("operator", `{"State":"on"}`)},
		{name: "sent again", signer: "operator", reason: signing.ReasonDuplicate, send: (*node).applied},
		{name: "lower number", signer: "operator", reason: signing.ReasonReplay, send: func(n *node) []byte {
			late := n.sealed(n.t, "operator", ledTopic, `"on"`)
			n.applied()
			return late
		}},
		{name: "same number", signer: "operator", reason: signing.ReasonEquivocation, send: func(n *node) []byte {
			n.applied()
			return n.sealed(n.t, "operator", ledTopic, `"on"`, numbered(n.seq.Load()))
		}},
		{name: "broken line", signer: "operator", reason: signing.ReasonHardware, send: func(n *node) []byte {
			n.led.fail(errFault)
			return n.sealed(n.t, "operator", ledTopic, `"on"`)
		}},
	}
}

// Every refusal names its reason, is told to whom it may be told and to nobody else, and moves nothing.
func TestRefusals(t *testing.T) {
	n := startNode(t, setup{})
	covered := map[signing.Reason]bool{
		signing.ReasonApplied:             true, // TestCommands
		signing.ReasonRetained:            true, // TestRetainedIsRefused
		signing.ReasonClockUnsynchronised: true, // TestClock
		signing.ReasonRateLimited:         true, // TestRate
	}
	for _, test := range refusals() {
		covered[test.reason] = true
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			topic := test.topic
			if topic == "" {
				topic = ledTopic
			}
			raw := test.send(n)
			calls := n.led.count()
			counted := n.delta(func() {
				n.publish(topic, raw)
				if test.signer == "" {
					n.fence()
					return
				}
				v := n.verdict(test.signer)
				if v.Reason != test.reason || v.KeyID != n.keys[test.signer].Public().ID() || v.State != "OFF" {
					t.Errorf("got %+v, want %s", v, test.reason)
				}
				if v.Detail == "" || time.Since(v.Time).Abs() > patience {
					t.Errorf("got the detail %q at %v", v.Detail, v.Time)
				}
			})
			want := map[signing.Reason]uint64{test.reason: 1}
			if test.signer == "" {
				want[signing.ReasonApplied] = 1 // the fence
				calls++
			}
			if len(counted) != len(want) || counted[test.reason] != 1 {
				t.Errorf("counted %v, want %v", counted, want)
			}
			n.led.fail(nil)
			if n.led.count() != calls || n.led.On() {
				t.Errorf("the line was driven")
			}
		})
	}
	for _, reason := range signing.Reasons() {
		if !covered[reason] {
			t.Errorf("nothing is refused with %s", reason)
		}
	}
}

// A broker delivers a message as retained only to who subscribes later.
func TestRetainedIsRefused(t *testing.T) {
	s := setup{cast: newCast(t), address: startBroker(t, "allow_anonymous true")}
	n := &node{t: t, cast: s.cast, address: s.address, seen: make(chan mqtt.Message, 10)}
	n.observe()
	raw := n.sealed(t, "operator", ledTopic, `"on"`)
	n.send(mqtt.Message{Topic: ledTopic, Payload: raw, QoS: 1, Retained: true})
	n.send(mqtt.Message{Topic: "fanStatus", Payload: make([]byte, 70000), QoS: 1, Retained: true}) // the size comes first

	n = startNode(t, s)
	if got := n.command("operator", ledTopic, raw); got != signing.ReasonApplied {
		t.Errorf("the same message, not retained, was answered with %s", got)
	}
	if counted := n.agent.Counters(); counted[signing.ReasonRetained] != 1 ||
		counted[signing.ReasonMalformed] != 1 || n.led.count() != 1 {
		t.Errorf("counted %v, the line was driven %d times", counted, n.led.count())
	}
}

// Where several things are wrong, the first step names the reason. Each row has one fault more, of an earlier step.
func TestOrderOfReasons(t *testing.T) {
	n := startNode(t, setup{})
	n.led.fail(errFault)
	used := n.sealed(t, "operator", "pinseal/raspiflow/led/set", `"on"`)
	if got := n.command("operator", "pinseal/raspiflow/led/set", used); got != signing.ReasonHardware {
		t.Fatalf("got %s", got)
	}
	number := numbered(n.seq.Load() - 1)
	for _, test := range []struct {
		name   string
		signer string
		raw    []byte
		want   signing.Reason
	}{
		{"replay before hardware", "operator", n.sealed(t, "operator", ledTopic, `"on"`, number), signing.ReasonReplay},
		{"command before replay", "operator", n.sealed(t, "operator", ledTopic, `"x"`, number), signing.ReasonBadCommand},
		{
			"time before command", "operator", n.sealed(t, "operator", ledTopic, `"x"`, number, aged(time.Hour)),
			signing.ReasonStale,
		},
		{
			"time before action", "guest", n.sealed(t, "guest", ledTopic, `"off"`, aged(time.Hour)),
			signing.ReasonStale,
		},
		{
			"command before action", "guest", n.sealed(t, "guest", ledTopic, `"x"`),
			signing.ReasonBadCommand,
		},
		{
			"permit before time", "stranger", n.sealed(t, "stranger", ledTopic, `"x"`, number, aged(time.Hour)),
			signing.ReasonNotPermitted,
		},
		{
			"topic before permit", "stranger", n.sealed(t, "stranger", "x", `"x"`, number, aged(time.Hour)),
			signing.ReasonWrongTopic,
		},
		{"signature before topic", "", damaged(n.sealed(t, "stranger", "x", `"x"`, aged(time.Hour))), signing.ReasonBadSignature},
		{"key before signature", "", damaged(n.sealed(t, "rogue", "x", `"x"`, aged(time.Hour))), signing.ReasonUnknownKey},
		{"form before key", "", append(n.sealed(t, "rogue", "x", `"x"`), '\n'), signing.ReasonMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			before := n.agent.Counters()[test.want]
			n.publish(ledTopic, test.raw)
			if test.signer != "" {
				if got := n.verdict(test.signer); got.Reason != test.want {
					t.Errorf("got %s (%s), want %s", got.Reason, got.Detail, test.want)
				}
				return
			}
			n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`)) // the fence
			if got := n.verdict("operator"); got.Reason != signing.ReasonHardware {
				t.Fatalf("got %s", got.Reason)
			}
			if n.agent.Counters()[test.want] != before+1 {
				t.Errorf("not counted as %s: %v", test.want, n.agent.Counters())
			}
		})
	}
}

func TestRecordThatCannotBeKept(t *testing.T) {
	n := startNode(t, setup{})
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	v := n.verdict("operator")
	if v.Reason != signing.ReasonHardware || !strings.Contains(v.Detail, "not acted on") {
		t.Errorf("got %+v", v)
	}
	if n.led.count() != 0 {
		t.Error("acted on nevertheless")
	}
}

// A command that the disk did not take is acted on when it is sent again as it is, and once.
func TestRecordThatCannotBeKeptForAWhile(t *testing.T) {
	d := &disktest.Disk{}
	n := startNode(t, setup{disk: d})
	if got := n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `"off"`)); got != signing.ReasonApplied {
		t.Fatalf("got %s", got)
	}
	d.Fill(t)
	on, before := n.sealed(t, "operator", ledTopic, `"on"`), n.led.count()
	for range 2 {
		if got := n.command("operator", ledTopic, on); got != signing.ReasonHardware {
			t.Errorf("on a full disk, got %s", got)
		}
	}
	if n.led.count() != before {
		t.Error("acted on nevertheless")
	}
	d.MakeRoom()
	for _, want := range []signing.Reason{signing.ReasonApplied, signing.ReasonDuplicate} {
		if got := n.command("operator", ledTopic, on); got != want {
			t.Errorf("with room again, got %s, want %s", got, want)
		}
	}
	if n.led.count() != before+1 {
		t.Errorf("the line was driven %d times", n.led.count()-before)
	}
}

func TestLostRecordRefusesWhatMayHaveBeenAccepted(t *testing.T) {
	n := startNode(t, setup{since: time.Now().Add(time.Second)})
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	if v := n.verdict("operator"); v.Reason != signing.ReasonStale || !strings.Contains(v.Detail, "lost its record") {
		t.Errorf("got %+v", v)
	}
	later := n.sealed(t, "operator", ledTopic, `"on"`, aged(-2*time.Second))
	if got := n.command("operator", ledTopic, later); got != signing.ReasonApplied {
		t.Errorf("sealed later, got %s", got)
	}
}
