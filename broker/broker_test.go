package broker_test

import (
	"context"
	"net"
	"net/url"
	"testing"

	"pinseal/broker"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func TestMessagesPass(t *testing.T) {
	s := start(t, nil)
	sub, pub := s.connect(t, "alice", "sub"), s.connect(t, "bob", "pub")
	for qos := range byte(3) {
		if code := sub.subscribe(t, "a/+", qos); code != qos {
			t.Fatalf("SUBACK code %d, want %d", code, qos)
		}
		pub.publish(t, "a/b", "hello", qos)
		sub.want(t, "a/b", "hello")
	}
}

// dial connects the node itself.
func (s *site) dialNode(tb testing.TB) *client {
	tb.Helper()
	return must(s.tryConnect(tb, node, "agent", func(o *paho.ClientOptions) {
		o.SetCleanSession(false) // as the agent does
		o.SetCustomOpenConnectionFn(func(_ *url.URL, _ paho.ClientOptions) (net.Conn, error) {
			return s.Dial(context.Background())
		})
	}))(tb)
}

func TestNodeReadsAllAndWritesReserved(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		c.Policy = &broker.Policy{
			Rules:    []broker.Rule{{Identity: "*", Publish: []string{"#"}, Subscribe: []string{"state"}}},
			Reserved: []string{"state/#"},
		}
	})
	agent, alice := s.dialNode(t), s.connect(t, "alice", "")
	if code := agent.subscribe(t, "#", 1); code != 1 {
		t.Fatalf("SUBACK code %#x, want 1", code)
	}
	alice.subscribe(t, "state", 1)
	alice.publish(t, "state", "forged", 1)
	alice.publish(t, "command", "on", 1)
	agent.want(t, "command", "on")
	agent.publish(t, "state", "ON", 1)
	alice.want(t, "state", "ON")
	if n := s.Stats().ByReason[broker.ReasonReserved]; n != 1 {
		t.Errorf("%d publishes refused as reserved, want 1", n)
	}
}

// While nobody listens behind the broker nobody is acknowledged anything: a connection waits where it is.
func TestHold(t *testing.T) {
	hold := make(chan struct{})
	s := start(t, func(c *broker.Config) { c.Hold = hold })
	early := make(chan *client)
	go func() { early <- s.connect(t, "alice", "") }()
	agent := s.dialNode(t)
	agent.subscribe(t, "command", 1)
	if n := s.Stats().Connections; n != 0 {
		t.Errorf("%d connections were accepted", n)
	}
	close(hold)
	(<-early).publish(t, "command", "on", 1)
	agent.want(t, "command", "on")
}
