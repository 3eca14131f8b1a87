package gpiotest

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/gpio"
)

// The lines that Conformance uses; they must be free.
const (
	ledLine    = "GPIO17"
	buttonLine = "GPIO22"
	otherLine  = "GPIO27"
)

// edgeTimeout is far more than an edge needs, on an emulated machine too.
const edgeTimeout = 20 * time.Second

// Bench is a chip under test and a way to move its inputs from outside.
type Bench struct {
	Chip  gpio.Chip
	Drive func(t *testing.T, line string, l gpio.Level)
}

// Conformance checks what the documentation of gpio.Chip, gpio.OutputLine, gpio.InputLine and gpio.Output promises, on
// the lines GPIO17, GPIO22 and GPIO27. newBench is called once for each part and closes what it opens by t.Cleanup.
func Conformance(t *testing.T, newBench func(t *testing.T) Bench) {
	t.Helper()
	for _, part := range []struct {
		name string
		test func(suite)
	}{
		{"lines are listed", suite.linesAreListed},
		{"spellings", suite.spellings},
		{"unknown lines", suite.unknownLines},
		{"an output starts at its level", suite.outputStarts},
		{"an output is read back and stays an output", suite.outputReadBack},
		{"a held line is busy", suite.heldIsBusy},
		{"a released line is free", suite.releasedIsFree},
		{"lines outlive the chip", suite.linesOutliveChip},
		{"a closed line is closed", suite.closedIsClosed},
		{"bias", suite.bias},
		{"edges", suite.edges},
		{"waiting for an edge ends", suite.waitingEnds},
		{"outputs", suite.outputs},
		{"outputs in many hands", suite.outputsInManyHands},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(suite{t, newBench(t)}) })
	}
}

// suite is one part's test and its chip.
type suite struct {
	*testing.T
	Bench
}

func (s suite) linesAreListed() {
	before := s.info(ledLine)
	if before.Used || before.Consumer != "" || before.Chip == "" {
		s.Errorf("free line: %+v", before)
	}
	s.output(ledLine, gpio.Low)
	if l := s.info(ledLine); !l.Used || l.Direction != gpio.Out || !strings.HasPrefix(l.Consumer, consumer) || l.ActiveLow {
		s.Errorf("line held as an output: %+v", l)
	}
	s.input(buttonLine, gpio.PullNoChange)
	if l := s.info(buttonLine); !l.Used || l.Direction != gpio.In || !strings.HasPrefix(l.Consumer, consumer) {
		s.Errorf("line held as an input: %+v", l)
	}
}

func (s suite) spellings() {
	for _, name := range []string{"GPIO17", "gpio17", "17", "BCM17", "bcm17", "line:17"} {
		line, err := s.Chip.Output(name, gpio.Low)
		if err != nil {
			s.Errorf("claiming %q: %v", name, err)
			continue
		}
		if !s.info(ledLine).Used {
			s.Errorf("%q is another line than GPIO17", name)
		}
		s.closeLine(line)
	}
}

func (s suite) unknownLines() {
	for _, name := range []string{"", "GPIO71", "71", "line:", "line:-1", "line:1000", "-17", "17 ", "GPIO017x"} {
		if _, err := s.Chip.Output(name, gpio.High); !errors.Is(err, gpio.ErrLineNotFound) {
			s.Errorf("output %q: %v", name, err)
		}
		if _, err := s.Chip.Input(name, gpio.PullUp); !errors.Is(err, gpio.ErrLineNotFound) {
			s.Errorf("input %q: %v", name, err)
		}
	}
	if _, err := s.Chip.Output("GPIO71", gpio.Low); err == nil || !strings.Contains(err.Error(), "GPIO17") {
		s.Errorf("no near name in %v", err)
	}
}

func (s suite) outputStarts() {
	for _, want := range []gpio.Level{gpio.High, gpio.Low, gpio.High} {
		line := s.output(ledLine, want)
		s.wantLevel(line, want)
		s.closeLine(line)
	}
}

func (s suite) outputReadBack() {
	line, other := s.output(ledLine, gpio.Low), s.output(otherLine, gpio.High)
	for _, want := range []gpio.Level{gpio.High, gpio.High, gpio.Low, gpio.High, gpio.Low, gpio.Low} {
		if err := line.Out(want); err != nil {
			s.Fatal(err)
		}
		s.wantLevel(line, want)
		s.wantLevel(line, want)
		s.wantLevel(other, gpio.High)
		if l := s.info(ledLine); l.Direction != gpio.Out {
			s.Fatalf("reading made it %+v", l)
		}
	}
}

func (s suite) heldIsBusy() {
	s.output(ledLine, gpio.High)
	s.input(buttonLine, gpio.PullNoChange)
	for _, name := range []string{ledLine, buttonLine} {
		_, outErr := s.Chip.Output(name, gpio.Low)
		_, inErr := s.Chip.Input(name, gpio.PullDown)
		for _, err := range []error{outErr, inErr} {
			if !errors.Is(err, gpio.ErrBusy) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), consumer) {
				s.Errorf("claiming %s twice: %v", name, err)
			}
		}
	}
}

func (s suite) releasedIsFree() {
	for range 3 {
		s.closeLine(s.output(ledLine, gpio.High))
		if l := s.info(ledLine); l.Used {
			s.Errorf("released: %+v", l)
		}
		s.closeLine(s.input(ledLine, gpio.PullNoChange))
	}
}

func (s suite) linesOutliveChip() {
	line := s.output(ledLine, gpio.Low)
	for range 2 {
		if err := s.Chip.Close(); err != nil {
			s.Fatal(err)
		}
	}
	if err := line.Out(gpio.High); err != nil {
		s.Fatal(err)
	}
	s.wantLevel(line, gpio.High)
}

