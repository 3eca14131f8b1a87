package actuator

import (
	"slices"
	"time"
)

// Machine decides what the line of one output does. Times are from an origin that the caller chooses, and must not go
// backwards: a monotonic clock's. It is not safe for concurrent use.
type Machine struct {
	name    string
	rules   Rules
	program program
	since   time.Duration // when it left off, while it is active
	renewed time.Duration // the last command that counts for Hold
	last    uint8         // the level of the last on
	pending bool          // is to be switched on as soon as the rules allow: the state before a restart

	rule      string        // that decided last, for the status; empty: a command did
	overruled bool          // a rule ended what ran: MinOn no longer counts
	downSince time.Duration // since when the broker is away; never: it is there
	starved   bool          // the node's watchdog is

	level    uint8 // of the line
	onAt     time.Duration
	offAt    time.Duration
	switches []time.Duration // the latest times of going on, at most Rules.Switches
}

// NewMachine makes the machine of an output whose line is on or off from now on, as far as anybody knows. The broker
// counts as away until Online says otherwise.
func NewMachine(name string, rules Rules, now time.Duration, on bool) *Machine {
	m := &Machine{name: name, rules: rules, last: MaxLevel, offAt: now, onAt: now, since: now, downSince: now, renewed: now, program: steady(0)}
	if on {
		m.program, m.level = steady(MaxLevel), MaxLevel
		rules.Lock.take(m, name)
	}
	return m
}

// Active says whether the output is on, or will be again without a further command.
func (m *Machine) Active(now time.Duration) bool { return m.level > 0 || m.program.active(now) }

// Step says at what level the line must be now, and when to ask again at the latest. What the line did then is told by
// Driven.
func (m *Machine) Step(now time.Duration) (level uint8, next time.Duration) {
	m.enforce(now)
	m.resume(now)
	m.unlock(now)
	want, next := m.program.at(now)
	level, next = m.confine(now, want, next)
	return level, min(next, m.nextRule(now))
}

// Driven tells at what level the line is since now.
func (m *Machine) Driven(now time.Duration, level uint8) {
	switch {
	case level > 0 && m.level == 0:
		m.onAt = now
		if m.rules.Switches > 0 {
			m.switches = append(m.switches, now)
			m.switches = slices.Delete(m.switches, 0, max(0, len(m.switches)-m.rules.Switches))
		}
	case level == 0 && m.level > 0:
		m.offAt = now
	}
	m.level = level
	m.unlock(now)
}

// unlock lets others of the group be on, unless this output is or will be.
func (m *Machine) unlock(now time.Duration) {
	if !m.Active(now) && !m.pending {
		m.rules.Lock.release(m)
	}
}

// Abandon forgets what runs, because the line does not do it. It is to be off.
func (m *Machine) Abandon(now time.Duration) {
	m.program, m.overruled = steady(0), true
	m.Driven(now, m.level)
}

// Online tells whether the broker can be heard.
func (m *Machine) Online(now time.Duration, up bool) {
	switch {
	case up:
		m.downSince = never
	case m.downSince == never:
		m.downSince = now
	}
}

// Healthy tells whether the node's watchdog is fed.
func (m *Machine) Healthy(ok bool) { m.starved = !ok }

// unsafe names the rule that demands the exit level.
func (m *Machine) unsafe(now time.Duration) string {
	switch {
	case m.starved:
		return RuleWatchdog
	case m.rules.Lost > 0 && m.downSince != never && now >= m.downSince+m.rules.Lost:
		return RuleLost
	}
	return ""
}

// enforce puts an end to what a rule forbids by now.
func (m *Machine) enforce(now time.Duration) {
	if rule := m.unsafe(now); rule != "" {
		m.overrule(rule)
		if m.rules.ExitOn {
			m.program, m.since, m.overruled = steady(MaxLevel), now, false
		}
		return
	}
	if !m.Active(now) {
		return
	}
	if end, rule := m.limit(now); now >= end {
		m.overrule(rule)
	}
}

func (m *Machine) overrule(rule string) {
	m.program, m.pending, m.overruled, m.rule = steady(0), false, true, rule
}

// limit is when the output must go off at the latest, while it is active, and by which rule.
func (m *Machine) limit(now time.Duration) (end time.Duration, rule string) {
	end, rule = m.end(now)
	if hold := m.renewed + m.rules.Hold; m.rules.Hold > 0 && hold < end {
		return hold, RuleHold
	}
	return end, rule
}

// end is limit but for Hold, which can be renewed.
func (m *Machine) end(now time.Duration) (end time.Duration, rule string) {
	end, rule = m.program.current(now).until, RulePermit
	if maxOn := m.since + m.rules.MaxOn; m.rules.MaxOn > 0 && maxOn <= end {
		return maxOn, RuleMaxOn
	}
	return end, rule
}

// confine bends what the program wants to what the line may do now.
func (m *Machine) confine(now time.Duration, want uint8, next time.Duration) (level uint8, again time.Duration) {
	if want == 0 && m.level > 0 && !m.overruled && now < m.onAt+m.rules.MinOn {
		return m.level, min(next, m.onAt+m.rules.MinOn)
	}
	if want > 0 && m.level == 0 {
		if at, _ := m.switchable(now); at > now {
			return 0, min(next, at)
		}
	}
	return want, next
}

// switchable says when the line may go on at the earliest, and which rule keeps it off until then.
func (m *Machine) switchable(now time.Duration) (at time.Duration, rule string) {
	at = now
	if end := m.offAt + m.rules.MinOff; m.rules.MinOff > 0 && end > at {
		at, rule = end, RuleMinOff
	}
	if len(m.switches) < m.rules.Switches || m.rules.Switches == 0 {
		return at, rule
	}
	if end := m.switches[0] + m.rules.Window; end > at {
		at, rule = end, RuleSwitches
	}
	return at, rule
}

// nextRule is when a rule may have something to say.
func (m *Machine) nextRule(now time.Duration) time.Duration {
	next := never
	if m.unsafe(now) != "" {
		return next
	}
	if m.rules.Lost > 0 && m.downSince != never {
		next = m.downSince + m.rules.Lost
	}
	if m.Active(now) {
		end, _ := m.limit(now)
		next = min(next, end)
	}
	if m.pending {
		at, _ := m.switchable(now)
		next = min(next, at)
	}
	return next
}
