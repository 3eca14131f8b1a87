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
		test func(*testing.T, Bench)
	}{
		{"lines are listed", linesAreListed},
		{"spellings", spellings},
		{"unknown lines", unknownLines},
		{"an output starts at its level", outputStarts},
		{"an output is read back and stays an output", outputReadBack},
		{"a held line is busy", heldIsBusy},
		{"a released line is free", releasedIsFree},
		{"lines outlive the chip", linesOutliveChip},
		{"a closed line is closed", closedIsClosed},
		{"bias", bias},
		{"edges", edges},
		{"waiting for an edge ends", waitingEnds},
		{"outputs", outputs},
		{"outputs in many hands", outputsInManyHands},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, newBench(t)) })
	}
}

func linesAreListed(t *testing.T, b Bench) {
	before := info(t, b.Chip, ledLine)
	if before.Used || before.Consumer != "" || before.Chip == "" {
		t.Errorf("free line: %+v", before)
	}
	output(t, b.Chip, ledLine, gpio.Low)
	if l := info(t, b.Chip, ledLine); !l.Used || l.Direction != gpio.Out || !strings.HasPrefix(l.Consumer, consumer) || l.ActiveLow {
		t.Errorf("line held as an output: %+v", l)
	}
	input(t, b.Chip, buttonLine, gpio.PullNoChange)
	if l := info(t, b.Chip, buttonLine); !l.Used || l.Direction != gpio.In || !strings.HasPrefix(l.Consumer, consumer) {
		t.Errorf("line held as an input: %+v", l)
	}
}

func spellings(t *testing.T, b Bench) {
	for _, name := range []string{"GPIO17", "gpio17", "17", "BCM17", "bcm17", "line:17"} {
		line, err := b.Chip.Output(name, gpio.Low)
		if err != nil {
			t.Errorf("claiming %q: %v", name, err)
			continue
		}
		if !info(t, b.Chip, ledLine).Used {
			t.Errorf("%q is another line than GPIO17", name)
		}
		closeLine(t, line)
	}
}

func unknownLines(t *testing.T, b Bench) {
	for _, name := range []string{"", "GPIO71", "71", "line:", "line:-1", "line:1000", "-17", "17 ", "GPIO017x"} {
		if _, err := b.Chip.Output(name, gpio.High); !errors.Is(err, gpio.ErrLineNotFound) {
			t.Errorf("output %q: %v", name, err)
		}
		if _, err := b.Chip.Input(name, gpio.PullUp); !errors.Is(err, gpio.ErrLineNotFound) {
			t.Errorf("input %q: %v", name, err)
		}
	}
	if _, err := b.Chip.Output("GPIO71", gpio.Low); err == nil || !strings.Contains(err.Error(), "GPIO17") {
		t.Errorf("no near name in %v", err)
	}
}

func outputStarts(t *testing.T, b Bench) {
	for _, want := range []gpio.Level{gpio.High, gpio.Low, gpio.High} {
		line := output(t, b.Chip, ledLine, want)
		wantLevel(t, line, want)
		closeLine(t, line)
	}
}

func outputReadBack(t *testing.T, b Bench) {
	line, other := output(t, b.Chip, ledLine, gpio.Low), output(t, b.Chip, otherLine, gpio.High)
	for _, want := range []gpio.Level{gpio.High, gpio.High, gpio.Low, gpio.High, gpio.Low, gpio.Low} {
		if err := line.Out(want); err != nil {
			t.Fatal(err)
		}
		wantLevel(t, line, want)
		wantLevel(t, line, want)
		wantLevel(t, other, gpio.High)
		if l := info(t, b.Chip, ledLine); l.Direction != gpio.Out {
			t.Fatalf("reading made it %+v", l)
		}
	}
}

func heldIsBusy(t *testing.T, b Bench) {
	output(t, b.Chip, ledLine, gpio.High)
	input(t, b.Chip, buttonLine, gpio.PullNoChange)
	for _, name := range []string{ledLine, buttonLine} {
		_, outErr := b.Chip.Output(name, gpio.Low)
		_, inErr := b.Chip.Input(name, gpio.PullDown)
		for _, err := range []error{outErr, inErr} {
			if !errors.Is(err, gpio.ErrBusy) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), consumer) {
				t.Errorf("claiming %s twice: %v", name, err)
			}
		}
	}
}

func releasedIsFree(t *testing.T, b Bench) {
	for range 3 {
		closeLine(t, output(t, b.Chip, ledLine, gpio.High))
		if l := info(t, b.Chip, ledLine); l.Used {
			t.Errorf("released: %+v", l)
		}
		closeLine(t, input(t, b.Chip, ledLine, gpio.PullNoChange))
	}
}

