package agent

import (
	"bytes"
	"encoding/json"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// output is an Output at work.
type output struct {
	name, stateTopic string
	line             Line
	lane             *lane
	plainRate        *rate.Limiter
	pressed          *route      // of actions from inside the node
	on               atomic.Bool // what the line is driven to

	mu         sync.Mutex
	publishing bool // a state is on its way to the broker
	changed    bool // and has been overtaken
}

func (o *output) state() string {
	if o.on.Load() {
		return On
	}
	return Off
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
	c.passed(stepRecorded, "")
	on := c.action == actionOn || c.action == actionToggle && !o.line.On()
	err := o.line.Set(on)
	if now := o.line.On(); o.on.Swap(now) != now {
		a.publishState(o)
	}
	if err != nil {
		a.refuse(c.job, c.id, signing.Refuse(signing.ReasonHardware, "driving the line: %v", err))
		return
	}
	c.passed(stepActed, "%s is %s", o.name, o.state())
	a.note(c.job, c.id, nil)
	a.answer(c.job, c.id, signing.ReasonApplied, "")
	c.passed(stepVerdict, "%s, to %s", signing.ReasonApplied, VerdictTopic(a.cfg.Node, c.id.signer))
	a.finish(c.job)
}

// publishState publishes the state of an output, at once or, if a state is still on its way, when that has arrived:
// then only the latest matters.
func (a *Agent) publishState(o *output) {
	o.mu.Lock()
	wait := o.publishing
	o.changed, o.publishing = wait, true
	o.mu.Unlock()
	if !wait {
		a.sendState(o)
	}
}

func (a *Agent) sendState(o *output) {
	m := mqtt.Message{Topic: o.stateTopic, Payload: []byte(o.state()), QoS: 1, Retained: true}
	a.client.PublishAsync(m, func(err error) {
		o.mu.Lock()
		again := o.changed && err == nil
		o.changed, o.publishing = false, again
		o.mu.Unlock()
		if again {
			a.sendState(o)
		}
	})
}

// publishVerified publishes the plain value of accepted telemetry.
func (a *Agent) publishVerified(j *job) {
	topic, _ := VerifiedTopic(j.topic)
	a.client.PublishAsync(mqtt.Message{Topic: topic, Payload: plainValue(j.message.JSON()), QoS: min(j.qos, 1)}, nil)
	a.stats.telemetry.Add(1)
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
