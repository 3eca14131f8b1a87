package broker_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
)

// systemOf listens to $SYS until there were so many topics.
func (c *client) systemOf(tb testing.TB, topics int) map[string]string {
	tb.Helper()
	c.subscribe(tb, "$SYS/#", 0)
	seen := map[string]string{}
	for len(seen) < topics {
		m := c.receive(tb)
		seen[m.topic] = m.payload
	}
	return seen
}

// Every name that Debian's mosquitto has is there, and no other.
func TestSystemTopicsAreMosquittos(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		c.Version, c.SystemInterval = "pinseal version 1", time.Second
		c.Policy.Rules[0].Subscribe = append(c.Policy.Rules[0].Subscribe, "$SYS/#")
	})
	m := startMosquitto(t, "sys_interval 1")
	theirs := m.connect(t, "alice", "").systemOf(t, s.systemTopics())
	ours := s.connect(t, "alice", "").systemOf(t, s.systemTopics())
	for topic := range theirs {
		if _, ok := ours[topic]; !ok {
			t.Errorf("%s is missing", topic)
		}
	}
	for topic := range ours {
		if _, ok := theirs[topic]; !ok {
			t.Errorf("mosquitto has no %s", topic)
		}
	}
	if v := ours["$SYS/broker/version"]; v != "pinseal version 1" {
		t.Errorf("version %q", v)
	}
}

func TestSystemTopics(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		c.SystemInterval = time.Second
		c.Policy = &broker.Policy{Rules: []broker.Rule{
			{Identity: "alice", Publish: []string{"#"}, Subscribe: []string{"#", "$SYS/#"}},
			{Identity: "bob", Publish: []string{"#"}, Subscribe: []string{"#"}},
		}}
	})
	bob := s.connect(t, "bob", "")
	if code := bob.subscribe(t, "$SYS/broker/uptime", 0); code != 0x80 {
		t.Errorf("bob may read $SYS: %#x", code)
	}
	bob.subscribe(t, "#", 0) // does not match $SYS
	bob.subscribe(t, "$share/g/x/y", 0)
	for range 5 {
		bob.publish(t, "x", "12345678", 1)
		bob.want(t, "x", "12345678")
	}
	alice := s.connect(t, "alice", "")
	alice.subscribe(t, "$SYS/#", 0)
	seen := map[string]string{}
	for !asExpected(seen) { // each is told when it has changed, in any order
		m := alice.receive(t)
		seen[strings.TrimPrefix(m.topic, "$SYS/broker/")] = m.payload
	}
	select {
	case m := <-bob.messages:
		t.Errorf("bob received %s", m.topic)
	default:
	}
}

// asExpected is what comes of five messages, and two clients with three subscriptions.
func asExpected(seen map[string]string) bool {
	for topic, want := range map[string]string{
		"publish/messages/received": "5", "publish/bytes/received": "40", "publish/messages/dropped": "0",
		"clients/connected": "2", "clients/total": "2", "clients/disconnected": "0", "clients/maximum": "2",
		"subscriptions/count": "3", "shared_subscriptions/count": "1", "load/publish/dropped/15min": "0.00",
	} {
		if seen[topic] != want {
			return false
		}
	}
	for _, topic := range []string{"bytes/received", "bytes/sent", "messages/received", "messages/sent", "heap/current"} {
		if n, err := strconv.Atoi(seen[topic]); err != nil || n < 10 {
			return false
		}
	}
	return seen["load/publish/received/1min"] > "0.00" && strings.HasSuffix(seen["uptime"], " seconds")
}
