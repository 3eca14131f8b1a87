package gpio

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// A loaded line takes a moment to reach its level: 10 kΩ and 100 nF take 1 ms. Most are there at the first look.
const (
	settleTime  = 10 * time.Millisecond
	settleCheck = 100 * time.Microsecond
)

// OutputConfig says which line an [Output] drives and how.
type OutputConfig struct {
	Line      string // any spelling that FindLine knows
	ActiveLow bool   // on is electrically low, as with most relay boards
	Initial   bool   // on or off from the moment the line is claimed
	Exit      bool   // on or off when the output is closed
}

// Output is a claimed line that is on or off. It is safe for concurrent use.
type Output struct {
	cfg OutputConfig

	mu     sync.Mutex
	line   OutputLine
	on     bool
	closed bool
}

// OpenOutput claims the line with its initial state, without a glitch. The caller closes the output, before or after
// the chip. Errors: those of Chip.Output; also when the line does not take the initial state.
func OpenOutput(c Chip, cfg OutputConfig) (*Output, error) {
	o := &Output{cfg: cfg, on: cfg.Initial}
	line, err := c.Output(cfg.Line, o.level(cfg.Initial))
	if err != nil {
		return nil, err
	}
	o.line = line
	if err := o.confirm(cfg.Initial); err != nil {
		_ = o.Close() // reported is that the line does not follow
		return nil, err
	}
	return o, nil
}

// Set switches the output and confirms it by reading the line back. It returns nil only when the line is known to be as
// asked; a line that does not follow within 10 ms is an error. After Close the error is os.ErrClosed.
func (o *Output) Set(on bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return fmt.Errorf("setting line %s: %w", o.cfg.Line, os.ErrClosed)
	}
	return o.set(on)
}

func (o *Output) set(on bool) error {
	if err := o.line.Out(o.level(on)); err != nil {
		o.lookAgain()
		return fmt.Errorf("setting line %s: %w", o.cfg.Line, err)
	}
	o.on = on
	return o.confirm(on)
}

// On reports the state of the line as last confirmed: after a failed Set what the line really is, where that can be read.
func (o *Output) On() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.on
}

// Drive is Set for a level from 0 to 255: every one above 0 is on.
func (o *Output) Drive(level uint8) error { return o.Set(level > 0) }

// Level is On as a level: 0 or 255.
func (o *Output) Level() uint8 { return levelOf(o.On()) }

// Close drives the exit state and releases the line, even when driving fails, which it reports. A second Close does nothing.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	err := o.set(o.cfg.Exit)
	if closeErr := o.line.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("releasing line %s: %w", o.cfg.Line, closeErr)
	}
	return err
}

// confirm waits until the line has the level of the given state.
func (o *Output) confirm(on bool) error {
	want := o.level(on)
	for waited := time.Duration(0); ; waited += settleCheck {
		got, err := o.line.Level()
		if err != nil {
			return fmt.Errorf("reading line %s back: %w", o.cfg.Line, err)
		}
		if got == want {
			return nil
		}
		if waited >= settleTime {
			o.on = got == o.level(true)
			return fmt.Errorf("line %s is driven %v but stays %v: look for a short circuit or a load that is too heavy", o.cfg.Line, want, got)
		}
		time.Sleep(settleCheck)
	}
}

// lookAgain makes o.on the truth after a failure; where the line cannot be read it stays what it was.
func (o *Output) lookAgain() {
	if got, err := o.line.Level(); err == nil {
		o.on = got == o.level(true)
	}
}

// level is the electrical level of a state.
func (o *Output) level(on bool) Level { return Level(on != o.cfg.ActiveLow) }

// open says whether the output has not been closed.
func (o *Output) open() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.closed
}
