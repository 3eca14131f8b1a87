// Package gpiotest has a fake GPIO chip that injects faults and records what happened on its lines, and the
// conformance test that the fake, the simulated chip and a kernel's chip all pass.
package gpiotest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"pinseal/gpio"
)

// Label is the label of the fake chip.
const Label = "fake"

// consumer is who holds a claimed line.
const consumer = "pinseal"

// lastLine is the number of the last line, as on a Raspberry Pi's header.
const lastLine = 27

// Op is what happened to a line.
type Op string

// The things that happen to a line.
const (
	ClaimedOutput Op = "claimed as output" // and driven to its initial level
	ClaimedInput  Op = "claimed as input"
	Driven        Op = "driven" // by Out, to the same level or another
	Moved         Op = "moved"  // an input, by Chip.Drive
	Released      Op = "released"
)

// Event is something that happened to a line, when, and the electrical level it had right after.
type Event struct {
	Line  string
	Op    Op
	Level gpio.Level
	At    time.Time
}

// Chip is a fake Raspberry Pi header with the lines GPIO0 to GPIO27. It is safe for concurrent use. The methods beyond
// gpio.Chip are for the test; they panic when there is no such line.
type Chip struct {
	mu      sync.Mutex
	lines   []*line
	changed chan struct{} // closed and replaced at every event
}

var _ gpio.Chip = (*Chip)(nil)

// line is the state of a line; Chip.mu guards it.
type line struct {
	name     string
	level    gpio.Level
	driven   gpio.Level // what Out asked for; another level while stuck
	holder   *claim     // nil while free
	output   bool
	stuck    bool
	claimErr error
	outErr   error
	goodOuts int // before outErr
	events   []Event
}

// New makes a chip with every line free, an input and low.
func New() *Chip {
	c := &Chip{changed: make(chan struct{})}
	for n := range lastLine + 1 {
		c.lines = append(c.lines, &line{name: fmt.Sprintf("GPIO%d", n)})
	}
	return c
}

// Lines implements gpio.Chip.
func (c *Chip) Lines() ([]gpio.LineInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.infos(), nil
}

func (c *Chip) infos() []gpio.LineInfo {
	infos := make([]gpio.LineInfo, len(c.lines))
	for n, l := range c.lines {
		infos[n] = gpio.LineInfo{Chip: Label, Name: l.name, Offset: n, Direction: gpio.In, Used: l.holder != nil}
		if l.output {
			infos[n].Direction = gpio.Out
		}
		if l.holder != nil {
			infos[n].Consumer = consumer
		}
	}
	return infos
}

// Output implements gpio.Chip.
func (c *Chip) Output(name string, initial gpio.Level) (gpio.OutputLine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, err := c.claim(name)
	if err != nil {
		return nil, err
	}
	held.line.output = true
	held.line.drive(initial)
	c.record(held.line, ClaimedOutput)
	return held, nil
}

// Input implements gpio.Chip. The bias decides the level until Drive moves the line.
func (c *Chip) Input(name string, pull gpio.Pull) (gpio.InputLine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, err := c.claim(name)
	if err != nil {
		return nil, err
	}
	held.line.output = false
	if pull == gpio.PullUp || pull == gpio.PullDown {
		held.line.drive(pull == gpio.PullUp)
	}
	c.record(held.line, ClaimedInput)
	return held, nil
}

func (c *Chip) claim(name string) (*claim, error) {
	info, err := gpio.FindLine(c.infos(), name)
	if err != nil {
		return nil, err
	}
	l := c.lines[info.Offset]
	if l.claimErr != nil {
		return nil, fmt.Errorf("claiming %s: %w", l.name, l.claimErr)
	}
	if l.holder != nil {
		return nil, fmt.Errorf("%w: %s of %s is held by %q", gpio.ErrBusy, l.name, Label, consumer)
	}
	l.holder = &claim{chip: c, line: l}
	return l.holder, nil
}

// Close implements gpio.Chip.
func (c *Chip) Close() error { return nil }

// FailClaim makes every later claim of the line fail with err (gpio.ErrPermission, gpio.ErrBusy, …); nil ends that.
func (c *Chip) FailClaim(name string, err error) {
	c.with(name, func(l *line) { l.claimErr = err })
}

