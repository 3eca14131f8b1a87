package agent

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"pinseal/agent/actuator"
	"pinseal/agent/outbox"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// Report seals msg, a JSON value, as this node's telemetry on [TelemetryTopic]; by an [EncryptionRule] it is encrypted
// first. With a [Config].Receiver it goes into the outbox, and Report returns when it is kept there. Otherwise it is
// handed to the broker, with its plain value on the verified topic, unless it is encrypted: nobody else verifies what
// the node itself says on its own broker. Report does not wait for any broker; an error says that the report is lost.
func (a *Agent) Report(measure string, msg []byte) error {
	if err := a.report(TelemetryTopic(a.cfg.Node, measure), msg); err != nil {
		return fmt.Errorf("reporting %s: %w", measure, err)
	}
	return nil
}

func (a *Agent) report(topic string, msg []byte) error {
	a.reporting.Lock() // the numbers of a topic ascend as they are sent
	defer a.reporting.Unlock()
	now := a.cfg.Clock.Now()
	number, err := a.reportNumbers.take(now)
	if err != nil {
		return err
	}
	c := signing.Claims{Topic: topic, IssuedAt: now, Sequence: number, Message: msg}
	if a.remote != nil {
		sealed, err := a.seal(c)
		if err != nil {
			return err
		}
		return a.remote.outbox.Put(outbox.Message{Topic: topic, Number: number, Sealed: sealed})
	}
	if err := a.publishSealed(c, false, nil); err != nil {
		return err
	}
	if !a.policy.Load().shows(topic) {
		return nil
	}
	verified, _ := VerifiedTopic(topic)
	a.publishReport(topic, mqtt.Message{Topic: verified, Payload: plainValue(msg), QoS: 1})
	return nil
}

// reportStock is how many numbers a stock has. At a report a second the file behind the sequence is written every 17
// minutes, and what a crash leaves unused is nothing of 2^53.
const reportStock = 1024

// stock gives the numbers of a sequence one by one, and takes them from it many at a time.
type stock struct {
	from Sequence

	mu        sync.Mutex
	next, end uint64
}

func (s *stock) take(now time.Time) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == s.end {
		first, err := s.from.Reserve(now, reportStock)
		if err != nil {
			return 0, err
		}
		s.next, s.end = first, first+reportStock
	}
	s.next++
	return s.next - 1, nil
}

// ErrBusy is what an action from inside the node gets while as many wait for that output as may. It can be tried again.
var ErrBusy = errors.New("too many actions of the output are under way")

// errStopping is what an action from inside the node gets once commands are no longer taken.
var errStopping = errors.New("the node is stopping")

// Press does an action, a word that actuator.ParseWord knows, on an output from inside the node, as an input that
// is bound to it does: in one order with its commands and by its rules, unsigned, without a verdict, and without a
// broker. It does not wait; what becomes of it is in the log and the state. An error says that it was not even tried:
// ErrBusy, or another that will be the same the next time.
func (a *Agent) Press(input, output, action string) error {
	o, ok := a.outputs[output]
	if !ok {
		return fmt.Errorf("no output is named %q", output)
	}
	act, err := actuator.ParseWord(action)
	if err != nil {
		return fmt.Errorf("no action is named %q", action)
	}
	if a.stopping.Load() {
		return errStopping
	}
	j := &job{
		topic: "input " + input, ack: func() {}, route: o.pressed, policy: a.policy.Load(), verified: make(chan struct{}),
	}
	if !a.verifier.admit(&o.pressed.queue, j) {
		return ErrBusy
	}
	o.lane.accepted.put(&command{job: j, command: act})
	return nil
}
