package broker_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
)

// systemOf listens to all $SYS topics until there is one that only comes when all others have come once.
func (c *client) systemOf(tb testing.TB, last func(map[string]string) bool) map[string]string {
	tb.Helper()
	c.subscribe(tb, "$SYS/#", 0)
	seen := map[string]string{}
	for !last(seen) {
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
	complete := func(seen map[string]string) bool { return len(seen) >= s.systemTopics() }
	theirs := m.connect(t, "alice", "").systemOf(t, complete)
	ours := s.connect(t, "alice", "").systemOf(t, complete)
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
	got := alice.systemOf(t, func(seen map[string]string) bool {
		return seen["$SYS/broker/publish/messages/received"] == "5" && seen["$SYS/broker/clients/connected"] == "2" &&
			seen["$SYS/broker/subscriptions/count"] == "3" && seen["$SYS/broker/load/publish/received/1min"] > "0.00"
	})
	for topic, want := range map[string]string{
		"publish/bytes/received": "40", "clients/total": "2", "clients/disconnected": "0", "clients/maximum": "2",
		"shared_subscriptions/count": "1", "publish/messages/dropped": "0", "load/publish/dropped/15min": "0.00",
	} {
		if got["$SYS/broker/"+topic] != want {
			t.Errorf("%s is %q, want %q", topic, got["$SYS/broker/"+topic], want)
		}
	}
	for _, topic := range []string{"bytes/received", "bytes/sent", "messages/received", "messages/sent", "heap/current"} {
		if n, err := strconv.Atoi(got["$SYS/broker/"+topic]); err != nil || n < 10 {
			t.Errorf("%s is %q", topic, got["$SYS/broker/"+topic])
		}
	}
	if up := got["$SYS/broker/uptime"]; !strings.HasSuffix(up, " seconds") {
		t.Errorf("uptime %q", up)
	}
	select {
	case m := <-bob.messages:
		t.Errorf("bob received %s", m.topic)
	default:
	}
}
