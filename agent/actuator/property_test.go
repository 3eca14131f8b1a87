package actuator_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/agent/actuator"
)

// sequences is how many random sequences the property test tries; PINSEAL_SEQUENCES=1000000 is the full proof.
const sequences = 20_000

// TestNoRuleIsBroken storms outputs with random commands, restarts, lost brokers and starved watchdogs, and judges what
// their lines did by the rules alone.
func TestNoRuleIsBroken(t *testing.T) {
	count := sequences
	if text := os.Getenv("PINSEAL_SEQUENCES"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	total := tally{}
	for seed := range count {
		s := newStorm(uint64(seed))
		if err := s.run(); err != nil {
			again := newStorm(uint64(seed))
			again.told = true
			t.Fatalf("sequence %d: %v, %v\n%s", seed, err, again.run(), again.story())
		}
		total.add(s.tally)
	}
	t.Logf("%d sequences: %+v", count, total)
	// A storm that nothing comes of would prove nothing.
	for name, n := range map[string]int{
		"applied": total.applied, "refused": total.refused, "limited": total.limited, "restarts": total.restarts,
		"resumed": total.resumed, "edges": total.edges, "unsafe": total.unsafe,
	} {
		if n < count/20 {
			t.Errorf("only %d times %s", n, name)
		}
	}
}

type tally struct{ applied, refused, limited, restarts, resumed, edges, unsafe int }

func (t *tally) add(o tally) {
	t.applied += o.applied
	t.refused += o.refused
	t.limited += o.limited
	t.restarts += o.restarts
	t.resumed += o.resumed
	t.edges += o.edges
	t.unsafe += o.unsafe
}

// storm is one sequence: a few outputs, the first two of which exclude each other now and then.
type storm struct {
	*rand.Rand
	tally
	now     time.Duration
	outputs []*observed
	told    bool // events are to be told: that is most of the work
	events  []string
}

// observed is an output and what an oscilloscope on its line would have seen.
type observed struct {
	name    string
	rules   actuator.Rules
	group   bool
	permit  time.Duration // max_on of a guest, who commands it like everybody else
	machine *actuator.Machine
	next    time.Duration

	level      uint8
	since      time.Duration   // of the last edge
	ons        []time.Duration // times of going on
	renewed    time.Duration   // the last signed command to be on
	asked      time.Duration   // until when somebody without a limit asked for it
	started    time.Duration   // the last restart
	lostSince  time.Duration   // since when the broker is away, -1: it is there
	starved    bool
	turnedDown bool // by a rule, as the status says
	stuck      bool // the line does not obey
	abandoned  bool // it did not since it went on: it goes off as soon as it can
}

func newStorm(seed uint64) *storm {
	s := &storm{Rand: rand.New(rand.NewPCG(seed, 1)), now: time.Hour}
	group := s.chance(2)
	for i := range 2 + s.IntN(2) {
		o := &observed{name: fmt.Sprintf("o%d", i), group: group && i < 2, lostSince: s.now, started: s.now, since: s.now}
		o.rules = s.rules()
		if o.group {
			o.rules.ExitOn = false
		}
		if s.chance(4) {
			o.permit = s.length()
		}
		s.outputs = append(s.outputs, o)
	}
	s.start(s.outputs...)
	return s
}

// chance is true once in n times.
func (s *storm) chance(n int) bool { return s.IntN(n) == 0 }

// length is from milliseconds to a minute, short ones as often as long ones, and some twice.
func (s *storm) length() time.Duration {
	return time.Duration(1+s.IntN(9)) * []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second}[s.IntN(4)]
}

func (s *storm) rules() actuator.Rules {
	for {
		var r actuator.Rules
		for _, rule := range []*time.Duration{&r.MaxOn, &r.MinOn, &r.MinOff, &r.Hold, &r.Lost} {
			if s.chance(3) {
				*rule = s.length()
			}
		}
		if s.chance(3) {
			r.Switches, r.Window = 1+s.IntN(5), s.length()
		}
		r.ExitOn = s.chance(5)
		if r.Check(false) == nil {
			return r
		}
	}
}

// start makes the machines anew, as a process that starts does, with the line off.
func (s *storm) start(outputs ...*observed) {
	lock := new(actuator.Interlock)
	for _, o := range outputs {
		if o.group {
			o.rules.Lock = lock
		}
		o.machine = actuator.NewMachine(o.name, o.rules, s.now, false)
		o.starved, o.lostSince, o.started = false, s.now, s.now
	}
}

