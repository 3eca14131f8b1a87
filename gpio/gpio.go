package gpio

import (
	"context"
	"errors"
	"time"

	"periph.io/x/conn/v3/gpio"
)

// Level is the electrical level of a line, as in periph.
type Level = gpio.Level

// The two levels.
const (
	Low  = gpio.Low
	High = gpio.High
)

// Pull is the bias resistor of an input, as in periph.
type Pull = gpio.Pull

// The four ways to bias an input.
const (
	PullNoChange = gpio.PullNoChange
	PullFloat    = gpio.Float
	PullDown     = gpio.PullDown
	PullUp       = gpio.PullUp
)

// Errors that callers branch on; test with errors.Is. What is returned adds the line, the chip and the cure.
var (
	ErrNoChip       = errors.New("no GPIO chip")
	ErrLineNotFound = errors.New("line not found")
	ErrBusy         = errors.New("line is in use")
	ErrPermission   = errors.New("no permission")
)

// Chip is a GPIO chip, or several that share one label. It is safe for concurrent use. Lines are given by any of the
// spellings that [FindLine] knows. Closing a chip leaves the lines claimed from it as they are.
type Chip interface {
	// Lines lists every line as it is now.
	Lines() ([]LineInfo, error)
	// Output claims a line and makes it an output at the given electrical level, in one step.
	// Errors: ErrLineNotFound, ErrBusy, ErrPermission.
	Output(line string, initial Level) (OutputLine, error)
	// Input claims a line and makes it an input that reports both edges. Errors: as Output.
	Input(line string, pull Pull) (InputLine, error)
	// Close gives the chip back. A second Close does nothing.
	Close() error
}

// OutputLine is a claimed output. Levels are electrical. It is safe for concurrent use; after Close everything but
// Close returns an error that is os.ErrClosed. Those of [OpenChip] are also periph's gpio.PinIO.
type OutputLine interface {
	// Out drives the line.
	Out(l Level) error
	// Level reads the level at the line, not the one last asked for, and leaves the line an output.
	Level() (Level, error)
	// Close releases the line at the level it has. A second Close does nothing.
	Close() error
}

// InputLine is a claimed input. It is safe for concurrent use, but each edge is seen by one waiter only. Those of
// [OpenChip] are also periph's gpio.PinIO.
type InputLine interface {
	// Level reads the level now.
	Level() (Level, error)
	// WaitEdge waits for the next edge since the line was claimed that no other call has returned. It returns the
	// context's error when that ends first, and os.ErrClosed once the line is closed.
	WaitEdge(ctx context.Context) (Edge, error)
	// Close releases the line. A second Close does nothing.
	Close() error
}

// Edge is a change of an input's level.
type Edge struct {
	Level Level     // the level it led to
	At    time.Time // when: by the kernel's clock where the kernel told, else when it was noticed
	Lost  uint32    // edges right before this one that came too fast to be told of
}

// Direction says which way a line is set.
type Direction string

// The two directions.
const (
	In  Direction = "in"
	Out Direction = "out"
)

// LineInfo describes a line at the moment it was looked at.
type LineInfo struct {
	Chip      string    // label of its chip, such as "pinctrl-bcm2711"
	Path      string    // device, such as "/dev/gpiochip0"; of the simulated chip its folder; empty in the fake
	Name      string    // such as "GPIO17"; empty if the line has none
	Offset    int       // number on its chip, from 0
	Direction Direction // of a line that nobody uses: as it was left
	ActiveLow bool      // claimed as active-low by its user; this package never does
	Used      bool      // claimed, by this process or another or the kernel
	Consumer  string    // who claimed it, in its own words; empty if unknown or not used
}
