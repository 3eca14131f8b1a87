package gpiotest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

func TestFakeConforms(t *testing.T) {
	gpiotest.Conformance(t, func(*testing.T) gpiotest.Bench {
		c := gpiotest.New()
		return gpiotest.Bench{Chip: c, Drive: func(_ *testing.T, line string, l gpio.Level) { c.Drive(line, l) }}
	})
}

func TestEvents(t *testing.T) {
	c := gpiotest.New()
	out, err := c.Output("GPIO17", gpio.High)
	if err != nil {
		t.Fatal(err)
	}
	c.Stick("GPIO17")
	if err := out.Out(gpio.Low); err != nil {
		t.Fatal(err)
	}
	c.Unstick("GPIO17")
	if c.Level("GPIO17") != gpio.Low {
		t.Error("a line that is free again is not at the level it is driven to")
	}
	c.FailOut("GPIO17", 1, errors.New("broken"))
	if err := out.Out(gpio.High); err == nil {
		t.Error("a broken line was driven")
	}
	c.Drive("GPIO17", gpio.High) // is no input
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	c.Drive("GPIO17", gpio.Low) // released, and still an output
	want := []gpiotest.Event{
		{Line: "GPIO17", Op: gpiotest.ClaimedOutput, Level: gpio.High},
		{Line: "GPIO17", Op: gpiotest.Driven, Level: gpio.High},
		{Line: "GPIO17", Op: gpiotest.Released, Level: gpio.Low},
	}
	got := c.Events("GPIO17")
	for i := range got {
		if got[i].At.IsZero() || i > 0 && got[i].At.Before(got[i-1].At) {
			t.Errorf("event %d was at %v", i, got[i].At)
		}
		got[i].At = time.Time{}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWait(t *testing.T) {
	c := gpiotest.New()
	out, err := c.Output("GPIO17", gpio.Low)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := out.Out(gpio.High); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Wait(t.Context(), "GPIO17", gpio.High); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Wait(ctx, "GPIO17", gpio.Low); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
