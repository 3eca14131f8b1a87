package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"pinseal/agent/actuator"
	"pinseal/gpio"
)

// playFlags are those of the commands that play something on a line.
type playFlags struct {
	chipFlag
	Line      string `arg:"" help:"Line, such as GPIO17."`
	ActiveLow bool   `help:"The load is on while the line is low."`
}

type gpioPulseCmd struct {
	playFlags
	For time.Duration `help:"How long it is on, from 10ms to 24h." default:"1s" placeholder:"TIME"`
}

// Run has the line on for a time.
func (c *gpioPulseCmd) Run(ctx context.Context, std streams) error {
	if c.For < actuator.MinPulse || c.For > actuator.MaxPulse {
		return usagef("--for is from %s to %s", actuator.MinPulse, actuator.MaxPulse)
	}
	return c.play(ctx, std, actuator.Command{Action: actuator.Pulse, Length: c.For}, "on for "+c.For.String())
}

type gpioBlinkCmd struct {
	playFlags
	Period time.Duration `help:"One on and one off, from 100ms to 1h." default:"1s" placeholder:"TIME"`
	Count  int           `help:"How often; default: until Ctrl-C." placeholder:"N"`
}

// Run has the line blink.
func (c *gpioBlinkCmd) Run(ctx context.Context, std streams) error {
	switch {
	case c.Period < actuator.MinPeriod || c.Period > actuator.MaxPeriod:
		return usagef("--period is from %s to %s", actuator.MinPeriod, actuator.MaxPeriod)
	case c.Count < 0 || c.Count > actuator.MaxCount:
		return usagef("--count is from 1 to %d", actuator.MaxCount)
	}
	until := "until Ctrl-C"
	if c.Count > 0 {
		until = plural(c.Count, "time")
	}
	return c.play(ctx, std, actuator.Command{Action: actuator.Blink, Period: c.Period, Count: c.Count}, "blinking "+until)
}

// play has the line do what a command asks for. At its end, or at a signal, the line is off and let go.
func (f playFlags) play(ctx context.Context, std streams, command actuator.Command, does string) (err error) {
	ctx, stop := untilSignal(ctx, syscall.SIGPIPE)
	defer stop()
	chip, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	line, err := gpio.OpenOutput(chip, gpio.OutputConfig{Line: f.Line, ActiveLow: f.ActiveLow})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, line.Close()) }()
	a, err := actuator.New(actuator.Config{Name: f.Line, Driver: line})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	changed := make(chan struct{}, 1)
	a.Watch(func() {
		select {
		case changed <- struct{}{}:
		default: // is looked at anyway
		}
	})
	if _, err := a.Do(command); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s is %s\n", f.Line, does)
	for a.Status().State == actuator.StateOn {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
