package broker_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"pinseal/broker"
)

// matches is an oracle: MQTT 5.0 section 4.7 in the simplest words.
func matches(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic) || len(topic) == 0 && len(filter) == 1 && filter[0] == "#"
	case filter[0] != "+" && filter[0] != topic[0]:
		return false
	}
	return matches(filter[1:], topic[1:])
}

func oracle(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false
	}
	return matches(strings.Split(filter, "/"), strings.Split(topic, "/"))
}

// words returns every path of up to n levels.
func words(levels []string, n int) []string {
	paths := append([]string(nil), levels...)
	for last := paths; n > 1; n-- {
		var next []string
		for _, p := range last {
			for _, l := range levels {
				next = append(next, p+"/"+l)
			}
		}
		last = next
		paths = append(paths, next...)
	}
	return paths
}

// Every pair of filters, against every topic: covered means that no topic is matched by wanted and not by allowed.
func TestCoversEveryPair(t *testing.T) {
	topics := words([]string{"a", "b", "", "$s"}, 4) // the empty one, which is no topic, stands for the parent of /#
	var filters []string
	for _, f := range words([]string{"a", "", "+", "#", "$s"}, 3) {
		if i := strings.Index(f, "#"); (i < 0 || i == len(f)-1) && f != "" {
			filters = append(filters, f)
		}
	}
	for _, allowed := range filters {
		for _, wanted := range filters {
			want := true
			for _, topic := range topics {
				if oracle(wanted, topic) && !oracle(allowed, topic) {
					want = false
					break
				}
			}
			if got := broker.Covers(allowed, wanted); got != want {
				t.Errorf("%q covers %q: %v, want %v", allowed, wanted, got, want)
			}
		}
		for _, topic := range topics {
			if broker.Covers(allowed, topic) != oracle(allowed, topic) {
				t.Errorf("%q matches %q: want %v", allowed, topic, oracle(allowed, topic))
			}
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		allowed, wanted string
		want            bool
	}{
		{"a/#", "a/+/b", true},
		{"a/#", "a", true},
		{"a/#", "a/#", true},
		{"a/#", "ab", false},
		{"a/b", "a/b/c", false}, // mochi's ledger says yes
		{"a/+", "a/#", false},
		{"a/+", "a", false},
		{"a/+/c", "a/b/c", true},
		{"+", "#", false},
		{"#", "$SYS/broker", false},
		{"+/broker", "$SYS/broker", false},
		{"$SYS/#", "$SYS/broker", true},
		{"$SYS/+", "$SYS/broker", true},
		{"a//b", "a/b", false},
		{"a/+/b", "a//b", true},
	} {
		if got := broker.Covers(tc.allowed, tc.wanted); got != tc.want {
			t.Errorf("%q covers %q: %v, want %v", tc.allowed, tc.wanted, got, tc.want)
		}
	}
}

func TestPolicyRefused(t *testing.T) {
	rule := func(identity string, filters ...string) broker.Policy {
		return broker.Policy{Rules: []broker.Rule{{Identity: identity, Publish: filters}}}
	}
	for _, tc := range []struct {
		name   string
		policy broker.Policy
		says   string
	}{
		{"identity", rule("a/b"), `"a/b" is neither`},
		{"no identity", rule(""), "neither a name nor *"},
		{"empty filter", rule("a", ""), "not an MQTT topic filter"},
		{"hash in the middle", rule("a", "a/#/b"), "not an MQTT topic filter"},
		{"wildcard in a level", rule("a", "a+"), "not an MQTT topic filter"},
		{"NUL", rule("a", "a\x00"), "not an MQTT topic filter"},
		{"shared", rule("a", "$share/g/a"), "inner filter"},
		{"reserved", broker.Policy{Reserved: []string{"#a"}}, "not an MQTT topic filter"},
		{"no-retain", broker.Policy{NoRetain: []string{"#/a"}}, "not an MQTT topic filter"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := broker.New(broker.Config{Node: node, Policy: &tc.policy})
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want one that says %q", err, tc.says)
			}
		})
	}
}