func (s suite) closedIsClosed() {
	out, in := s.output(ledLine, gpio.Low), s.input(buttonLine, gpio.PullNoChange)
	for range 2 {
		s.closeLine(out)
		s.closeLine(in)
	}
	_, outErr := out.Level()
	_, inErr := in.Level()
	_, edgeErr := in.WaitEdge(s.Context())
	for what, err := range map[string]error{"Out": out.Out(gpio.High), "Level": outErr, "input's Level": inErr, "WaitEdge": edgeErr} {
		if !errors.Is(err, os.ErrClosed) {
			s.Errorf("%s after Close: %v", what, err)
		}
	}
}

func (s suite) bias() {
	for _, c := range []struct {
		pull gpio.Pull
		want gpio.Level
	}{{gpio.PullUp, gpio.High}, {gpio.PullDown, gpio.Low}, {gpio.PullUp, gpio.High}} {
		line := s.input(buttonLine, c.pull)
		s.wantLevel(line, c.want)
		s.wantNoEdge(line)
		s.closeLine(line)
	}
}

func (s suite) edges() {
	line := s.input(buttonLine, gpio.PullDown)
	for _, want := range []gpio.Level{gpio.High, gpio.Low, gpio.High, gpio.Low} {
		s.Drive(s.T, buttonLine, want)
		ctx, cancel := context.WithTimeout(s.Context(), edgeTimeout)
		before := time.Now()
		got, err := line.WaitEdge(ctx)
		cancel()
		if err != nil || got.Level != want || got.Lost > 0 {
			s.Fatalf("edge to %v: got %+v, %v", want, got, err)
		}
		if age := before.Sub(got.At); age > edgeTimeout || time.Since(got.At) < 0 {
			s.Errorf("edge to %v at %v, it was %v", want, got.At, before)
		}
		s.wantLevel(line, want)
	}
	s.wantNoEdge(line)
}

func (s suite) waitingEnds() {
	line := s.input(buttonLine, gpio.PullDown)
	ctx, cancel := context.WithCancel(s.Context())
	waits := func(ctx context.Context) <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := line.WaitEdge(ctx)
			ended <- err
		}()
		return ended
	}
	first, second := waits(ctx), waits(ctx)
	cancel()
	for _, ended := range []<-chan error{first, second, waits(ctx)} {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			s.Errorf("waiting with a cancelled context: %v", err)
		}
	}
	ended := waits(s.Context())
	s.closeLine(line)
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		s.Errorf("waiting on a line that is closed: %v", err)
	}
}

func (s suite) outputs() {
	for _, cfg := range []gpio.OutputConfig{
		{Line: ledLine},
		{Line: ledLine, Initial: true},
		{Line: ledLine, Exit: true},
		{Line: ledLine, ActiveLow: true},
		{Line: ledLine, ActiveLow: true, Initial: true, Exit: true},
	} {
		o, err := gpio.OpenOutput(s.Chip, cfg)
		if err != nil {
			s.Fatal(err)
		}
		s.wantOn(o, cfg.Initial)
		for _, on := range []bool{true, true, false, true, false} {
			if err := o.Set(on); err != nil {
				s.Fatal(err)
			}
			s.wantOn(o, on)
		}
		for range 2 {
			if err := o.Close(); err != nil {
				s.Fatal(err)
			}
			s.wantOn(o, cfg.Exit)
		}
		if err := o.Set(!cfg.Exit); !errors.Is(err, os.ErrClosed) {
			s.Errorf("Set after Close: %v", err)
		}
		s.wantOn(o, cfg.Exit)
	}
}

func (s suite) outputsInManyHands() {
	o, err := gpio.OpenOutput(s.Chip, gpio.OutputConfig{Line: ledLine, Exit: true})
	if err != nil {
		s.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := range 50 {
				if err := o.Set((i+n)%2 == 0); err != nil {
					s.Error(err)
				}
				o.On()
			}
		})
	}
	all.Wait()
	for range 2 {
		all.Go(func() {
			if err := o.Close(); err != nil {
				s.Error(err)
			}
		})
	}
	all.Wait()
	s.wantOn(o, true)
}

func (s suite) info(name string) gpio.LineInfo {
	s.Helper()
	lines, err := s.Chip.Lines()
	if err != nil {
		s.Fatal(err)
	}
	i := slices.IndexFunc(lines, func(l gpio.LineInfo) bool { return l.Name == name })
	if i < 0 {
		s.Fatalf("no %s among the lines", name)
	}
	return lines[i]
}

func (s suite) output(name string, initial gpio.Level) gpio.OutputLine {
	s.Helper()
	line, err := s.Chip.Output(name, initial)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.closeLine(line) })
	return line
}

func (s suite) input(name string, pull gpio.Pull) gpio.InputLine {
	s.Helper()
	line, err := s.Chip.Input(name, pull)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.closeLine(line) })
	return line
}

func (s suite) closeLine(line interface{ Close() error }) {
	s.Helper()
	if err := line.Close(); err != nil {
		s.Error(err)
	}
}

func (s suite) wantLevel(line interface{ Level() (gpio.Level, error) }, want gpio.Level) {
	s.Helper()
	if got, err := line.Level(); err != nil || got != want {
		s.Fatalf("level %v, %v; want %v", got, err, want)
	}
}

func (s suite) wantOn(o *gpio.Output, want bool) {
	s.Helper()
	if o.On() != want {
		s.Fatalf("on: %v, want %v", o.On(), want)
	}
}

func (s suite) wantNoEdge(line gpio.InputLine) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if edge, err := line.WaitEdge(ctx); !errors.Is(err, context.Canceled) {
		s.Fatalf("an edge to %v that was none: %v", edge.Level, err)
	}
}
