package actuator

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Do decides on a command. The detail says how a rule changed what was asked for, for who commanded; it is empty where
// none did. The error is a RefusedError, and nothing changed. Step tells what the line has to do now.
func (m *Machine) Do(now time.Duration, c Command) (detail string, err error) {
	m.enforce(now)
	if c.Action == Toggle {
		c.Action = On
		if m.Active(now) {
			c.Action = Off
		}
	}
	if rule := m.unsafe(now); rule != "" && (m.rules.ExitOn || c.Action != Off) {
		return "", refused(rule, "the output stays at its exit level")
	}
	p := m.plan(now, c)
	if c.Action == Off {
		p.until = min(m.program.current(now).until, m.permitted(now, c))
		m.program, m.pending, m.rule = p, false, ""
		return joined(m.limitDetail(now), m.offDetail(now)), nil
	}
	if err := m.admit(now, c, &p); err != nil {
		return "", err
	}
	m.begin(now, c, p)
	return m.onDetail(now), nil
}

// plan makes a command a program.
func (m *Machine) plan(now time.Duration, c Command) program {
	level := c.Level
	if level == 0 {
		level = m.last
	}
	switch c.Action {
	case Off:
		if c.Transition > 0 && m.level > 0 {
			return m.ramp(now, 0, c.Transition)
		}
		return steady(0)
	case Pulse:
		return onOff(string(Pulse), now, level, 1, orElse(c.Length, defaultPulse))
	case Blink:
		half := orElse(c.Period, defaultPeriod) / 2
		return onOff(string(Blink), now, level, c.Count, half, half)
	case Effect:
		lengths, _ := pattern(c.Pattern)
		return onOff(c.Pattern, now, level, c.Count, lengths...)
	case Flash:
		half := defaultPeriod / 4
		p := onOff(string(Flash), now, level, max(1, int(orElse(c.Length, defaultFlash)/(2*half))), half, half)
		p.after = m.beneath(now)
		return p
	default:
		if c.Transition > 0 {
			return m.ramp(now, level, c.Transition)
		}
		return steady(level)
	}
}

// ramp leads from the level of the line to another.
func (m *Machine) ramp(now time.Duration, to uint8, length time.Duration) program {
	p := program{start: now, segments: []segment{{m.level, to, length}}, times: 1, end: to, level: to, until: never}
	if to == 0 {
		p.level = m.level
	}
	return p
}

func orElse(length, otherwise time.Duration) time.Duration {
	if length == 0 {
		return otherwise
	}
	return length
}

// beneath is what a flash interrupts, another flash left out.
func (m *Machine) beneath(now time.Duration) *program {
	p := *m.program.current(now)
	if p.after != nil {
		p = *p.after
	}
	return &p
}

// admit asks the rules whether a program that switches on may begin.
func (m *Machine) admit(now time.Duration, c Command, p *program) error {
	if m.rules.Hold > 0 && !c.Signed {
		return refused(RuleHold, "only a signed command whose age is known may switch it on")
	}
	if err := m.admitPhases(c, p); err != nil {
		return err
	}
	if at, rule := m.switchable(now); at > now && !m.Active(now) {
		return refused(rule, "it may be switched on in %s", inSeconds(at-now))
	}
	if holder, ok := m.rules.Lock.take(m, m.name); !ok {
		return refused(RuleInterlock, "%s is on", holder)
	}
	return nil
}

// admitPhases refuses patterns that are faster than the rules allow.
func (m *Machine) admitPhases(c Command, p *program) error {
	if c.Action != Blink && c.Action != Effect && c.Action != Flash {
		return nil
	}
	on, off, ons := p.phases()
	switch {
	case on < m.rules.MinOn:
		return refused(RuleMinOn, "this is on for only %s at a time", inSeconds(on))
	case off < m.rules.MinOff:
		return refused(RuleMinOff, "this is off for only %s at a time", inSeconds(off))
	case m.rules.Switches == 0:
		return nil
	}
	cycles := int(m.rules.Window/p.cycle()) + 1
	if p.times > 0 {
		cycles = min(cycles, p.times)
	}
	if cycles*ons > m.rules.Switches {
		return refused(RuleSwitches, "this switches more than %d times in %s", m.rules.Switches, inSeconds(m.rules.Window))
	}
	return nil
}

func (m *Machine) begin(now time.Duration, c Command, p program) {
	if !m.Active(now) {
		m.since = now
	}
	p.until = m.permitted(now, c)
	m.program, m.pending, m.overruled, m.rule = p, false, false, ""
	if c.Level > 0 {
		m.last = c.Level
	}
	m.renewed = now // it is signed where that matters: admit saw to it
}

// permitted is the end of what a command starts or leaves on, by the permit of who gives it: that neither shortens what
// others had asked for, nor is it lengthened by repeating the command.
func (m *Machine) permitted(now time.Duration, c Command) time.Duration {
	if c.MaxOn == 0 {
		return never
	}
	least := now
	if m.level > 0 && !m.overruled {
		least = m.onAt + m.rules.MinOn
	}
	return max(m.since+c.MaxOn, m.program.current(now).granted(least))
}

// onDetail words how the rules will change what has just begun.
func (m *Machine) onDetail(now time.Duration) string {
	var details []string
	if m.level == 0 {
		if at, rule := m.switchable(now); at > now {
			details = append(details, fmt.Sprintf("delayed by %s by %s", inSeconds(at-now), rule))
		}
	}
	details = append(details, m.limitDetail(now))
	over := m.program.over()
	if least := m.leastEnd(now); over < least {
		details = append(details, fmt.Sprintf("lengthened to %s by %s", inSeconds(least-now), RuleMinOn))
	}
	if m.rules.Hold > 0 && now+m.rules.Hold < over {
		details = append(details, fmt.Sprintf("off after %s without another command, by %s", inSeconds(m.rules.Hold), RuleHold))
	}
	return joined(details...)
}

// joined leaves out what is empty.
func joined(details ...string) string {
	return strings.Join(slices.DeleteFunc(details, func(detail string) bool { return detail == "" }), "; ")
}

// limitDetail words which rule will end what has just begun.
func (m *Machine) limitDetail(now time.Duration) string {
	end, rule := m.end(now)
	if rule == RulePermit {
		rule = "the permit's max_on"
	}
	if end >= m.program.over() {
		return ""
	}
	return fmt.Sprintf("limited to %s by %s", inSeconds(end-now), rule)
}

// leastEnd is how long MinOn keeps the line on that is on, or is going on now.
func (m *Machine) leastEnd(now time.Duration) time.Duration {
	end, _ := m.limit(now)
	if m.level > 0 {
		return min(end, m.onAt+m.rules.MinOn)
	}
	return min(end, now+m.rules.MinOn)
}

// offDetail words why the line does not go off at once.
func (m *Machine) offDetail(now time.Duration) string {
	if least := m.leastEnd(now); m.level > 0 && !m.overruled && now < least && m.program.over() < least {
		return fmt.Sprintf("delayed by %s by %s", inSeconds(least-now), RuleMinOn)
	}
	return ""
}
