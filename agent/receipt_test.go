package agent_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/outbox"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

const load = "telemetry/sensor-1/load"

// receipts subscribes to those of the sensor and returns what gives the next.
func (n *node) receipts() (next func() agent.Receipt) {
	n.t.Helper()
	topic := agent.ReceiptTopic(nodeName, "sensor")
	if err := n.observer.Subscribe(n.t.Context(), mqtt.Subscription{Filter: topic, QoS: 1}); err != nil {
		n.t.Fatal(err)
	}
	return func() agent.Receipt {
		n.t.Helper()
		for {
			m := n.next()
			if m.Topic != topic {
				continue
			}
			r, err := agent.ParseReceipt(n.open(m).JSON())
			if err != nil || m.Retained || r.KeyID != n.keys["sensor"].Public().ID() || time.Since(r.Time) > patience {
				n.t.Fatalf("%+v, %v (retained: %v)", r, err, m.Retained)
			}
			return r
		}
	}
}

// Accepted telemetry of quality of service 1 is acknowledged, once for all that come together; refused is not, nor what
// did not ask.
func TestReceipts(t *testing.T) {
	n := startNode(t, setup{})
	next := n.receipts()
	first := n.seq.Load() + 1
	for range 100 {
		n.publish(load, n.sealed(t, "sensor", load, `1`))
	}
	last := n.seq.Load()
	n.publish(load, n.sealed(t, "sensor", load, `1`, aged(time.Hour)))
	n.publish("telemetry/other/load", n.sealed(t, "sensor", "telemetry/other/load", `1`))
	n.send(mqtt.Message{Topic: load, Payload: n.sealed(t, "sensor", load, `1`)}) // QoS 0
	var got []uint64
	messages := 0
	for len(got) < 100 {
		r := next()
		messages++
		for _, a := range r.Accepted {
			if a.Topic != load {
				t.Fatalf("a receipt for %s", a.Topic)
			}
			got = append(got, a.Sequences...)
		}
	}
	slices.Sort(got)
	if got[0] != first || got[99] != last || len(slices.Compact(got)) != 100 {
		t.Errorf("acknowledged %v, sent %d to %d", got, first, last)
	}
	if messages > 10 {
		t.Errorf("%d messages for 100 numbers", messages)
	}
	// What did not ask would have come before this.
	n.publish("telemetry/sensor-1/end", n.sealed(t, "sensor", "telemetry/sensor-1/end", `1`))
	if r := next(); len(r.Accepted) != 1 || r.Accepted[0].Topic != "telemetry/sensor-1/end" {
		t.Errorf("acknowledged %+v", r)
	}
}

// Many topics with long names do not fit into one sealed message.
func TestReceiptsOfManyTopics(t *testing.T) {
	n := startNode(t, setup{})
	next := n.receipts()
	const topics = 500
	for i := range topics {
		topic := fmt.Sprintf("telemetry/sensor-1/%0200d", i)
		n.observer.PublishAsync(mqtt.Message{Topic: topic, Payload: n.sealed(t, "sensor", topic, `1`), QoS: 1}, nil)
	}
	for got := 0; got < topics; {
		for _, a := range next().Accepted {
			got += len(a.Sequences)
		}
	}
}

// A receipt that was lost comes again with the message.
func TestReceiptForDuplicate(t *testing.T) {
	n := startNode(t, setup{})
	next := n.receipts()
	raw := n.sealed(t, "sensor", load, `1`)
	for range 2 {
		n.publish(load, raw)
		if r := next(); len(r.Accepted) != 1 || r.Accepted[0].Sequences[0] != n.seq.Load() {
			t.Errorf("acknowledged %+v", r)
		}
	}
	if got := n.agent.Stats().Telemetry; got != 1 {
		t.Errorf("accepted %d times", got)
	}
}

