package agent_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/signing"
)

// hears asks the node once, with a short patience: everything is on this machine.
func (n *node) hears(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	return n.agent.Loopback(ctx)
}

// shortly is how long is waited for what must not happen.
const shortly = 200 * time.Millisecond

func ownBroker(cfg *agent.Config) { cfg.OwnBroker = true }

func TestLoopback(t *testing.T) {
	t.Run("through the node's own broker", func(t *testing.T) {
		n := startNode(t, setup{change: ownBroker})
		for range 3 {
			if err := n.hears(patience); err != nil {
				t.Fatal(err)
			}
		}
		if got := n.agent.Counters(); got[signing.ReasonApplied] != 0 || n.led.count() != 0 {
			t.Errorf("it counts as a command: %v", got)
		}
		n.stop()
		if err := n.hears(shortly); err == nil {
			t.Error("a node that ended hears itself")
		}
	})
	t.Run("with a broker elsewhere that is away", func(t *testing.T) {
		n := startNode(t, setup{})
		n.stop()
		cfg := n.config()
		cfg.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("away") }
		away, stop := runApart(t, cfg)
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := away.Loopback(ctx); err != nil {
			t.Error(err)
		}
	})
}

// runApart runs an agent that need not get ready.
func runApart(t *testing.T, cfg agent.Config) (a *agent.Agent, stop func()) {
	t.Helper()
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return a, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestLoopbackStarves(t *testing.T) {
	t.Run("when nothing is verified any more", func(t *testing.T) {
		n := startNode(t, setup{change: ownBroker})
		n.agent.StopVerifying()
		if err := n.hears(shortly); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		n.agent.VerifyAgain() // or it could not be stopped
	})
	t.Run("when our own broker is away", func(t *testing.T) {
		n := startNode(t, setup{})
		n.stop()
		cfg := n.config()
		cfg.OwnBroker = true
		cfg.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("away") }
		away, stop := runApart(t, cfg)
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), shortly)
		defer cancel()
		if err := away.Loopback(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Others may reach the topic at a broker that lets them, but cannot answer for the node.
func TestLoopbackIsNotForged(t *testing.T) {
	n := startNode(t, setup{change: ownBroker})
	topic := agent.LoopbackTopic(nodeName)
	for _, signer := range []string{"operator", "node", "rogue"} {
		n.publish(topic, n.sealed(t, signer, topic, `1`, numbered(1)))
	}
	if err := n.hears(patience); err != nil {
		t.Error(err)
	}
	if got := n.agent.Counters()[signing.ReasonUnknownKey]; got != 3 {
		t.Errorf("%d messages were of an unknown key, want 3", got)
	}
}

func TestLoopbackTopicIsTheNodes(t *testing.T) {
	n := startNode(t, setup{})
	cfg := n.config()
	cfg.Outputs[0].Topic = agent.LoopbackTopic(nodeName)
	if _, err := agent.New(cfg); err == nil {
		t.Error("an output may have the topic on which the node hears itself")
	}
}
