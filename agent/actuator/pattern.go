package actuator

import (
	"math"
	"time"
)

// never is later than anything that happens.
const never = time.Duration(math.MaxInt64)

// EffectOff is the effect that is none, as Home Assistant calls it: steadily on.
const EffectOff = "off"

// Patterns lists the effects by their names: what [Effect] can play. [Blink] is apart, for it has a period.
func Patterns() []string { return []string{"heartbeat", "sos"} }

// The heart of an adult at rest, and Morse code at ten words a minute (ITU-R M.1677-1: a dash is three dots, between
// signs one dot, between letters three, between words seven).
const (
	beat = 70 * time.Millisecond
	dot  = 120 * time.Millisecond
)

// pattern gives a named pattern: lengths of on and off in turn.
func pattern(name string) ([]time.Duration, bool) {
	switch name {
	case "heartbeat":
		return []time.Duration{beat, 2 * beat, beat, 10 * beat}, true
	case "sos":
		return []time.Duration{
			dot, dot, dot, dot, dot, 3 * dot,
			3 * dot, dot, 3 * dot, dot, 3 * dot, 3 * dot,
			dot, dot, dot, dot, dot, 7 * dot,
		}, true
	}
	return nil, false
}

// segment is a straight line from one level to another.
type segment struct {
	from, to uint8
	length   time.Duration
}

// rampStep is how often a transition moves at most: 50 times a second looks smooth.
const rampStep = 20 * time.Millisecond

// program is what an output does from its start on: segments one after the other, all of them several times, and then a
// level for ever.
type program struct {
	name     string // of the effect, as states show it; empty for none
	start    time.Duration
	segments []segment
	times    int           // 0: for ever
	end      uint8         // the level afterwards
	level    uint8         // what it is on at, as states show it
	until    time.Duration // the end by the permits of who commanded it; never without one
	after    *program
}

// steady is on at a level, or off.
func steady(level uint8) program { return program{end: level, level: level, until: never} }

// onOff plays lengths of on and off in turn.
func onOff(name string, start time.Duration, level uint8, times int, lengths ...time.Duration) program {
	p := program{name: name, start: start, times: times, level: level, until: never}
	for i, length := range lengths {
		at := level
		if i%2 == 1 {
			at = 0
		}
		p.segments = append(p.segments, segment{at, at, length})
	}
	return p
}

func (p *program) cycle() (length time.Duration) {
	for _, s := range p.segments {
		length += s.length
	}
	return length
}

// ends says when the program is through and keeps its level.
func (p *program) ends() time.Duration {
	switch {
	case len(p.segments) == 0:
		return p.start
	case p.times == 0:
		return never
	}
	return p.start + time.Duration(p.times)*p.cycle()
}

// current is the program that counts at a time: what a flash interrupted goes on after it.
func (p *program) current(now time.Duration) *program {
	if p.after != nil && now >= p.ends() {
		return p.after.current(now)
	}
	return p
}

// over is when the output is off for good; never where it stays on.
func (p *program) over() time.Duration {
	switch {
	case p.after != nil:
		return max(p.ends(), p.after.over())
	case p.end > 0:
		return never
	}
	return p.ends()
}

// granted is until when it was permitted and asked to be on, if least is what MinOn makes of it.
func (p *program) granted(least time.Duration) time.Duration {
	if p.after != nil {
		return max(min(p.ends(), p.until), p.after.granted(0))
	}
	return min(max(p.over(), least), p.until)
}

// active says whether the output is on, or will be on again by itself.
func (p *program) active(now time.Duration) bool { return now < p.over() }

// at gives the level at a time, and when it changes next.
func (p *program) at(now time.Duration) (level uint8, next time.Duration) {
	p = p.current(now)
	end := p.ends()
	if now >= end {
		return p.end, never
	}
	began := now - (now-p.start)%p.cycle()
	for _, s := range p.segments {
		if now < began+s.length {
			return s.at(now, began)
		}
		began += s.length
	}
	return p.end, end // cannot be: a cycle is as long as its segments
}

func (s segment) at(now, began time.Duration) (level uint8, next time.Duration) {
	distance := int64(s.to) - int64(s.from)
	if distance == 0 {
		return s.from, began + s.length
	}
	step := max(rampStep, s.length/time.Duration(max(distance, -distance)))
	gone := (now - began) - (now-began)%step
	level = uint8(int64(s.from) + distance*int64(gone/time.Microsecond)/int64(max(s.length/time.Microsecond, 1))) //nolint:gosec // between from and to
	return level, min(began+gone+step, began+s.length)
}

// phases gives the shortest on and the shortest off, and how often it goes on in a cycle. A transition has none.
func (p *program) phases() (on, off time.Duration, ons int) {
	on, off = never, never
	for _, s := range p.segments {
		switch {
		case s.from != s.to:
		case s.to == 0:
			off = min(off, s.length)
		default:
			on = min(on, s.length)
			ons++
		}
	}
	return on, off, ons
}