// upstream is a node whose telemetry is for the operator, who plays the receiving node here.
func upstream(t *testing.T) (*node, *outbox.Box) {
	t.Helper()
	box, err := outbox.Open(filepath.Join(t.TempDir(), "outbox.db"), outbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, setup{change: func(c *agent.Config) { c.Receiver, c.Outbox = "operator", box }})
	t.Cleanup(func() {
		n.stop()
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.observer.Subscribe(t.Context(), mqtt.Subscription{Filter: "telemetry/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	return n, box
}

// report has the node report, and returns the number of what it publishes.
func (n *node) report() uint64 {
	n.t.Helper()
	if err := n.agent.Report("door", []byte(`{"state":"ON"}`)); err != nil {
		n.t.Fatal(err)
	}
	for {
		if m := n.next(); m.Topic == "telemetry/raspiflow/door" {
			return n.open(m).Sequence()
		}
	}
}

func (n *node) kid(name string) string { return n.keys[name].Public().ID() }

func receiptOf(kid string, number uint64) string {
	return fmt.Sprintf(`{"kid":%q,"accepted":[{"topic":"telemetry/raspiflow/door","seq":[%d]}],"time":"2025-11-22T04:56:30Z"}`, kid, number)
}

func verdictOf(kid string, number uint64, reason signing.Reason) string {
	text, _ := json.Marshal(agent.Verdict{Topic: "telemetry/raspiflow/door", KeyID: kid, Sequence: number, Reason: reason})
	return string(text)
}

// Only what the receiving node has signed, for this key, for this topic, takes anything out of the outbox.
func TestOutboxHearsItsReceiverAlone(t *testing.T) {
	n, box := upstream(t)
	receipts, verdicts := agent.ReceiptTopic("operator", nodeName), agent.VerdictTopic("operator", nodeName)
	number := n.report()
	for _, forged := range []struct{ name, signer, topic, sealedFor, msg string }{
		{"unknown key", "rogue", receipts, receipts, receiptOf(n.kid("node"), number)},
		{"another signer", "stranger", receipts, receipts, receiptOf(n.kid("node"), number)},
		{"another topic", "operator", receipts, "elsewhere", receiptOf(n.kid("node"), number)},
		{"another key", "operator", receipts, receipts, receiptOf(n.kid("sensor"), number)},
		{"another number", "operator", receipts, receipts, receiptOf(n.kid("node"), number+1)},
		{"no receipt", "operator", receipts, receipts, `{"accepted":[]}`},
		{"a verdict of another", "stranger", verdicts, verdicts, verdictOf(n.kid("node"), number, signing.ReasonStale)},
		{"a verdict for another key", "operator", verdicts, verdicts, verdictOf(n.kid("sensor"), number, signing.ReasonStale)},
		{"no verdict", "operator", verdicts, verdicts, `{}`},
	} {
		n.publish(forged.topic, n.sealed(t, forged.signer, forged.sealedFor, forged.msg))
	}
	n.publish(receipts, []byte("junk"))
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`)) // after all of these
	<-n.led.set
	if s := box.Stats(); s.Waiting != 1 || s.Accepted+s.Refused != 0 {
		t.Fatalf("%+v", s)
	}
	n.publish(receipts, n.sealed(t, "operator", receipts, receiptOf(n.kid("node"), number)))
	n.await("accepted", func() bool { s := box.Stats(); return s.Accepted == 1 && s.Waiting == 0 })
	for want, reason := range map[string]signing.Reason{"refused": signing.ReasonStale, "accepted": signing.ReasonApplied} {
		before := box.Stats()
		number := n.report()
		n.publish(verdicts, n.sealed(t, "operator", verdicts, verdictOf(n.kid("node"), number, reason)))
		n.await(want, func() bool {
			s := box.Stats()
			return s.Waiting == 0 && (s.Refused > before.Refused) == (want == "refused") && (s.Accepted > before.Accepted) == (want == "accepted")
		})
	}
}

// What was sealed with a key that the node has no longer would wait for ever, and all that comes after it behind it.
func TestOutboxGivesUpWhatAnotherKeySealed(t *testing.T) {
	n, box := upstream(t)
	const topic = "telemetry/raspiflow/door"
	for number := range uint64(outbox.Window) {
		sealed, err := signing.Seal(n.keys["rogue"], signing.Claims{Topic: topic, IssuedAt: time.Now(), Sequence: number, Message: []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		if err := box.Put(outbox.Message{Topic: topic, Number: number, Sealed: sealed}); err != nil {
			t.Fatal(err)
		}
	}
	n.report()
	if s := box.Stats(); s.Refused != outbox.Window || s.Waiting != 1 {
		t.Errorf("%+v", s)
	}
}

// await waits for a state of the outbox, which tells nobody.
func (n *node) await(what string, is func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not %s", what)
		}
	}
}

// What is for a receiving node is that node's to call verified.
func TestOutboxLeavesVerifyingToItsReceiver(t *testing.T) {
	n, _ := upstream(t)
	n.report()
	n.fence()
	if got := len(n.seen); got != 0 {
		t.Errorf("published %s besides", n.next().Topic)
	}
}