// FailOut makes the n-th Out of the line from now on, counted from 1, and all after it fail with err and change
// nothing; a nil err ends that. A claim's initial level is no Out.
func (c *Chip) FailOut(name string, n int, err error) {
	c.with(name, func(l *line) { l.goodOuts, l.outErr = n-1, err })
}

// Stick holds the line at its present level whatever drives it, without an error, as a short circuit does; Unstick ends that.
func (c *Chip) Stick(name string) {
	c.with(name, func(l *line) { l.stuck = true })
}

// Unstick ends Stick; the line takes the level it is driven to.
func (c *Chip) Unstick(name string) {
	c.with(name, func(l *line) {
		l.stuck = false
		l.drive(l.driven)
		c.wake()
	})
}

// Drive moves an input from outside.
func (c *Chip) Drive(name string, level gpio.Level) {
	c.with(name, func(l *line) {
		if l.output || l.level == level {
			return
		}
		l.drive(level)
		if l.holder != nil {
			l.holder.edges = append(l.holder.edges, gpio.Edge{Level: l.level, At: time.Now()})
		}
		c.record(l, Moved)
	})
}

// Level returns the electrical level of a line.
func (c *Chip) Level(name string) (level gpio.Level) {
	c.with(name, func(l *line) { level = l.level })
	return level
}

// Events returns everything that happened to the line so far, in order.
func (c *Chip) Events(name string) (events []Event) {
	c.with(name, func(l *line) { events = slices.Clone(l.events) })
	return events
}

// Wait returns once the line has the level, at once if it has it already, or with the context's error.
func (c *Chip) Wait(ctx context.Context, name string, level gpio.Level) error {
	for {
		var there bool
		var changed <-chan struct{}
		c.with(name, func(l *line) { there, changed = l.level == level, c.changed })
		if there {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Chip) with(name string, do func(*line)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := gpio.FindLine(c.infos(), name)
	if err != nil {
		panic(err)
	}
	do(c.lines[info.Offset])
}

func (c *Chip) record(l *line, op Op) {
	l.events = append(l.events, Event{Line: l.name, Op: op, Level: l.level, At: time.Now()})
	c.wake()
}

// wake lets everybody who waits look again.
func (c *Chip) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (l *line) drive(level gpio.Level) {
	l.driven = level
	if !l.stuck {
		l.level = level
	}
}

// claim is a held line, output or input.
type claim struct {
	chip   *Chip
	line   *line
	edges  []gpio.Edge // not yet returned by WaitEdge
	closed bool
}

// Out implements gpio.OutputLine.
func (h *claim) Out(level gpio.Level) error {
	h.chip.mu.Lock()
	defer h.chip.mu.Unlock()
	if h.closed {
		return os.ErrClosed
	}
	if h.line.outErr != nil {
		if h.line.goodOuts <= 0 {
			return h.line.outErr
		}
		h.line.goodOuts--
	}
	h.line.drive(level)
	h.chip.record(h.line, Driven)
	return nil
}

// Level implements gpio.OutputLine and gpio.InputLine.
func (h *claim) Level() (gpio.Level, error) {
	h.chip.mu.Lock()
	defer h.chip.mu.Unlock()
	if h.closed {
		return gpio.Low, os.ErrClosed
	}
	return h.line.level, nil
}

// WaitEdge implements gpio.InputLine.
func (h *claim) WaitEdge(ctx context.Context) (gpio.Edge, error) {
	for {
		edge, there, changed, err := h.nextEdge()
		if there || err != nil {
			return edge, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return gpio.Edge{}, ctx.Err()
		}
	}
}

func (h *claim) nextEdge() (edge gpio.Edge, there bool, changed <-chan struct{}, err error) {
	h.chip.mu.Lock()
	defer h.chip.mu.Unlock()
	if h.closed {
		return gpio.Edge{}, false, nil, os.ErrClosed
	}
	if len(h.edges) == 0 {
		return gpio.Edge{}, false, h.chip.changed, nil
	}
	edge, h.edges = h.edges[0], h.edges[1:]
	return edge, true, nil, nil
}

// Close implements gpio.OutputLine and gpio.InputLine.
func (h *claim) Close() error {
	h.chip.mu.Lock()
	defer h.chip.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	h.line.holder = nil
	h.chip.record(h.line, Released)
	return nil
}
