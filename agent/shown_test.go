package agent_test

import (
	"sync"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
)

// told is an actuator that changes when its test says so.
type told struct {
	mu      sync.Mutex
	state   string
	changed func()
	taken   chan struct{} // if not nil, the next status is told of here, and returned when this is read once more
}

func (o *told) Do(actuator.Command) (string, error) { return "", nil }
func (o *told) Watch(f func())                      { o.changed = f }

func (o *told) Status() actuator.Status {
	o.mu.Lock()
	s, taken := actuator.Status{State: o.state}, o.taken
	o.taken = nil
	o.mu.Unlock()
	if taken != nil {
		taken <- struct{}{}
		taken <- struct{}{}
	}
	return s
}

func (o *told) set(state string, taken chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state, o.taken = state, taken
}

// Several may tell of changes at once. What is shown in the end is how it is, whoever of them was the slowest.
func TestShownIsTheLatest(t *testing.T) {
	o := &told{state: agent.Off}
	n := startNode(t, setup{change: func(cfg *agent.Config) { cfg.Outputs[0].Actuator = o }})
	taken := make(chan struct{})
	o.set(agent.On, taken)
	var both sync.WaitGroup
	both.Go(func() { o.changed() })
	<-taken
	o.set(agent.Off, nil)
	last := make(chan struct{})
	both.Go(func() { o.changed(); close(last) })
	select {
	case <-last:
	case <-time.After(50 * time.Millisecond): // as it should, it waits for the first
	}
	<-taken
	both.Wait()
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"off"`))
	if v := n.verdict("operator"); v.State != agent.Off {
		t.Errorf("shown is %s", v.State)
	}
}