// restart ends the process and starts it again after a while: a crash leaves the lines to the unit, which switches them
// off at once. How long it took may not be known.
func (s *storm) restart() error {
	s.restarts++
	var records []actuator.Record
	for _, o := range s.outputs {
		records = append(records, o.machine.Record(s.now))
		o.turnedDown = true // min_on does not hold against the end
		if err := s.drive(o, 0); err != nil {
			return err
		}
	}
	outage, known := s.length(), s.chance(2)
	s.now += outage
	s.note("restart after %v", outage)
	s.start(s.outputs...)
	for i, o := range s.outputs {
		o.stuck = false
		elapsed := outage
		if !known {
			elapsed = 0
		}
		o.machine.Recall(s.now, records[i], elapsed)
		if known && s.chance(2) && o.machine.Resume(s.now, records[i], elapsed) {
			s.resumed++
			s.note("%s resumes", o.name)
		}
	}
	return s.settle()
}

func (s *storm) run() error {
	if err := s.settle(); err != nil {
		return err
	}
	for range 30 {
		if err := s.pass(s.now + s.length()*time.Duration(s.IntN(2))); err != nil {
			return err
		}
		if err := s.happen(); err != nil {
			return err
		}
		if err := s.settle(); err != nil {
			return err
		}
	}
	return nil
}

// happen is something from outside.
func (s *storm) happen() error {
	o := s.outputs[s.IntN(len(s.outputs))]
	switch s.IntN(20) {
	case 0:
		return s.restart()
	case 1:
		o.starved = !o.starved
		s.note("%s starved: %v", o.name, o.starved)
		o.machine.Healthy(!o.starved)
	case 2:
		o.stuck = !o.stuck
		s.note("%s stuck: %v", o.name, o.stuck)
	case 3, 4:
		if o.lostSince < 0 {
			o.lostSince = s.now
		} else {
			o.lostSince = -1
		}
		s.note("%s broker there: %v", o.name, o.lostSince < 0)
		o.machine.Online(s.now, o.lostSince < 0)
	default:
		return s.command(o)
	}
	return nil
}

