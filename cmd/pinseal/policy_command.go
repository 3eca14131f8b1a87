package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"pinseal/agent/actuator"
	"pinseal/signing"
)

// explainCommand decides as the agent would about a command to an output that has been off for long. The text is one line
// for each action that the command needs, and then the output's rules and the inputs that act on it.
func (c *policyExplainCmd) explainCommand(cfg *config, l layout) (text string, allowed bool, err error) {
	o, ok := cfg.output(c.Topic)
	if !ok {
		return "", false, usageError(withHint(fmt.Errorf("no output is named %q", c.Topic), "the [[output]] blocks of %s name them", cfg.source.path))
	}
	command, needs, err := readWhat(c.What)
	if err != nil {
		return "", false, err
	}
	known, err := c.knowsSigner(l.signers)
	if err != nil {
		return "", false, err
	}
	var lines []string
	allowed = known && !cfg.denies(c.As)
	switch {
	case cfg.denies(c.As):
		lines = append(lines, "no: "+l.revoked(c.As))
	case !known:
		lines = append(lines, fmt.Sprintf("no: %s has no key in %s", c.As, l.signers))
	}
	for _, needed := range needs {
		line, ok := cfg.explainAction(c.As, o, needed)
		lines, allowed = append(lines, line), allowed && ok
	}
	if slices.Contains(needs, actuator.Brightness) && o.PWM == "" {
		lines, allowed = append(lines, fmt.Sprintf("no: %s has no pwm, so that it cannot be dimmed", o.Name)), false
	}
	command.Signed = c.As != ""
	if err := o.rulesRefuse(command); err != nil {
		lines, allowed = append(lines, fmt.Sprintf("no: %v", err)), false
	}
	if rules := o.ruleWords(); len(rules) > 0 {
		lines = append(lines, "whatever is commanded: "+strings.Join(rules, ", "))
	}
	for _, in := range cfg.Inputs {
		if in.Output == o.Name {
			lines = append(lines, fmt.Sprintf("whoever commands, and without any broker: input %q, %s", in.Name, in.Action))
		}
	}
	return strings.Join(lines, "\n"), allowed, nil
}

// rulesRefuse asks the output's rules about a command at a time when nothing but the command itself speaks against it.
func (o outputConfig) rulesRefuse(c actuator.Command) error {
	if c.Action == actuator.Toggle { // may be off
		return nil
	}
	m := actuator.NewMachine(string(o.Name), o.rules(nil), 0, false)
	m.Online(0, true)
	const longAfter = math.MaxInt64 / 2
	_, err := m.Do(longAfter, c)
	return err
}

// knowsSigner says whether a command of c.As can be verified at all. Who gives no name does not sign.
func (c *policyExplainCmd) knowsSigner(signersDir string) (bool, error) {
	if c.As == "" {
		return true, nil
	}
	keyring, err := signing.ReadKeyring(signersDir)
	if err != nil {
		return false, err
	}
	return knows(keyring, c.As), nil
}

// readWhat reads a command, or an action's name, and says which actions it needs.
func readWhat(text string) (c actuator.Command, needs []actuator.Action, err error) {
	if a := actuator.Action(strings.ToLower(text)); slices.Contains(actuator.Actions(), a) {
		switch a {
		case actuator.Effect:
			c.Pattern = actuator.Patterns()[0]
		case actuator.Brightness:
			return actuator.Command{Action: actuator.On, Dims: true}, []actuator.Action{a}, nil
		default:
		}
		c.Action = a
		return c, c.Needs(), nil
	}
	c, err = actuator.Parse(messageJSON([]byte(text)))
	if err != nil {
		return c, nil, usageError(withHint(fmt.Errorf("%q is neither an action nor a command", text), "the actions are %s", strings.Join(strs(actuator.Actions()), ", ")))
	}
	return c, c.Needs(), nil
}

// explainAction says which block lets a signer do something with an output, the most lenient where several do.
func (c *config) explainAction(signer string, o outputConfig, a actuator.Action) (text string, allowed bool) {
	if signer == "" {
		return c.explainUnsigned(o, a)
	}
	var found []int
	for i, p := range c.Permits {
		if string(p.Signer) == signer && p.Output == o.Name && slices.Contains(p.Actions, action(a)) {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return fmt.Sprintf("no: no [[permit]] gives %s the action %q on %s", signer, a, o.Name), false
	}
	best := slices.MaxFunc(found, func(i, j int) int {
		return cmp.Compare(orForever(c.Permits[i].MaxOn), orForever(c.Permits[j].MaxOn))
	})
	limit := ""
	if maxOn := c.Permits[best].MaxOn; maxOn > 0 {
		limit = fmt.Sprintf(", on for at most %s", time.Duration(maxOn))
	}
	line, _ := locate(c.source.data, place{table: "permit", index: best})
	return fmt.Sprintf("yes, %s%s: %s:%d: [[permit]] signer = %q, output = %q", a, limit, c.source.path, line, signer, o.Name), true
}

func (c *config) explainUnsigned(o outputConfig, a actuator.Action) (text string, allowed bool) {
	permitted := o.PlainActions
	if len(permitted) == 0 {
		permitted = []action{action(actuator.On), action(actuator.Off)}
	}
	switch {
	case o.PlainTopic == "":
		return fmt.Sprintf("no: %s has no plain_topic, so that it takes signed commands only", o.Name), false
	case !slices.Contains(permitted, action(a)):
		return fmt.Sprintf("no: the plain_actions of %s do not have %q", o.Name, a), false
	}
	i := slices.IndexFunc(c.Outputs, func(other outputConfig) bool { return other.Name == o.Name })
	line, _ := locate(c.source.data, place{"output", i, "plain_topic"})
	return fmt.Sprintf("yes, %s, by whoever may publish on %s: %s:%d: plain_topic of %s", a, o.PlainTopic, c.source.path, line, o.Name), true
}

// orForever makes lengths comparable of which zero is without an end.
func orForever(d positiveLength) positiveLength {
	if d == 0 {
		return 1<<63 - 1
	}
	return d
}

// ruleWords are the output's safety rules as they are written in the configuration.
func (o outputConfig) ruleWords() (words []string) {
	for _, rule := range []struct {
		name   string
		length positiveLength
	}{
		{actuator.RuleMaxOn, o.MaxOn},
		{actuator.RuleMinOn, o.MinOn},
		{actuator.RuleMinOff, o.MinOff},
		{actuator.RuleHold, o.Hold},
		{actuator.RuleLost, o.BrokerLost},
	} {
		if rule.length > 0 {
			words = append(words, fmt.Sprintf("%s %s", rule.name, time.Duration(rule.length)))
		}
	}
	if o.MaxSwitches > 0 {
		words = append(words, fmt.Sprintf("%s %d in %s", actuator.RuleSwitches, o.MaxSwitches, o.rules(nil).Window))
	}
	if o.Interlock != "" {
		words = append(words, fmt.Sprintf("%s %q", actuator.RuleInterlock, o.Interlock))
	}
	return words
}

// errNoAction: pub and sub are about a topic alone.
var errNoAction = errors.New("pub and sub take a topic and nothing more; a command takes an output and an action")
