package actuator

import (
	"slices"
	"time"
)

// Record is what must outlive a restart. Times are ages at the moment it was made.
type Record struct {
	// On says that the output was steadily on, at Level. What ends by itself is not kept.
	On    bool
	Level uint8
	// OnFor is how long it had been on, Left how long it was still permitted to be; Left is negative without such a limit.
	OnFor, Left time.Duration
	// Switched is how long ago each switching on was that [Rules].Switches still counts, oldest first.
	Switched []time.Duration
}

// Record tells what must outlive a restart.
func (m *Machine) Record(now time.Duration) Record {
	r := Record{Left: -1}
	for _, at := range m.switches {
		r.Switched = append(r.Switched, now-at)
	}
	p := m.beneath(now)
	if p.end == 0 || p.ends() == never || p.until <= now {
		return r
	}
	r.On, r.Level, r.OnFor = true, p.end, now-m.since
	if p.until != never {
		r.Left = p.until - now
	}
	return r
}

// Recall takes over what Switches counted before a restart, elapsed ago. It must come before anything else.
func (m *Machine) Recall(now time.Duration, r Record, elapsed time.Duration) {
	m.switches = nil
	for _, age := range r.Switched {
		m.switches = append(m.switches, now-age-elapsed)
	}
	m.switches = slices.Delete(m.switches, 0, max(0, len(m.switches)-m.rules.Switches))
}

// Resume has the output on again as it was elapsed ago, as soon as the rules allow. It says whether they ever will: not
// where its time was up meanwhile, another of its group is on, or it has been commanded since the start.
func (m *Machine) Resume(now time.Duration, r Record, elapsed time.Duration) bool {
	timeUp := m.rules.MaxOn > 0 && r.OnFor+elapsed >= m.rules.MaxOn || r.Left >= 0 && elapsed >= r.Left
	if !r.On || timeUp || m.Active(now) || m.pending || m.unsafe(now) != "" || m.rules.Hold > 0 {
		return false
	}
	if _, ok := m.rules.Lock.take(m, m.name); !ok {
		return false
	}
	m.pending, m.last = true, r.Level
	m.since = now - elapsed - r.OnFor
	if r.Left >= 0 {
		m.program.until = now + r.Left - elapsed
	}
	return true
}

// resume switches on what waits for it, once it may.
func (m *Machine) resume(now time.Duration) {
	if !m.pending {
		return
	}
	if end, _ := m.end(now); now >= end {
		m.pending = false
		return
	}
	if at, _ := m.switchable(now); at <= now {
		m.pending, m.overruled, m.rule = false, false, ""
		p := steady(m.last)
		p.until = m.program.until
		m.program = p
	}
}
