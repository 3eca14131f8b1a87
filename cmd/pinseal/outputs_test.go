package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/agent/actuator"
	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

// A node that no longer hears itself lets its outputs go to their exit levels, and takes no command for them.
func TestOutputsOfADeafNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip, n := gpiotest.New(), &node{}
		for _, o := range []outputConfig{{Name: "gate", Line: "GPIO17"}, {Name: "alarm", Line: "GPIO18", Exit: true}} {
			line, err := gpio.OpenOutput(chip, gpio.OutputConfig{Line: o.Line, Exit: bool(o.Exit)})
			if err != nil {
				t.Fatal(err)
			}
			a, err := actuator.New(actuator.Config{Name: string(o.Name), Driver: line, Rules: o.rules(nil)})
			if err != nil {
				t.Fatal(err)
			}
			n.outputs = append(n.outputs, &nodeOutput{Actuator: a, config: o, line: line})
		}
		gate := n.outputs[0]
		if _, err := gate.Do(actuator.Command{Action: actuator.On}); err != nil {
			t.Fatal(err)
		}
		var deaf atomic.Bool
		deaf.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &watchdog{every: watchEvery, healthy: n.tellHealth, feed: func() {}, log: slog.New(slog.DiscardHandler)}
		w.hears = func(context.Context) error {
			if deaf.Load() {
				return errors.New("deaf")
			}
			return nil
		}
		go w.watch(ctx)
		wait := func(d time.Duration, gate, alarm gpio.Level) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if chip.Level("GPIO17") != gate || chip.Level("GPIO18") != alarm {
				t.Errorf("gate %v, alarm %v", chip.Level("GPIO17"), chip.Level("GPIO18"))
			}
		}
		wait(27*time.Second, gpio.High, gpio.Low)
		wait(2*time.Second, gpio.Low, gpio.High)
		if _, err := gate.Do(actuator.Command{Action: actuator.On}); err == nil {
			t.Error("a command was carried out")
		}
		deaf.Store(false)
		wait(watchEvery, gpio.Low, gpio.High) // until somebody says otherwise
		if _, err := gate.Do(actuator.Command{Action: actuator.On}); err != nil {
			t.Error(err)
		}
		wait(0, gpio.High, gpio.High)
		if err := n.closeOutputs(); err != nil {
			t.Error(err)
		}
		wait(0, gpio.Low, gpio.High)
	})
}

// slowDisk is a Store that tells what its test wants to know while it saves.
type slowDisk struct{ saving func() }

func (d slowDisk) Save(actuator.Record) error {
	d.saving()
	return nil
}

// The disk may take its time for what an output was: the lines do not wait for it.
func TestOutputsGoOffBeforeTheyAreKept(t *testing.T) {
	chip, n, saved := gpiotest.New(), &node{}, 0
	for _, name := range []string{"GPIO17", "GPIO18"} {
		line, err := gpio.OpenOutput(chip, gpio.OutputConfig{Line: name})
		if err != nil {
			t.Fatal(err)
		}
		disk := slowDisk{func() {
			saved++
			if chip.Level("GPIO17") != gpio.Low || chip.Level("GPIO18") != gpio.Low {
				t.Error("a line is still on")
			}
		}}
		a, err := actuator.New(actuator.Config{Name: name, Driver: line, Store: disk, Restore: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		n.outputs = append(n.outputs, &nodeOutput{Actuator: a, line: line})
	}
	for _, o := range n.outputs {
		if _, err := o.Do(actuator.Command{Action: actuator.On}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.closeOutputs(); err != nil {
		t.Error(err)
	}
	if saved != len(n.outputs) {
		t.Errorf("kept %d times", saved)
	}
}
