package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"pinseal/agent/actuator"
)

// maxSwitches is more than a life switches.
const maxSwitches = 1000

// pretended is a line that does as it is told.
type pretended struct{ level uint8 }

func (p *pretended) Drive(level uint8) error { p.level = level; return nil }
func (p *pretended) Level() uint8            { return p.level }

// untrusted is the clock of a machine that has none.
type untrusted struct{}

func (untrusted) Now() time.Time { return time.Unix(1800000000, 0) }
func (untrusted) Trusted() bool  { return false }

// openOutput is an output of which it is kept that it is on, and how often it was switched on.
func openOutput(folder string) (a *actuator.Actuator, kept actuator.Kept, err error) {
	file := actuator.NewFile(filepath.Join(folder, "output"), untrusted{})
	file.Boot = func() (string, time.Duration, error) { return "boot", time.Hour, nil }
	if kept, err = file.Load(); err != nil {
		return nil, kept, fmt.Errorf("%w: %w", errRefused, err)
	}
	a, err = actuator.New(actuator.Config{
		Name: "output", Driver: &pretended{}, Store: file, Restore: time.Hour,
		Rules: actuator.Rules{Switches: maxSwitches, Window: time.Hour},
	})
	if err != nil {
		return nil, kept, err
	}
	a.Recall(kept.Record, 0)
	return a, kept, nil
}

// liveOutputs switches an output on and off.
func liveOutputs(folder string, tell func(string, ...any)) error {
	a, _, err := openOutput(folder)
	if err != nil {
		return err
	}
	for range versions {
		for _, action := range []actuator.Action{actuator.On, actuator.Off} {
			tell("asking for %s", action)
			if _, err := a.Do(actuator.Command{Action: action}); err != nil {
				return err
			}
			tell("%s", action)
		}
	}
	return a.Close()
}

// judgeOutputs: it is known that the output is off once that was said, and how often it was switched on.
func judgeOutputs(folder string, marks []string) error {
	a, kept, err := openOutput(folder)
	if err != nil {
		return err
	}
	switched, last := 0, "off"
	for _, last = range marks {
		if last == "on" {
			switched++
		}
	}
	switch {
	case len(kept.Switched) < switched:
		err = fmt.Errorf("switched on %d times, and %d are known", switched, len(kept.Switched))
	case last == "off" && kept.On, last == "on" && !kept.On:
		err = fmt.Errorf("%s, and kept as on: %v", last, kept.On)
	case a.Resume(0) != kept.On:
		err = fmt.Errorf("kept as on: %v, and not resumed so", kept.On)
	default:
		_, err = a.Do(actuator.Command{Action: actuator.Off})
	}
	return errors.Join(err, a.Close())
}
