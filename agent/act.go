package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"pinseal/agent/actuator"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// output is an Output at work.
type output struct {
	name      string
	actuator  Actuator
	dims      bool
	lane      *lane
	plain     actions // what unsigned commands may ask for
	plainRate *rate.Limiter
	pressed   *route // of actions from inside the node

	looking       sync.Mutex // at the actuator, for shown
	shown         atomic.Pointer[actuator.Status]
	state, status shown
}

func (o *output) stateNow() string { return o.shown.Load().State }

// shown is a retained message that follows what it shows.
type shown struct {
	topic   string
	payload func() []byte

	mu         sync.Mutex
	publishing bool // it is on its way to the broker
	changed    bool // and has been overtaken
}

// actOnCommands takes steps 11 to 13, in the order the commands were accepted in.
func (a *Agent) actOnCommands(o *output) {
	for commands := o.lane.accepted.take(); commands != nil; commands = o.lane.accepted.take() {
		for _, c := range commands {
			a.act(o, c)
		}
	}
}

func (a *Agent) act(o *output, c *command) {
	if c.commit != nil {
		if err := c.commit.Wait(); err != nil {
			a.refuse(c.job, c.id, signing.Refuse(signing.ReasonHardware,
				"not acted on, because it could not be recorded: %v", err))
			return
		}
	}
	c.passed(stepRecorded)
	if id, err := a.repermit(o, c); err != nil {
		a.refuse(c.job, id, err)
		return
	}
	if err := a.stillFresh(c); err != nil {
		a.refuse(c.job, c.id, err)
		return
	}
	detail, err := o.actuator.Do(c.command)
	if ruled, ok := errors.AsType[*actuator.RefusedError](err); ok {
		a.refuse(c.job, c.id, signing.Refuse(signing.ReasonNotPermitted, "%v", ruled))
		return
	}
	if err != nil {
		a.refuse(c.job, c.id, signing.Refuse(signing.ReasonHardware, "driving the line: %v", err))
		return
	}
	c.passed(stepActed)
	a.note(c.job, c.id, nil)
	a.answer(c.job, c.id, signing.ReasonApplied, detail)
	c.passed(stepVerdict)
	a.finish(c.job)
}

// repermit repeats steps 3 and 7 if the policy has changed since the command was accepted, which may be a while: it waited
// for the disk and for the commands before it. An error comes with whom to answer.
func (a *Agent) repermit(o *output, c *command) (ident, error) {
	p := a.policy.Load()
	if p == c.policy || c.route.plain {
		return c.id, nil
	}
	if err := c.renew(p); err != nil {
		return ident{}, err
	}
	c.id = c.ident()
	return c.id, c.permit(o, p.permits[permitKey{c.id.signer, o.name}], c.id.signer)
}

// stillFresh repeats step 8 for a command that was fresh, and has waited since for the disk or for the commands before it.
func (a *Agent) stillFresh(c *command) error {
	const notAtAll = time.Second
	if c.fresh.IsZero() || a.cfg.Clock.Now().Sub(c.fresh) < notAtAll {
		return nil
	}
	return a.checkCommandFresh(c.job)
}

// follow publishes what an output shows whenever it changes.
func (a *Agent) follow(o *output) {
	look := func() (was, is actuator.Status) {
		o.looking.Lock() // or who was overtaken would show what has passed
		defer o.looking.Unlock()
		is = o.actuator.Status()
		if old := o.shown.Swap(&is); old != nil {
			was = *old
		}
		return was, is
	}
	look()
	o.actuator.Watch(func() {
		was, is := look()
		if was.State != is.State {
			a.publishShown(&o.state)
		}
		a.publishShown(&o.status)
	})
}

// publishShown publishes at once or, if something is still on its way, when that has arrived: then only the latest
// matters.
func (a *Agent) publishShown(s *shown) {
	s.mu.Lock()
	wait := s.publishing
	s.changed, s.publishing = wait, true
	s.mu.Unlock()
	if !wait {
		a.sendShown(s)
	}
}

func (a *Agent) sendShown(s *shown) {
	payload, err := a.veil(s.topic, s.payload())
	if err != nil {
		a.cfg.Log.Error("cannot encrypt what an output shows", "topic", s.topic, "error", err)
		s.mu.Lock()
		s.publishing = false
		s.mu.Unlock()
		return
	}
	m := mqtt.Message{Topic: s.topic, Payload: payload, QoS: 1, Retained: true}
	a.client.PublishAsync(m, func(err error) {
		s.mu.Lock()
		again := s.changed && err == nil
		s.changed, s.publishing = false, again
		s.mu.Unlock()
		if again {
			a.sendShown(s)
		}
	})
}

// publishReading publishes the plain value of accepted telemetry. What stays encrypted is answered with a verdict.
func (a *Agent) publishReading(j *job, id ident) {
	a.stats.telemetry.Add(1)
	if j.value == nil {
		j.passed(stepActed)
		a.acknowledge(j, id)
		a.answer(j, id, signing.ReasonApplied, "")
		return
	}
	topic, _ := VerifiedTopic(j.topic)
	a.client.PublishAsync(mqtt.Message{Topic: topic, Payload: plainValue(j.value), QoS: min(j.qos, 1)}, func(err error) {
		if err == nil { // only now it cannot be lost here any more
			a.acknowledge(j, id)
		}
	})
	j.passed(stepActed)
}

// plainValue is a JSON value for software that expects none: compact, a string without its quotes.
func plainValue(msg []byte) []byte {
	if msg[0] == '"' {
		var s string
		if err := json.Unmarshal(msg, &s); err == nil {
			return []byte(s)
		}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, msg); err != nil {
		return msg // cannot be: the message was parsed
	}
	return compact.Bytes()
}
