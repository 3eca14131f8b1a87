package agent_test

import (
	"testing"

	"pinseal/agent"
	"pinseal/internal/mqtt"
)

// startDiscovered is a node that announces two things, and tells when both are confirmed.
func startDiscovered(t *testing.T) (n *node, confirmed chan struct{}) {
	t.Helper()
	confirmed = make(chan struct{}, 100)
	n = startNode(t, setup{change: func(c *agent.Config) {
		c.Discovery = &agent.Discovery{
			Announce: func() []agent.Announcement {
				return []agent.Announcement{{Topic: "ha/device/gone/config"}, {Topic: "ha/device/raspiflow/config", Payload: []byte("{}")}}
			},
			Announced: func() { confirmed <- struct{}{} },
			Topic:     "ha/status", Word: "online",
		}
	}})
	return n, confirmed
}

func TestDiscoveryIsAnnounced(t *testing.T) {
	n, confirmed := startDiscovered(t)
	<-confirmed
	if m := n.retained("ha/device/raspiflow/config", ""); string(m.Payload) != "{}" || !m.Retained {
		t.Errorf("got %q", m.Payload)
	}
}

// TestDiscoveryIsRepeated: who has just started is told again, what is shown too; but not as often as somebody asks.
func TestDiscoveryIsRepeated(t *testing.T) {
	n, confirmed := startDiscovered(t)
	<-confirmed
	for _, filter := range []string{"ha/device/#", agent.StateTopic(nodeName, "led")} {
		if err := n.observer.Subscribe(t.Context(), mqtt.Subscription{Filter: filter, QoS: 1}); err != nil {
			t.Fatal(err)
		}
		n.next() // retained
	}
	n.publish("ha/status", []byte("offline"))
	for range 100 {
		n.publish("ha/status", []byte("online"))
	}
	n.publish("telemetry/sensor-1/load", n.sealed(t, "sensor", "telemetry/sensor-1/load", `1`))
	told := map[string]int{}
	for {
		m := n.next()
		if m.Topic == "verified/sensor-1/load" {
			break
		}
		told[m.Topic]++
	}
	if told["ha/device/raspiflow/config"] == 0 || told["ha/device/raspiflow/config"] > 4 || told[agent.StateTopic(nodeName, "led")] == 0 {
		t.Errorf("told %v", told)
	}
}

// TestReportsAreRepeated: who has just started is told what the node itself said last, and nothing of others.
func TestReportsAreRepeated(t *testing.T) {
	n, confirmed := startDiscovered(t)
	<-confirmed
	for _, state := range []string{`{"state":"ON"}`, `{"state":"OFF"}`} {
		if err := n.agent.Report("door", []byte(state)); err != nil {
			t.Fatal(err)
		}
		n.next()
	}
	n.publish("telemetry/sensor-1/load", n.sealed(t, "sensor", "telemetry/sensor-1/load", `1`))
	n.next()
	n.publish("ha/status", []byte("online"))
	if m := n.next(); m.Topic != "verified/raspiflow/door" || string(m.Payload) != `{"state":"OFF"}` {
		t.Errorf("told %s on %s", m.Payload, m.Topic)
	}
	n.publish("telemetry/sensor-1/load", n.sealed(t, "sensor", "telemetry/sensor-1/load", `2`))
	if m := n.next(); string(m.Payload) != "2" {
		t.Errorf("told %s on %s, too", m.Payload, m.Topic)
	}
}

func TestDiscoveryIsChecked(t *testing.T) {
	n := startNode(t, setup{})
	for name, d := range map[string]*agent.Discovery{
		"nothing":  {},
		"no topic": {Announce: func() []agent.Announcement { return nil }, Topic: "a/#"},
	} {
		cfg := n.config()
		cfg.Discovery = d
		if _, err := agent.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
