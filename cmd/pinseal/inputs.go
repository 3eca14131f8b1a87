package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/agent/sensor"
	"pinseal/gpio"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// An input that chatters shall not fill the network: of its changes no more than this are reported, always the latest;
// the counts in the next report tell of the others.
const (
	reportsPerSecond = 20
	reportsAtOnce    = 20
)

// input is an [[input]] at work.
type input struct {
	cfg     inputConfig
	gpio    *gpio.Input
	agent   inputAgent
	batch   *batch      // that has its reports; nil: each is a message
	trusted func() bool // whether the wall clock is right
	log     *slog.Logger
	changes chan gpio.Change // the latest that is to be reported
	states  chan bool        // the latest that is to be followed
	failing bool             // the last action found no room
}

// inputAgent is what an input needs of the agent.
type inputAgent interface {
	Press(input, output, action string) error
	reporter
}

// inputReport is the telemetry of an input.
type inputReport struct {
	State     string      `json:"state"`          // ON or OFF
	Count     uint64      `json:"count"`          // pulses since the node started
	PerMinute uint64      `json:"per_minute"`     // in the last minute
	Time      json.Number `json:"time,omitempty"` // of the change, or of now; only while the clock is trusted
}

func (n *node) openInputs() error {
	for _, cfg := range n.config.Inputs {
		in, err := gpio.OpenInput(n.chip, cfg.gpio())
		if err != nil {
			return fmt.Errorf("input %s: %w", cfg.Name, err)
		}
		log := n.log.With("part", "input", "input", cfg.Name)
		n.inputs = append(n.inputs, newInput(cfg, in, nil, log, n.clock.Trusted))
		n.log.Info("input held", "input", cfg.Name, "line", cfg.Line, "on", in.On())
	}
	return nil
}

func newInput(cfg inputConfig, line *gpio.Input, a inputAgent, log *slog.Logger, trusted func() bool) *input {
	return &input{
		cfg: cfg, gpio: line, agent: a, trusted: trusted, log: log, changes: make(chan gpio.Change, 1), states: make(chan bool, 1),
	}
}

// run reads the input and tells of it until ctx ends.
func (i *input) run(ctx context.Context) error {
	if i.cfg.Action == actionFollow {
		i.act(i.gpio.On())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return i.gpio.Run(ctx, i.changed) })
	group.Go(func() error { i.report(ctx); return nil })
	group.Go(func() error { i.follow(ctx); return nil })
	return group.Wait()
}

// changed takes a change; it does not wait for anything.
func (i *input) changed(c gpio.Change) {
	i.act(c.On)
	replace(i.changes, c)
}

// replace puts something into a channel that holds one, in the place of what it has overtaken. One goroutine puts.
func replace[T any](holder chan T, with T) {
	select {
	case <-holder:
	default:
	}
	holder <- with
}

// act does what the input is bound to. Nothing is asked of the broker for that, nor of the clock.
func (i *input) act(on bool) {
	switch action := string(i.cfg.Action); {
	case action == actionFollow:
		replace(i.states, on)
	case action != "" && on:
		i.note(i.press(action))
	}
}

// follow has the output do as the input does. One that has too much to do is told later how things are then: it must
// not stay on because the last of many changes found no room.
func (i *input) follow(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	<-again.C
	for on := false; ; {
		select {
		case on = <-i.states:
		case <-again.C:
		case <-ctx.Done():
			return
		}
		action := actuator.Off
		if on {
			action = actuator.On
		}
		err := i.press(string(action))
		if errors.Is(err, agent.ErrBusy) {
			again.Reset(followAgain)
		}
		i.note(err)
	}
}

// followAgain is how long an output that has too much to do is left alone.
const followAgain = 10 * time.Millisecond

func (i *input) press(action string) error {
	return i.agent.Press(string(i.cfg.Name), string(i.cfg.Output), action)
}

// note logs the first of several failures.
func (i *input) note(err error) {
	if err != nil && !i.failing {
		i.log.Warn("output not switched", "output", i.cfg.Output, "error", err)
	}
	i.failing = err != nil
}

// report publishes changes and counts until ctx ends, and first how things stand.
func (i *input) report(ctx context.Context) {
	if i.cfg.Report == reportNever {
		return
	}
	limit := rate.NewLimiter(reportsPerSecond, reportsAtOnce)
	ticker := time.NewTicker(time.Duration(i.cfg.Interval))
	defer ticker.Stop()
	i.send(i.gpio.On(), time.Now())
	for {
		select {
		case c := <-i.changes:
			if i.cfg.Report == reportInterval {
				continue
			}
			i.send(c.On, c.At)
			if limit.Wait(ctx) != nil {
				return
			}
		case now := <-ticker.C:
			if i.cfg.Report != reportOnChange {
				i.send(i.gpio.On(), now)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (i *input) send(on bool, at time.Time) {
	r := inputReport{State: agent.Off}
	if on {
		r.State = agent.On
	}
	r.Count, r.PerMinute = i.gpio.Pulses(time.Now())
	if !i.trusted() {
		at = time.Time{}
	}
	if i.batch != nil {
		i.batch.add(r.records(string(i.cfg.Name), at)...)
		return
	}
	if !at.IsZero() {
		r.Time = sensor.Seconds(at)
	}
	msg, err := json.Marshal(r)
	if err == nil {
		err = i.agent.Report(string(i.cfg.Name), msg)
	}
	if err != nil {
		i.log.Warn("not reported", "error", err)
	}
}

// records is the report in SenML: the state as a flag, and the two counts under the input's name.
func (r inputReport) records(name string, at time.Time) []sensor.Record {
	number := func(what string, n uint64, unit string) sensor.Record {
		return sensor.Record{Name: name + "/" + what, Reading: sensor.Reading{Value: float64(n), Unit: unit}, At: at}
	}
	return []sensor.Record{
		{Name: name, Reading: sensor.Reading{Value: r.State == agent.On}, At: at},
		number("count", r.Count, "count"), number("per_minute", r.PerMinute, "1/min"),
	}
}