// commands is a policy as the node has it.
func commands() *broker.Policy {
	return &broker.Policy{
		Rules: []broker.Rule{
			{Identity: "alice", Publish: []string{"led", "state/x"}, Subscribe: []string{"state/#"}},
			{Identity: "*", Publish: []string{"telemetry/%u/#"}, Subscribe: []string{"verdict/%u", "$SYS/broker/version"}},
		},
		Reserved: []string{"state/#", "verdict/#"},
		NoRetain: []string{"led"},
	}
}

func TestSubscribeJudged(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Policy = commands() })
	alice := s.connect(t, "alice", "")
	for _, tc := range []struct {
		filter string
		code   byte
	}{
		{"state/#", 1},
		{"state/+/b", 1},
		{"state", 1},
		{"$share/g/state/x", 1},
		{"verdict/alice", 1},
		{"$SYS/broker/version", 1},
		{"#", 0x80},
		{"+/x", 0x80},
		{"stat", 0x80},
		{"led", 0x80},
		{"verdict/bob", 0x80},
		{"verdict/+", 0x80},
		{"$share/g/#", 0x80},
		{"$share/state/x", 0x80},
		{"$SYS/#", 0x80},
		{"$SYS/broker/uptime", 0x80},
	} {
		if code := alice.subscribe(t, tc.filter, 1); code != tc.code {
			t.Errorf("%s: SUBACK code %#x, want %#x", tc.filter, code, tc.code)
		}
	}
}

// In one SUBSCRIBE every filter is judged for itself, and the codes keep their order.
func TestSubscribeMixed(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Policy = commands() })
	for version, hello := range map[byte][]byte{4: connect311("id"), 5: connect5("id")} {
		c := s.dialRaw(t, "alice")
		filters := [][]byte{str("#"), {1}, str("state/a"), {2}, str("led"), {0}, str("state/b"), {0}}
		head := [][]byte{{0, 9}}
		refused := byte(0x80)
		if version == 5 {
			head, refused = append(head, []byte{0}), 0x87
		}
		c.send(t, hello, packet(0x82, append(head, filters...)...))
		c.read(t)
		ack := c.read(t)
		want := []byte{refused, 2, refused, 0}
		if got := ack[len(ack)-4:]; ack[0] != 0x90 || ack[3] != 9 || string(got) != string(want) {
			t.Errorf("version %d: SUBACK % x, want codes % x", version, ack, want)
		}
	}
}

// publishes sends one PUBLISH and returns the acknowledgement: type, packet identifier, reason code.
func (r raw) publishes(t *testing.T, version, qos byte, retain bool, topic string) (kind, id, reason byte) {
	t.Helper()
	first := 0x30 | qos<<1
	if retain {
		first |= 1
	}
	body := [][]byte{str(topic), {0, 7}}
	if version == 5 {
		body = append(body, []byte{0})
	}
	r.send(t, packet(first, append(body, []byte("x"))...))
	ack := r.read(t)
	if ack[1] > 2 {
		reason = ack[4]
	}
	return ack[0], ack[3], reason
}

