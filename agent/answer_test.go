package agent_test

import (
	"sync/atomic"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/signing"
)

// turnstile is a Sequence that has whoever asks wait while it is closed.
type turnstile struct {
	counter
	closed  atomic.Pointer[chan struct{}]
	waiting chan struct{}
}

func (s *turnstile) Reserve(now time.Time, n uint64) (uint64, error) {
	if closed := s.closed.Load(); closed != nil {
		s.waiting <- struct{}{}
		<-*closed
	}
	return s.counter.Reserve(now, n)
}

// A verdict that may not be sealed costs nobody else's.
func TestVerdictsBesideOneThatIsNotSealed(t *testing.T) {
	numbers := &turnstile{waiting: make(chan struct{}, 100)}
	numbers.last.Store(uint64(time.Now().UnixMicro()))
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Sequence = numbers
		cfg.Policy.Encryption = []agent.EncryptionRule{{Filter: agent.VerdictTopic(nodeName, "guest")}}
	}})
	applied := func(want uint64) {
		t.Helper()
		for deadline := time.Now().Add(patience); n.agent.Counters()[signing.ReasonApplied] < want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("not applied")
			}
		}
	}
	open := make(chan struct{})
	numbers.closed.Store(&open)
	n.publish("fanStatus", n.sealed(t, "operator", "fanStatus", `"on"`))
	<-numbers.waiting // the next verdicts are sealed together
	n.publish(ledTopic, n.sealed(t, "guest", ledTopic, `"on"`))
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"off"`))
	applied(3)
	numbers.closed.Store(nil)
	close(open)
	for range 2 {
		if v := n.verdict("operator"); v.Reason != signing.ReasonApplied {
			t.Errorf("%+v", v)
		}
	}
	if got := n.agent.Stats().Unanswered; got != 1 {
		t.Errorf("%d verdicts were not sent", got)
	}
}

// A traced message that says it is the node's own comes to its end as well.
func TestTraceOfOwn(t *testing.T) {
	n := startNode(t, setup{})
	done := make(chan struct{})
	stop, err := n.agent.Trace(&agent.Tracer{
		Wants: func(string, []byte) bool { return true }, Step: func(agent.Step) {}, Done: func() { close(done) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	n.publish(load, n.sealed(t, "node", load, `1`))
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("it is still being traced")
	}
}
