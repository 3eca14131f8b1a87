package main

import (
	"fmt"
	"time"

	"pinseal/gpio"
)

// inputConfig is [[input]]: a line that the node reads. What it reports goes to telemetry/NODE/NAME.
type inputConfig struct {
	Name      name           `toml:"name"`
	Line      string         `toml:"line"`
	Pull      inputPull      `toml:"pull"`
	ActiveLow bool           `toml:"active_low"`
	Debounce  *shortLength   `toml:"debounce"` // nil: defaultDebounce
	Report    reportWhen     `toml:"report"`
	Interval  positiveLength `toml:"interval"`
	Output    name           `toml:"output"` // bound to it
	Action    boundAction    `toml:"action"`
	Batch     name           `toml:"batch"`
}

const (
	defaultDebounce = 10 * time.Millisecond
	maxDebounce     = 10 * time.Second
	defaultInterval = time.Minute
)

// The words of an input.
type (
	inputPull   string        // none, up, down, float
	reportWhen  string        // change, interval, both, never
	boundAction string        // on, off, toggle, follow
	shortLength time.Duration // from 0 to maxDebounce
)

const (
	reportOnChange = "change"
	reportInterval = "interval"
	reportBoth     = "both"
	reportNever    = "never"
	// actionFollow has the output on while the input is.
	actionFollow = "follow"
)

func (p inputPull) check() error { return oneOf(p, "none", "up", "down", "float") }
func (r reportWhen) check() error {
	return oneOf(r, reportOnChange, reportInterval, reportBoth, reportNever)
}
func (a boundAction) check() error { return oneOf(a, "on", "off", "toggle", actionFollow) }

func (d *shortLength) UnmarshalText(text []byte) error {
	length, err := time.ParseDuration(string(text))
	if err != nil || length < 0 || length > maxDebounce {
		return fmt.Errorf(`%q is not a length of time from "0s" to %q`, text, maxDebounce)
	}
	*d = shortLength(length)
	return nil
}

func (i inputConfig) debounce() time.Duration {
	if i.Debounce == nil {
		return defaultDebounce
	}
	return time.Duration(*i.Debounce)
}

func (i inputConfig) gpio() gpio.InputConfig {
	cfg := gpio.InputConfig{Line: i.Line, Pull: pullOf(string(i.Pull)), ActiveLow: i.ActiveLow, Debounce: i.debounce()}
	if i.Pull == "float" {
		cfg.Pull = gpio.PullFloat
	}
	return cfg
}

// fillInInputs gives the defaults of inputs.
func (c *config) fillInInputs() {
	for i := range c.Inputs {
		in := &c.Inputs[i]
		in.Report = reportWhen(orDefault(string(in.Report), reportOnChange))
		if in.Interval == 0 {
			in.Interval = positiveLength(defaultInterval)
		}
	}
}

func (c *config) checkInputs(data []byte) error {
	lines, outputs := map[string]bool{}, map[name]bool{}
	for _, o := range c.Outputs {
		lines[o.Line], outputs[o.Name] = true, true
	}
	names := map[name]bool{}
	for i, in := range c.Inputs {
		here := func(key string) place { return place{"input", i, key} }
		switch {
		case in.Name == "":
			return at(data, here("name"), "an input needs a name")
		case names[in.Name]:
			return at(data, here("name"), "two inputs are named %q", in.Name)
		case in.Line == "":
			return at(data, here("line"), "input %q needs a line, such as \"GPIO22\"", in.Name)
		case lines[in.Line]:
			return at(data, here("line"), "the line %q is used twice", in.Line)
		case (in.Output == "") != (in.Action == ""):
			return at(data, here("output"), "an input that is bound to an output needs both output and action")
		case in.Output != "" && !outputs[in.Output]:
			return at(data, here("output"), "no output is named %q", in.Output)
		}
		names[in.Name], lines[in.Line] = true, true
	}
	return nil
}
