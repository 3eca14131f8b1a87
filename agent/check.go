package agent

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/time/rate"

	"pinseal/agent/actuator"
	"pinseal/signing"
)

func (cfg *Config) check() error {
	switch {
	case !validName(cfg.Node):
		return fmt.Errorf("%q is not a name for a node", cfg.Node)
	case cfg.Key == nil, cfg.Sequence == nil:
		return errors.New("the node needs a key and a sequence to seal with")
	case cfg.Replay == nil:
		return errors.New("the node needs a replay database")
	case cfg.TimeFrom != "" && cfg.TellTime == nil:
		return errors.New("there is somebody to ask for the time, and no clock to be told it")
	case (cfg.Receiver == "") != (cfg.Outbox == nil):
		return errors.New("an outbox and whom it is for go together")
	case cfg.Clock == nil:
		return errors.New("the node needs a clock")
	}
	return cfg.Discovery.check()
}

// validName is the rule for the names of identities, nodes and outputs.
func validName(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) < 0
}

func (a *Agent) addOutputs() error {
	for _, cfg := range a.cfg.Outputs {
		switch {
		case !validName(cfg.Name) || cfg.Name == "verdict": // pinseal/<node>/verdict/set would be a verdict
			return fmt.Errorf("%q is not a name for an output", cfg.Name)
		case a.outputs[cfg.Name] != nil:
			return fmt.Errorf("there are two outputs %s", cfg.Name)
		case cfg.Actuator == nil:
			return fmt.Errorf("the output %s has no actuator", cfg.Name)
		case !(cfg.PlainRate >= 0) || cfg.PlainBurst < 0:
			return fmt.Errorf("the output %s has a negative rate of unsigned commands", cfg.Name)
		}
		o := newOutput(a.cfg.Node, cfg)
		a.outputs[cfg.Name] = o
		if err := errors.Join(
			o.permitPlain(cfg.PlainActions),
			a.addTopic(cfg.Topic, o, false),
			a.addTopic(SetTopic(a.cfg.Node, cfg.Name), o, false),
			a.addTopic(cfg.PlainTopic, o, true),
		); err != nil {
			return err
		}
	}
	return nil
}

func newOutput(node string, cfg Output) *output {
	o := &output{
		name: cfg.Name, actuator: cfg.Actuator, dims: cfg.Dims,
		lane:  &lane{in: newFIFO[*job](), accepted: newFIFO[*command]()},
		plain: make(actions), plainRate: rate.NewLimiter(defaultPlainRate, defaultPlainBurst),
	}
	if cfg.PlainRate > 0 {
		o.plainRate.SetLimit(rate.Limit(cfg.PlainRate))
	}
	if cfg.PlainBurst > 0 {
		o.plainRate.SetBurst(cfg.PlainBurst)
	}
	o.pressed = &route{output: o, plain: true}
	o.state.topic, o.state.payload = StateTopic(node, cfg.Name), func() []byte { return []byte(o.stateNow()) }
	o.status.topic, o.status.payload = StatusTopic(node, cfg.Name), func() []byte { return o.shown.Load().JSON() }
	return o
}

func (o *output) permitPlain(given []actuator.Action) error {
	if len(given) == 0 {
		given = []actuator.Action{actuator.On, actuator.Off}
	}
	if err := o.plain.add(0, given...); err != nil {
		return fmt.Errorf("the unsigned commands of the output %s have %w", o.name, err)
	}
	return nil
}

func (a *Agent) addTopic(topic string, o *output, plain bool) error {
	switch {
	case topic == "":
		return nil
	case !signing.ValidTopic(topic):
		return fmt.Errorf("the output %s has a topic %q that is none", o.name, topic)
	case strings.HasPrefix(topic, telemetryPrefix), strings.HasPrefix(topic, verifiedPrefix):
		return fmt.Errorf("the output %s has a topic %q that is for telemetry", o.name, topic)
	case topic == a.loopback.topic:
		return fmt.Errorf("the output %s has the topic %q, on which the node hears itself", o.name, topic)
	case a.routes[topic] != nil:
		return fmt.Errorf("the topic %s is used twice", topic)
	}
	a.routes[topic] = &route{output: o, plain: plain}
	return nil
}
