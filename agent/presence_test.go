package agent_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"

	"pinseal/agent"
	"pinseal/internal/mqtt"
)

func TestPresence(t *testing.T) {
	s := setup{address: startBroker(t, "allow_anonymous true")}
	w := &wire{dial: dialer(s.address)}
	s.change = func(cfg *agent.Config) { cfg.Dial = w.open }
	n := startNode(t, s)
	n.retained(agent.AvailabilityTopic(nodeName), agent.Online)
	n.retained(agent.StateTopic(nodeName, "led"), agent.Off)
	n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	n.retained(agent.StateTopic(nodeName, "led"), agent.On)
	n.retained(agent.StateTopic(nodeName, "fan"), agent.Off)
	challenge := n.challenge()
	if len(challenge) != 22 {
		t.Errorf("challenge %q", challenge)
	}

	offline := make(chan mqtt.Message, 10)
	watcher, err := mqtt.Connect(t.Context(), mqtt.Config{
		Dial: dialer(n.address), CleanSession: true,
		Subscriptions: []mqtt.Subscription{{Filter: agent.AvailabilityTopic(nodeName), QoS: 1}},
		OnMessage: func(m mqtt.Message, ack func()) {
			if string(m.Payload) == agent.Offline {
				offline <- m
			}
			ack()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close() }()
	w.cut()
	<-offline // the will
	n.retained(agent.AvailabilityTopic(nodeName), agent.Online)
	if again := n.challenge(); again != challenge {
		t.Error("the challenge changed with the connection")
	}
	n.stop()
	n.retained(agent.AvailabilityTopic(nodeName), agent.Offline)

	second := startNode(t, setup{cast: n.cast, address: n.address})
	if second.challenge() == challenge {
		t.Error("the challenge is the same in another run")
	}
}

// farewell is a connection that breaks when the node says that it goes.
type farewell struct {
	net.Conn
	breaks *atomic.Bool
}

func (c farewell) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(agent.Offline)) && c.breaks.Swap(false) {
		_ = c.Close() // reported is that it breaks
		return 0, errFault
	}
	return c.Conn.Write(p)
}

// That the node is offline is its last word, also over a connection that it had to make for that.
func TestOfflineIsTheLastWord(t *testing.T) {
	var breaks atomic.Bool
	s := setup{address: startBroker(t, "allow_anonymous true")}
	s.change = func(cfg *agent.Config) {
		cfg.Dial = func(ctx context.Context) (net.Conn, error) {
			conn, err := dialer(s.address)(ctx)
			return farewell{conn, &breaks}, err
		}
	}
	n := startNode(t, s)
	breaks.Store(true)
	n.stop()
	if m := n.retained(agent.AvailabilityTopic(nodeName), ""); string(m.Payload) != agent.Offline || breaks.Load() {
		t.Errorf("at last it is %s; the connection broke: %v", m.Payload, !breaks.Load())
	}
}
