package main

import (
	"slices"
	"strings"
	"time"

	"pinseal/agent/actuator"
)

// outputConfig is an [[output]]: what it drives, who commands it, and the rules that win over every command.
type outputConfig struct {
	Name      name   `toml:"name"`
	Line      string `toml:"line"`
	ActiveLow bool   `toml:"active_low"`
	Initial   onOff  `toml:"initial"`
	Exit      onOff  `toml:"exit"`

	PWM          pwmChannel `toml:"pwm"` // empty: off and on only
	PWMFrequency hertz      `toml:"pwm_frequency"`

	Topic        topicName `toml:"topic"`
	PlainTopic   topicName `toml:"plain_topic"`
	PlainActions []action  `toml:"plain_actions"`
	PlainRate    perSecond `toml:"plain_rate"`
	PlainBurst   limit     `toml:"plain_burst"`

	Restore      positiveLength `toml:"restore"` // how old a state may be that is restored; 0: none is
	MaxOn        positiveLength `toml:"max_on"`
	MinOn        positiveLength `toml:"min_on"`
	MinOff       positiveLength `toml:"min_off"`
	MaxSwitches  limit          `toml:"max_switches"`
	SwitchWindow positiveLength `toml:"switch_window"`
	Interlock    name           `toml:"interlock"` // a group of which at most one is on
	Hold         positiveLength `toml:"hold"`
	BrokerLost   positiveLength `toml:"broker_lost"`
}

// defaultSwitchWindow is in which max_switches counts.
const defaultSwitchWindow = time.Minute

// rules are the output's safety rules; lock is its group's, nil without one.
func (o outputConfig) rules(lock *actuator.Interlock) actuator.Rules {
	r := actuator.Rules{
		MaxOn: time.Duration(o.MaxOn), MinOn: time.Duration(o.MinOn), MinOff: time.Duration(o.MinOff),
		Switches: int(o.MaxSwitches), Window: time.Duration(o.SwitchWindow),
		Hold: time.Duration(o.Hold), Lost: time.Duration(o.BrokerLost), ExitOn: bool(o.Exit), Lock: lock,
	}
	if r.Switches > 0 && r.Window == 0 {
		r.Window = defaultSwitchWindow
	}
	return r
}

func (c *config) checkOutputs(data []byte) error {
	names, topics, lines := map[name]bool{}, map[topicName]bool{}, map[string]bool{}
	for i, o := range c.Outputs {
		here := func(key string) place { return place{"output", i, key} }
		switch {
		case o.Name == "":
			return at(data, here("name"), "an output needs a name")
		case names[o.Name]:
			return at(data, here("name"), "two outputs are named %q", o.Name)
		case o.Line == "" && !o.PWM.hardware():
			return at(data, here("line"), "output %q needs a line, such as \"GPIO17\"", o.Name)
		case o.Line != "" && o.PWM.hardware():
			return at(data, here("line"), "output %q has a PWM channel; its pin is chosen by the device tree, not as a line", o.Name)
		case o.PWMFrequency > 0 && o.PWM == "":
			return at(data, here("pwm_frequency"), "pwm_frequency goes with pwm")
		case lines[o.where()]:
			return at(data, here("line"), "two outputs use the line %q", o.where())
		}
		names[o.Name], lines[o.where()] = true, true
		if err := c.checkSafety(data, i); err != nil {
			return err
		}
		for key, topic := range map[string]topicName{"topic": o.Topic, "plain_topic": o.PlainTopic} {
			switch {
			case topic == "":
				continue
			case topics[topic]:
				return at(data, here(key), "the topic %q is used twice", topic)
			case strings.HasPrefix(string(topic), "pinseal/"):
				return at(data, here(key), "topics under pinseal/ are the node's own")
			}
			topics[topic] = true
		}
	}
	return nil
}

// checkSafety wants rules that can hold together.
func (c *config) checkSafety(data []byte, i int) error {
	o := c.Outputs[i]
	here := func(key string) place { return place{"output", i, key} }
	var lock *actuator.Interlock
	if o.Interlock != "" {
		lock = new(actuator.Interlock)
	}
	err := o.rules(lock).Check(bool(o.Initial))
	alone := !slices.ContainsFunc(c.Outputs, func(other outputConfig) bool { return other.Name != o.Name && other.Interlock == o.Interlock })
	switch {
	case err != nil:
		return at(data, here("name"), "output %q: %w", o.Name, err)
	case lock != nil && alone:
		return at(data, here("interlock"), "no other output is in the group %q", o.Interlock)
	case o.SwitchWindow > 0 && o.MaxSwitches == 0:
		return at(data, here("switch_window"), "switch_window goes with max_switches")
	case o.Restore > 0 && (o.Hold > 0 || bool(o.Initial)):
		return at(data, here("restore"), "with hold, or with initial = \"on\", there is nothing to restore")
	case o.PlainTopic == "" && (len(o.PlainActions) > 0 || o.PlainRate > 0 || o.PlainBurst > 0):
		return at(data, here("plain_actions"), "there is no plain_topic for it")
	}
	return nil
}