func TestPublishRefused(t *testing.T) {
	for _, tc := range []struct {
		name, topic string
		retain      bool
		reason      broker.Reason
	}{
		{"not permitted", "other", false, broker.ReasonPublish},
		{"of another", "telemetry/bob/x", false, broker.ReasonPublish},
		{"reserved in spite of a rule", "state/x", false, broker.ReasonReserved},
		{"retained command", "led", true, broker.ReasonRetained},
		{"system topic", "$SYS/broker/version", false, broker.ReasonPublish},
		{"shared topic", "$share/g/led", false, broker.ReasonPublish},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { c.Policy = commands() })
			agent := s.dialNode(t)
			agent.subscribe(t, "#", 1)
			for _, want := range []struct{ version, qos, kind, reason byte }{
				{4, 1, 0x40, 0}, {4, 2, 0x50, 0}, {5, 1, 0x40, 0x87}, {5, 2, 0x50, 0x87},
			} {
				c := s.dialRaw(t, "alice")
				hello := connect311("id")
				if want.version == 5 {
					hello = connect5("id")
				}
				c.send(t, hello)
				c.read(t)
				kind, id, reason := c.publishes(t, want.version, want.qos, tc.retain, tc.topic)
				if kind != want.kind || id != 7 || reason != want.reason {
					t.Errorf("version %d QoS %d: answer %#x id %d reason %#x, want %#x, 7, %#x",
						want.version, want.qos, kind, id, reason, want.kind, want.reason)
				}
				// The connection stays, and what is allowed still works.
				if _, _, reason := c.publishes(t, want.version, 1, false, "led"); reason >= 0x80 {
					t.Errorf("version %d: allowed publish answered %#x", want.version, reason)
				}
				agent.want(t, "led", "x")
			}
			if n := s.Stats().ByReason[tc.reason]; n != 4 {
				t.Errorf("%d counted as %s, want 4", n, tc.reason)
			}
			if log := s.log.String(); !strings.Contains(log, "reason="+string(tc.reason)) || strings.Contains(log, "payload") {
				t.Errorf("log does not name the reason %s, or names a payload:\n%s", tc.reason, log)
			}
			if n := s.Stats().Retained; tc.retain && n > s.systemTopics() {
				t.Errorf("%d messages retained", n)
			}
		})
	}
}

func TestLogIsBoundedAndHasNoPayload(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Policy = commands() })
	alice := s.connect(t, "alice", "")
	for range 200 {
		alice.publish(t, "other", "s3cret", 1)
	}
	alice.publish(t, "led", "s3cret", 1)
	malformed := s.dialRaw(t, "alice")
	malformed.send(t, connect311("id"), packet(0x30, str("#"), []byte("s3cret")))
	malformed.wantClosed(t)
	if n := s.Stats().ByReason[broker.ReasonPublish]; n != 200 {
		t.Errorf("%d counted, want 200", n)
	}
	log := s.log.String()
	if strings.Contains(log, "s3cret") {
		t.Error("the log holds a payload")
	}
	if n := strings.Count(log, "reason=publish-not-permitted"); n < 1 || n > 20 {
		t.Errorf("%d lines for 200 refusals", n)
	}
}

// systemTopics is the number of $SYS topics, which are retained.
func (s *site) systemTopics() int { return 53 }

func TestRetainedWhereAllowed(t *testing.T) {
	s := start(t, nil)
	alice := s.connect(t, "alice", "")
	await(t, alice.Publish("a", 1, true, "kept"))
	bob := s.connect(t, "bob", "")
	bob.subscribe(t, "a", 1)
	if m := bob.receive(t); m.payload != "kept" || !m.retained {
		t.Errorf("received %+v", m)
	}
}

func TestSetPolicyEndsSubscriptions(t *testing.T) {
	s := start(t, nil)
	alice, bob := s.connect(t, "alice", "a"), s.connect(t, "bob", "b")
	alice.subscribe(t, "x/#", 1)
	bob.subscribe(t, "#", 1)
	only := &broker.Policy{Rules: []broker.Rule{
		{Identity: "bob", Publish: []string{"#"}, Subscribe: []string{"#"}},
		{Identity: "alice", Subscribe: []string{"y"}},
	}}
	if err := s.SetPolicy(only); err != nil {
		t.Fatal(err)
	}
	bob.publish(t, "x/1", "secret", 1)
	bob.want(t, "x/1", "secret")
	alice.subscribe(t, "y", 1)
	bob.publish(t, "y", "open", 1)
	alice.want(t, "y", "open") // and nothing before it
	if err := s.SetPolicy(everything()); err != nil {
		t.Fatal(err)
	}
	// The subscription has ended; it does not come back with the permission.
	bob.publish(t, "x/2", "hidden", 1)
	bob.publish(t, "y", "again", 1)
	alice.want(t, "y", "again")
	if err := s.SetPolicy(nil); err == nil {
		t.Error("no policy at all was accepted")
	}
}

