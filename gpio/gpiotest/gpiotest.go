// Package gpiotest has a fake GPIO chip that injects faults and records what happened on its lines, and the
// conformance test that the fake, the simulated chip and a kernel's chip all pass.
package gpiotest

import (
	"context"
	"errors"
	"testing"

	"pinseal/gpio"
)

// Op is what happened to a line.
type Op string

// The things that happen to a line.
const (
	ClaimedOutput Op = "claimed as output"
	ClaimedInput  Op = "claimed as input"
	Driven        Op = "driven"
	Released      Op = "released"
)

// Event is something that happened to a line, and the level it had then.
type Event struct {
	Line  string
	Op    Op
	Level gpio.Level
}

// Chip is a fake Raspberry Pi header with the lines GPIO0 to GPIO27. It is safe for concurrent use.
type Chip struct{}

var _ gpio.Chip = (*Chip)(nil)

// New makes a chip with every line free, an input and low.
func New() *Chip { return &Chip{} }

// Lines implements gpio.Chip.
func (c *Chip) Lines() ([]gpio.LineInfo, error) { return nil, errors.ErrUnsupported }

// Output implements gpio.Chip.
func (c *Chip) Output(line string, initial gpio.Level) (gpio.OutputLine, error) {
	return nil, errors.ErrUnsupported
}

// Input implements gpio.Chip.
func (c *Chip) Input(line string, pull gpio.Pull) (gpio.InputLine, error) {
	return nil, errors.ErrUnsupported
}

// Close implements gpio.Chip.
func (c *Chip) Close() error { return nil }

// FailClaim makes every later claim of the line fail with err (gpio.ErrPermission, gpio.ErrBusy, …); nil ends that.
func (c *Chip) FailClaim(line string, err error) {}

// FailOut makes the n-th Out of the line from now on, counted from 1, and all after it fail with err and change
// nothing; a nil err ends that.
func (c *Chip) FailOut(line string, n int, err error) {}

// Stick holds the line at its present level whatever drives it, without an error, as a short circuit does; Unstick ends that.
func (c *Chip) Stick(line string) {}

// Unstick ends Stick; the line takes the level it is driven to.
func (c *Chip) Unstick(line string) {}

// Drive moves an input.
func (c *Chip) Drive(line string, l gpio.Level) {}

// Level returns the electrical level of a line.
func (c *Chip) Level(line string) gpio.Level { return gpio.Low }

// Wait returns once the line has the level, at once if it has it already, or with the context's error.
func (c *Chip) Wait(ctx context.Context, line string, l gpio.Level) error {
	return errors.ErrUnsupported
}

// Events returns everything that happened to the line so far, in order.
func (c *Chip) Events(line string) []Event { return nil }

// Bench is a chip under test and a way to move its inputs from outside.
type Bench struct {
	Chip  gpio.Chip
	Drive func(t *testing.T, line string, l gpio.Level)
}

// Conformance checks everything the documentation of gpio.Chip, gpio.OutputLine, gpio.InputLine and gpio.Output
// promises, on the lines GPIO17, GPIO22 and GPIO27. newBench is called once for each part and closes what it opens by t.Cleanup.
func Conformance(t *testing.T, newBench func(t *testing.T) Bench) {
	t.Helper()
}
