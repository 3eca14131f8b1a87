package gpio_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

var errHardware = errors.New("input/output error")

// waveform is the levels that a line had from its claim to its release, as an oscilloscope would show them.
func waveform(c *gpiotest.Chip, line string) string {
	var wave strings.Builder
	for _, e := range c.Events(line) {
		level := map[gpio.Level]string{gpio.Low: "0", gpio.High: "1"}[e.Level]
		switch e.Op {
		case gpiotest.ClaimedOutput:
			wave.WriteString("[" + level)
		case gpiotest.Released:
			wave.WriteString("]")
		default:
			wave.WriteString(level)
		}
	}
	return wave.String()
}

func open(t *testing.T, c gpio.Chip, cfg gpio.OutputConfig) *gpio.Output {
	t.Helper()
	o, err := gpio.OpenOutput(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOutputWaveform(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  gpio.OutputConfig
		want string // claimed at the initial level, on, off, exit level, released; nothing in between
	}{
		{"starts and ends off", gpio.OutputConfig{}, "[0100]"},
		{"stays lit over a restart", gpio.OutputConfig{Initial: true, Exit: true}, "[1101]"},
		{"active-low relay", gpio.OutputConfig{ActiveLow: true}, "[1011]"},
		{"active-low, on at both ends", gpio.OutputConfig{ActiveLow: true, Initial: true, Exit: true}, "[0010]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			chip := gpiotest.New()
			c.cfg.Line = "GPIO17"
			o := open(t, chip, c.cfg)
			if err := errors.Join(o.Set(true), o.Set(false), o.Close(), o.Close()); err != nil {
				t.Fatal(err)
			}
			if got := waveform(chip, "GPIO17"); got != c.want {
				t.Errorf("waveform %s, want %s", got, c.want)
			}
		})
	}
}

func TestOutputClaimFails(t *testing.T) {
	for _, want := range []error{gpio.ErrBusy, gpio.ErrPermission, gpio.ErrLineNotFound} {
		chip := gpiotest.New()
		chip.FailClaim("GPIO17", want)
		if _, err := gpio.OpenOutput(chip, gpio.OutputConfig{Line: "GPIO17", Initial: true}); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if chip.Level("GPIO17") != gpio.Low || len(chip.Events("GPIO17")) != 0 {
			t.Errorf("the line was touched: %v", chip.Events("GPIO17"))
		}
		chip.FailClaim("GPIO17", nil)
		open(t, chip, gpio.OutputConfig{Line: "GPIO17"})
	}
}

func TestOutputSetFails(t *testing.T) {
	chip := gpiotest.New()
	o := open(t, chip, gpio.OutputConfig{Line: "GPIO17", Exit: true})
	chip.FailOut("GPIO17", 2, errHardware)
	if err := o.Set(true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := o.Set(false); !errors.Is(err, errHardware) || !strings.Contains(err.Error(), "GPIO17") {
			t.Fatalf("got %v", err)
		}
		if !o.On() {
			t.Fatal("on() says off, and the line is on")
		}
	}
	chip.FailOut("GPIO17", 1, nil)
	if err := o.Set(false); err != nil || o.On() {
		t.Fatalf("after the fault: %v, on: %v", err, o.On())
	}
}

func TestOutputStuck(t *testing.T) {
	chip := gpiotest.New()
	o := open(t, chip, gpio.OutputConfig{Line: "GPIO17", ActiveLow: true})
	chip.Stick("GPIO17")
	if err := o.Set(true); err == nil || !strings.Contains(err.Error(), "GPIO17 is driven Low but stays High") {
		t.Fatalf("got %v", err)
	}
	if o.On() {
		t.Fatal("on() says on, and the line is stuck off")
	}
	chip.Unstick("GPIO17")
	if err := o.Set(true); err != nil || !o.On() {
		t.Fatalf("after the fault: %v, on: %v", err, o.On())
	}
}

func TestOutputStuckFromTheStart(t *testing.T) {
	chip := gpiotest.New()
	chip.Stick("GPIO17")
	if _, err := gpio.OpenOutput(chip, gpio.OutputConfig{Line: "GPIO17", Initial: true}); err == nil {
		t.Fatal("a line that does not follow was opened")
	}
	if _, err := chip.Input("GPIO17", gpio.PullNoChange); err != nil {
		t.Fatalf("the line was not given back: %v", err)
	}
}

func TestOutputCloseFails(t *testing.T) {
	chip := gpiotest.New()
	o := open(t, chip, gpio.OutputConfig{Line: "GPIO17", Initial: true})
	chip.FailOut("GPIO17", 1, errHardware)
	if err := o.Close(); !errors.Is(err, errHardware) {
		t.Fatalf("got %v", err)
	}
	if !o.On() {
		t.Error("on() says off, and the line was left on")
	}
	if events := chip.Events("GPIO17"); events[len(events)-1].Op != gpiotest.Released {
		t.Errorf("not released: %v", events)
	}
	if err := o.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// slowChip is a chip whose outputs take a few looks to reach their level, as a line with a capacitor does.
type slowChip struct{ gpio.Chip }

type slowLine struct {
	gpio.OutputLine
	between int
}

func (c slowChip) Output(line string, initial gpio.Level) (gpio.OutputLine, error) {
	l, err := c.Chip.Output(line, initial)
	return &slowLine{OutputLine: l}, err
}

func (l *slowLine) Out(level gpio.Level) error {
	l.between = 5
	return l.OutputLine.Out(level)
}

func (l *slowLine) Level() (gpio.Level, error) {
	level, err := l.OutputLine.Level()
	if l.between > 0 {
		l.between--
		level = !level
	}
	return level, err
}

func TestOutputThatIsSlow(t *testing.T) {
	o := open(t, slowChip{gpiotest.New()}, gpio.OutputConfig{Line: "GPIO17"})
	for _, on := range slices.Repeat([]bool{true, false}, 3) {
		if err := o.Set(on); err != nil || o.On() != on {
			t.Fatalf("%v, on: %v", err, o.On())
		}
	}
}
