package gpio_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

// step moves the line after a pause.
type step struct {
	after time.Duration
	level gpio.Level
}

// bounce is a contact that closes or opens with n bounces, each as far from the next.
func bounce(after, apart time.Duration, to gpio.Level, n int) []step {
	steps := []step{{after, to}}
	for range n {
		steps = append(steps, step{apart, !to}, step{apart, to})
	}
	return steps
}

func TestInputBounces(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		cfg   gpio.InputConfig
		steps []step
		want  string // each change and when it was, in milliseconds
	}{
		{"clean", gpio.InputConfig{Debounce: 5 * ms}, []step{{10 * ms, true}, {100 * ms, false}}, "on 10, off 110"},
		{"no debouncing: every edge", gpio.InputConfig{}, bounce(10*ms, ms, true, 2), "on 10, off 11, on 12, off 13, on 14"},
		{"closing bounces", gpio.InputConfig{Debounce: 5 * ms}, bounce(10*ms, ms, true, 20), "on 50"},
		{"both bounce", gpio.InputConfig{Debounce: 5 * ms}, slices.Concat(bounce(10*ms, ms, true, 5), bounce(50*ms, ms, false, 5)), "on 20, off 80"},
		{"active low", gpio.InputConfig{Debounce: 5 * ms, ActiveLow: true, Pull: gpio.PullUp}, bounce(10*ms, ms, false, 5), "on 20"},
		{"bounces back to where it was", gpio.InputConfig{Debounce: 5 * ms}, slices.Concat(bounce(10*ms, ms, true, 3), []step{{ms, false}}), ""},
		{"too short", gpio.InputConfig{Debounce: 5 * ms}, []step{{10 * ms, true}, {4 * ms, false}, {50 * ms, true}, {4 * ms, false}}, ""},
		{"just long enough", gpio.InputConfig{Debounce: 5 * ms}, []step{{10 * ms, true}, {6 * ms, false}}, "on 10, off 16"},
		{"never quiet", gpio.InputConfig{Debounce: 5 * ms}, bounce(10*ms, 4*ms, true, 500), "on 4010"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Line = "GPIO22"
				if got := changes(t, c.cfg, c.steps); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}

// changes runs an input while the line is moved, until a second after the last move.
func changes(t *testing.T, cfg gpio.InputConfig, steps []step) (got string) {
	t.Helper()
	chip, begin := gpiotest.New(), time.Now()
	in, err := gpio.OpenInput(chip, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		ended <- in.Run(t.Context(), func(c gpio.Change) {
			if got != "" {
				got += ", "
			}
			got += fmt.Sprintf("%s %d", map[bool]string{true: "on", false: "off"}[c.On], c.At.Sub(begin).Milliseconds())
		})
	}()
	for _, s := range steps {
		time.Sleep(s.after)
		chip.Drive(cfg.Line, s.level)
		synctest.Wait()
	}
	time.Sleep(time.Second)
	if err := errors.Join(in.Close(), in.Close(), <-ended); err != nil {
		t.Error(err)
	}
	return got
}

func TestInputPulses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := gpiotest.New()
		in, err := gpio.OpenInput(chip, gpio.InputConfig{Line: "GPIO22", Debounce: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- in.Run(ctx, func(gpio.Change) {}) }()
		for range 90 { // one a second
			chip.Drive("GPIO22", gpio.High)
			time.Sleep(500 * time.Millisecond)
			chip.Drive("GPIO22", gpio.Low)
			time.Sleep(500 * time.Millisecond)
		}
		if total, minute := in.Pulses(time.Now()); total != 90 || minute < 59 || minute > 60 {
			t.Errorf("total %d, last minute %d", total, minute)
		}
		time.Sleep(2 * time.Minute)
		if total, minute := in.Pulses(time.Now()); total != 90 || minute != 0 {
			t.Errorf("two minutes later: total %d, last minute %d", total, minute)
		}
		cancel()
		if err := errors.Join(<-ended, in.Close()); err != nil {
			t.Error(err)
		}
	})
}

// A meter's hours: what the last minute had stays what the last minute had, and nothing gets lost.
func TestInputPulsesOverHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := gpiotest.New()
		in, err := gpio.OpenInput(chip, gpio.InputConfig{Line: "GPIO22"})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- in.Run(t.Context(), func(gpio.Change) {}) }()
		pulse := func(n int, every time.Duration) {
			for range n {
				chip.Drive("GPIO22", gpio.High)
				synctest.Wait()
				chip.Drive("GPIO22", gpio.Low)
				time.Sleep(every)
			}
		}
		want := uint64(0)
		for hour := range 6 {
			perMinute := []int{1, 7, 60, 0, 240, 30}[hour]
			n := max(perMinute*60, 1)
			pulse(n, time.Hour/time.Duration(n))
			want += uint64(n)
			total, minute := in.Pulses(time.Now())
			if slack := uint64(perMinute/60 + 1); total != want || minute+slack < uint64(perMinute) || minute > uint64(perMinute)+slack {
				t.Errorf("hour %d: total %d, last minute %d; want %d, %d", hour, total, minute, want, perMinute)
			}
		}
		if err := errors.Join(in.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
}

// lossy is a chip that forgets to tell of edges, as the kernel does when its buffer is full.
type lossy struct {
	gpio.Chip
	edges []gpio.Edge
}

func (c *lossy) Close() error { return nil }

func (c *lossy) Input(string, gpio.Pull) (gpio.InputLine, error) { return c, nil }

func (c *lossy) Level() (gpio.Level, error) { return gpio.Low, nil }

func (c *lossy) WaitEdge(context.Context) (gpio.Edge, error) {
	if len(c.edges) == 0 {
		return gpio.Edge{}, errHardware
	}
	e := c.edges[0]
	c.edges = c.edges[1:]
	e.At = time.Now()
	return e, nil
}

func TestInputCountsLostEdges(t *testing.T) {
	for _, c := range []struct {
		name  string
		edges []gpio.Edge
		want  uint64
	}{
		{"none lost", []gpio.Edge{{Level: gpio.High}, {Level: gpio.Low}, {Level: gpio.High}}, 2},
		{"off and on lost", []gpio.Edge{{Level: gpio.High}, {Level: gpio.Low, Lost: 2}}, 2},
		{"on and off lost", []gpio.Edge{{Level: gpio.High, Lost: 2}}, 2},
		{"one lost", []gpio.Edge{{Level: gpio.High}, {Level: gpio.High, Lost: 1}}, 2},
		{"a thousand lost", []gpio.Edge{{Level: gpio.Low, Lost: 999}}, 500},
		{"the same twice", []gpio.Edge{{Level: gpio.High}, {Level: gpio.High}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := gpio.OpenInput(&lossy{edges: c.edges}, gpio.InputConfig{Line: "GPIO22"})
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Run(t.Context(), func(gpio.Change) {}); !errors.Is(err, errHardware) {
				t.Errorf("the fault was not reported: %v", err)
			}
			if total, _ := in.Pulses(time.Now()); total != c.want {
				t.Errorf("%d pulses, want %d", total, c.want)
			}
		})
	}
}

func TestInputClaimFails(t *testing.T) {
	chip := gpiotest.New()
	chip.FailClaim("GPIO22", gpio.ErrBusy)
	if _, err := gpio.OpenInput(chip, gpio.InputConfig{Line: "GPIO22"}); !errors.Is(err, gpio.ErrBusy) {
		t.Errorf("got %v", err)
	}
}
