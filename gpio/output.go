package gpio

import "errors"

// OutputConfig says which line an [Output] drives and how.
type OutputConfig struct {
	Line      string // any spelling that FindLine knows
	ActiveLow bool   // on is electrically low, as with most relay boards
	Initial   bool   // on or off from the moment the line is claimed
	Exit      bool   // on or off when the output is closed
}

// Output is a claimed line that is on or off. It is safe for concurrent use.
type Output struct{}

// OpenOutput claims the line with its initial state, without a glitch. The caller closes the output, before or after
// the chip. Errors: those of Chip.Output.
func OpenOutput(c Chip, cfg OutputConfig) (*Output, error) { return nil, errors.ErrUnsupported }

// Set switches the output and confirms it by reading the line back.
func (o *Output) Set(on bool) error { return errors.ErrUnsupported }

// On reports the state of the line as last confirmed: after a failed Set what the line really is, where that can be read.
func (o *Output) On() bool { return false }

// Info describes the line that the output holds, as it was when claimed.
func (o *Output) Info() LineInfo { return LineInfo{} }

// Close drives the exit state and releases the line, even when driving fails, which it reports. A second Close does nothing.
func (o *Output) Close() error { return errors.ErrUnsupported }