func (s *storm) command(o *observed) error {
	c := actuator.Command{
		Action: actuator.Actions()[s.IntN(len(actuator.Actions())-1)], Signed: !s.chance(5),
	}
	if s.chance(2) {
		c.MaxOn = o.permit
	}
	if s.chance(3) {
		c.Dims, c.Level = true, uint8(s.IntN(256))
	}
	switch c.Action {
	case actuator.On, actuator.Off:
		c.Transition = s.length() * time.Duration(s.IntN(2))
	case actuator.Blink:
		c.Period, c.Count = max(s.length(), actuator.MinPeriod), s.IntN(4)
	case actuator.Effect:
		c.Pattern, c.Count = actuator.Patterns()[s.IntN(len(actuator.Patterns()))], s.IntN(3)
	case actuator.Pulse:
		c.Length = s.length()
	case actuator.Flash:
		c.Length = max(s.length(), actuator.MinPeriod)
	default:
	}
	wasActive := o.machine.Active(s.now)
	toggledOff := c.Action == actuator.Toggle && wasActive
	detail, err := o.machine.Do(s.now, c)
	s.note("%s %+v: %q, %v", o.name, c, detail, err)
	if ruled, ok := errors.AsType[*actuator.RefusedError](err); ok {
		s.refused++
		if c.Action == actuator.Off && !o.rules.ExitOn || ruled.Rule == "" || ruled.Detail == "" {
			return fmt.Errorf("off was refused, or without a reason: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	s.applied++
	if detail != "" {
		s.limited++
	}
	if c.Action != actuator.Off && !toggledOff && c.Signed {
		o.renewed = s.now
	}
	if !wasActive {
		o.asked = 0
	}
	switch {
	case c.MaxOn > 0 && (c.Action == actuator.Off || toggledOff):
		o.asked = min(o.asked, max(s.now+c.Transition, o.since+o.rules.MinOn))
	case c.MaxOn > 0: // neither takes away nor gives
	case c.Action == actuator.Off, toggledOff:
		o.asked = max(s.now+c.Transition, o.since+o.rules.MinOn)
	case c.Action == actuator.Flash:
		o.asked = max(o.asked, asked(s.now, c))
	default:
		o.asked = max(asked(s.now, c), s.now+o.rules.MinOn)
	}
	return nil
}

// asked is until when a command asks for on.
func asked(now time.Duration, c actuator.Command) time.Duration {
	const forever, sos = math.MaxInt64, 4080 * time.Millisecond
	switch c.Action {
	case actuator.Pulse:
		return now + c.Length
	case actuator.Flash:
		return now + max(c.Length, 500*time.Millisecond) // once at least
	case actuator.Blink:
		if c.Count > 0 {
			return now + time.Duration(c.Count)*c.Period
		}
	case actuator.Effect:
		if c.Count > 0 {
			return now + time.Duration(c.Count)*sos // which is the longer
		}
	default:
	}
	return forever
}

// pass lets time go by until then: every machine is asked whenever it wanted to be.
func (s *storm) pass(until time.Duration) error {
	for {
		at := until
		for _, o := range s.outputs {
			at = min(at, o.next)
		}
		s.now = max(s.now, at)
		if err := s.settle(); err != nil {
			return err
		}
		if at == until {
			return nil
		}
	}
}

// settle does what an actuator does, for all outputs, in any order.
func (s *storm) settle() error {
	for _, i := range s.Perm(len(s.outputs)) {
		o := s.outputs[i]
		level, _ := o.machine.Step(s.now)
		if o.stuck && level != o.level {
			o.machine.Driven(s.now, o.level)
			o.machine.Abandon(s.now)
			o.abandoned = true
			o.next = s.now + time.Second
			continue
		}
		status, _ := o.machine.Status(s.now, true)
		o.turnedDown = status.Rule != "" && status.Rule != actuator.RuleMinOn
		if err := s.drive(o, level); err != nil {
			return err
		}
		again, next := o.machine.Step(s.now)
		if again != level || next <= s.now {
			return fmt.Errorf("%s: %d, then %d, and again at %v", o.name, level, again, next)
		}
		o.next = next
	}
	for _, o := range s.outputs {
		if err := s.judge(o); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

// drive is the line, and judges its edges.
func (s *storm) drive(o *observed, level uint8) error {
	lasted := s.now - o.since
	switch {
	case level > 0 && o.level == 0:
		s.edge(o, level)
		o.abandoned = false
		if lasted < o.rules.MinOff {
			return fmt.Errorf("%s off for only %v", o.name, lasted)
		}
		if n := len(o.ons) - 1 - o.rules.Switches; o.rules.Switches > 0 && n >= 0 && s.now-o.ons[n] < o.rules.Window {
			return fmt.Errorf("%s on too often", o.name)
		}
		for _, other := range s.outputs {
			if o.group && other.group && other != o && other.level > 0 {
				return fmt.Errorf("%s and %s on together", o.name, other.name)
			}
		}
	case level == 0 && o.level > 0:
		s.edge(o, level)
		if lasted < o.rules.MinOn && !o.turnedDown && !o.abandoned {
			return fmt.Errorf("%s on for only %v", o.name, lasted)
		}
	}
	o.level = level
	o.machine.Driven(s.now, level)
	return nil
}

func (s *storm) edge(o *observed, level uint8) {
	s.edges++
	s.note("%s -> %d", o.name, level)
	if level > 0 {
		o.ons = append(o.ons, s.now)
	}
	o.since = s.now
}

// judge looks at what is.
func (s *storm) judge(o *observed) error {
	on, lasted := o.level > 0, s.now-o.since
	unsafe := o.starved || o.rules.Lost > 0 && o.lostSince >= 0 && s.now-o.lostSince >= o.rules.Lost
	if unsafe {
		s.unsafe++
	}
	switch {
	case o.stuck: // only the interlock can hold then
	case unsafe && on != o.rules.ExitOn:
		if !o.rules.ExitOn || !s.mayNotYet(o) {
			return errors.New("not at its exit level")
		}
	case unsafe:
	case on && o.rules.MaxOn > 0 && lasted >= o.rules.MaxOn:
		return fmt.Errorf("on for %v", lasted)
	case on && o.permit > 0 && !o.rules.ExitOn && lasted >= o.permit && s.now >= o.asked && (o.asked < o.since || lasted >= o.rules.MinOn):
		return fmt.Errorf("on for %v although who asked for it may not for longer than %v", lasted, o.permit)
	case on && o.rules.Hold > 0 && s.now-o.renewed >= o.rules.Hold:
		return errors.New("held without a hand")
	}
	return nil
}

// mayNotYet: what is safe is on, and another rule keeps it off.
func (s *storm) mayNotYet(o *observed) bool {
	return o.rules.MinOff > 0 || o.rules.Switches > 0
}

func (s *storm) note(format string, args ...any) {
	if !s.told {
		return
	}
	s.events = append(s.events, fmt.Sprintf("%v ", s.now)+fmt.Sprintf(format, args...))
}

func (s *storm) story() string {
	text := ""
	for _, o := range s.outputs {
		text += fmt.Sprintf("%s %+v permit %v\n", o.name, o.rules, o.permit)
	}
	return text + strings.Join(s.events, "\n")
}