// Between the change of the policy and the end of a subscription nothing may slip through.
func TestEveryDeliveryIsJudged(t *testing.T) {
	h := &stuck{Handler: slog.DiscardHandler, reason: broker.ReasonDelivery, entered: make(chan struct{}), leave: make(chan struct{})}
	s := start(t, func(c *broker.Config) { c.Log = slog.New(h) })
	alice, bob := s.connect(t, "alice", ""), s.connect(t, "bob", "")
	for _, filter := range []string{"x/1", "x/2", "y"} {
		alice.subscribe(t, filter, 1)
	}
	done := make(chan error, 1)
	go func() {
		done <- s.SetPolicy(&broker.Policy{Rules: []broker.Rule{
			{Identity: "bob", Publish: []string{"#"}}, {Identity: "alice", Subscribe: []string{"y"}},
		}})
	}()
	<-h.entered // one of the two subscriptions has ended, the other is still in place
	for _, topic := range []string{"x/1", "x/2", "y"} {
		bob.publish(t, topic, "m", 1)
	}
	alice.want(t, "y", "m")
	close(h.leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSetPolicyEndsStoredSessionsSubscriptions(t *testing.T) {
	s := start(t, nil)
	bob := s.connect(t, "bob", "b")
	c := s.dialRaw(t, "alice")
	persistent := packet(0x10, str("MQTT"), []byte{4, 0, 0, 60}, str("id"))
	c.send(t, persistent, packet(0x82, []byte{0, 1}, str("x"), []byte{1}))
	c.read(t)
	c.read(t)
	c.send(t, []byte{0xe0, 0})
	c.wantClosed(t)
	bob.publish(t, "x", "stored", 1)
	if err := s.SetPolicy(&broker.Policy{Rules: []broker.Rule{{Identity: "bob", Publish: []string{"#"}}}}); err != nil {
		t.Fatal(err)
	}
	bob.publish(t, "x", "later", 1)
	c = s.dialRaw(t, "alice")
	c.send(t, persistent, []byte{0xc0, 0})
	if ack := c.read(t); ack[2] != 1 {
		t.Errorf("CONNACK % x, want the session to be present", ack)
	}
	if next := c.read(t); next[0] != 0xd0 {
		t.Errorf("received % x, want the answer to PINGREQ and no message", next)
	}
}

// A subscription that a policy lowers while its client ends it stays ended.
func TestPolicyChangesAmongSubscriptions(t *testing.T) {
	most := func(qos byte) *broker.Policy {
		return &broker.Policy{Rules: []broker.Rule{{Identity: "*", Publish: []string{"#"}, Subscribe: []string{"#"}, MaxQoS: &qos}}}
	}
	s := start(t, nil)
	var clients sync.WaitGroup
	turns := make(chan struct{}, 4) // or the changes alone would keep a slow processor busy
	for n := range 4 {
		c, _ := s.resume(t, "alice", connect311(fmt.Sprint(n)))
		clients.Go(func() {
			for i := range 200 {
				turns <- struct{}{}
				filter := str(fmt.Sprint("x/", i))
				c.send(t, packet(0x82, []byte{0, 1}, filter, []byte{2}), packet(0xa2, []byte{0, 2}, filter))
				c.read(t)
				c.read(t)
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		clients.Wait()
		close(ended)
	}()
	for n := byte(0); ; n++ {
		if err := s.SetPolicy(most(n % 3)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
			if n := s.Stats().Subscriptions; n != 0 {
				t.Errorf("%d subscriptions are left", n)
			}
			return
		case <-turns:
		}
	}
}