func linesOutliveChip(t *testing.T, b Bench) {
	line := output(t, b.Chip, ledLine, gpio.Low)
	for range 2 {
		if err := b.Chip.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := line.Out(gpio.High); err != nil {
		t.Fatal(err)
	}
	wantLevel(t, line, gpio.High)
}

func closedIsClosed(t *testing.T, b Bench) {
	out, in := output(t, b.Chip, ledLine, gpio.Low), input(t, b.Chip, buttonLine, gpio.PullNoChange)
	for range 2 {
		closeLine(t, out)
		closeLine(t, in)
	}
	_, outErr := out.Level()
	_, inErr := in.Level()
	_, edgeErr := in.WaitEdge(t.Context())
	for what, err := range map[string]error{"Out": out.Out(gpio.High), "Level": outErr, "input's Level": inErr, "WaitEdge": edgeErr} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

func bias(t *testing.T, b Bench) {
	for _, c := range []struct {
		pull gpio.Pull
		want gpio.Level
	}{{gpio.PullUp, gpio.High}, {gpio.PullDown, gpio.Low}, {gpio.PullUp, gpio.High}} {
		line := input(t, b.Chip, buttonLine, c.pull)
		wantLevel(t, line, c.want)
		wantNoEdge(t, line)
		closeLine(t, line)
	}
}

func edges(t *testing.T, b Bench) {
	line := input(t, b.Chip, buttonLine, gpio.PullDown)
	for _, want := range []gpio.Level{gpio.High, gpio.Low, gpio.High, gpio.Low} {
		b.Drive(t, buttonLine, want)
		ctx, cancel := context.WithTimeout(t.Context(), edgeTimeout)
		got, err := line.WaitEdge(ctx)
		cancel()
		if err != nil || got != want {
			t.Fatalf("edge to %v: got %v, %v", want, got, err)
		}
		wantLevel(t, line, want)
	}
	wantNoEdge(t, line)
}

func waitingEnds(t *testing.T, b Bench) {
	line := input(t, b.Chip, buttonLine, gpio.PullDown)
	ctx, cancel := context.WithCancel(t.Context())
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
			t.Errorf("waiting with a cancelled context: %v", err)
		}
	}
	ended := waits(t.Context())
	closeLine(t, line)
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("waiting on a line that is closed: %v", err)
	}
}

func outputs(t *testing.T, b Bench) {
	for _, cfg := range []gpio.OutputConfig{
		{Line: ledLine},
		{Line: ledLine, Initial: true},
		{Line: ledLine, Exit: true},
		{Line: ledLine, ActiveLow: true},
		{Line: ledLine, ActiveLow: true, Initial: true, Exit: true},
	} {
		o, err := gpio.OpenOutput(b.Chip, cfg)
		if err != nil {
			t.Fatal(err)
		}
		wantOn(t, o, cfg.Initial)
		for _, on := range []bool{true, true, false, true, false} {
			if err := o.Set(on); err != nil {
				t.Fatal(err)
			}
			wantOn(t, o, on)
		}
		for range 2 {
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			wantOn(t, o, cfg.Exit)
		}
		if err := o.Set(!cfg.Exit); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Set after Close: %v", err)
		}
		wantOn(t, o, cfg.Exit)
	}
}

func outputsInManyHands(t *testing.T, b Bench) {
	o, err := gpio.OpenOutput(b.Chip, gpio.OutputConfig{Line: ledLine, Exit: true})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := range 50 {
				if err := o.Set((i+n)%2 == 0); err != nil {
					t.Error(err)
				}
				o.On()
			}
		})
	}
	all.Wait()
	for range 2 {
		all.Go(func() {
			if err := o.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	wantOn(t, o, true)
}

func info(t *testing.T, c gpio.Chip, name string) gpio.LineInfo {
	t.Helper()
	lines, err := c.Lines()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(lines, func(l gpio.LineInfo) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("no %s among the lines", name)
	}
	return lines[i]
}

func output(t *testing.T, c gpio.Chip, name string, initial gpio.Level) gpio.OutputLine {
	t.Helper()
	line, err := c.Output(name, initial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLine(t, line) })
	return line
}

func input(t *testing.T, c gpio.Chip, name string, pull gpio.Pull) gpio.InputLine {
	t.Helper()
	line, err := c.Input(name, pull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLine(t, line) })
	return line
}

func closeLine(t *testing.T, line interface{ Close() error }) {
	t.Helper()
	if err := line.Close(); err != nil {
		t.Error(err)
	}
}

func wantLevel(t *testing.T, line interface{ Level() (gpio.Level, error) }, want gpio.Level) {
	t.Helper()
	if got, err := line.Level(); err != nil || got != want {
		t.Fatalf("level %v, %v; want %v", got, err, want)
	}
}

func wantOn(t *testing.T, o *gpio.Output, want bool) {
	t.Helper()
	if o.On() != want {
		t.Fatalf("on: %v, want %v", o.On(), want)
	}
}

func wantNoEdge(t *testing.T, line gpio.InputLine) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if level, err := line.WaitEdge(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("an edge to %v that was none: %v", level, err)
	}
}
