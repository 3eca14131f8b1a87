package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pinseal/agent/sensor"
)

// sensorConfig is [[sensor]]: something that the node measures. What it reports goes to telemetry/NODE/NAME, or with
// others into the pack of a [[batch]].
type sensorConfig struct {
	Name      name           `toml:"name"`
	Kind      sensorKind     `toml:"kind"`
	Device    string         `toml:"device"`
	Channel   string         `toml:"channel"`
	Path      string         `toml:"path"`
	Command   []string       `toml:"command"`
	Timeout   positiveLength `toml:"timeout"`
	Scale     float64        `toml:"scale"`
	Unit      senmlUnit      `toml:"unit"`
	Interval  positiveLength `toml:"interval"`
	Threshold float64        `toml:"threshold"`
	AtLeast   positiveLength `toml:"at_least"`
	Batch     name           `toml:"batch"`
}

// batchConfig is [[batch]]: reports of several inputs and sensors in one SenML message.
type batchConfig struct {
	Name       name           `toml:"name"`
	Interval   positiveLength `toml:"interval"`
	MaxRecords limit          `toml:"max_records"`
}

const defaultMaxRecords = 64

type (
	sensorKind string
	senmlUnit  string
)

func (k sensorKind) check() error { return oneOf(sensor.Kind(k), sensor.Kinds()...) }

func (u senmlUnit) check() error {
	if !sensor.KnownUnit(string(u)) {
		return fmt.Errorf("%q is no unit of SenML; those are such as Cel, %%RH, Pa, V, W, /100", u)
	}
	return nil
}

func (s sensorConfig) sensor() sensor.Config {
	return sensor.Config{
		Kind: sensor.Kind(s.Kind), Device: s.Device, Channel: s.Channel, Path: s.Path, Command: s.Command,
		Timeout: time.Duration(s.Timeout), Scale: s.Scale, Unit: string(s.Unit), Interval: time.Duration(s.Interval),
		Threshold: s.Threshold, AtLeast: time.Duration(s.AtLeast),
	}
}

// fillInBatches gives the defaults of batches. Those of sensors are the package's.
func (c *config) fillInBatches() {
	for i := range c.Batches {
		b := &c.Batches[i]
		if b.Interval == 0 {
			b.Interval = positiveLength(defaultInterval)
		}
		if b.MaxRecords == 0 {
			b.MaxRecords = defaultMaxRecords
		}
	}
}

// checkSensors holds the rules of what the node reports: inputs, sensors and batches share their topics.
func (c *config) checkSensors(data []byte) error {
	topics, batches := map[name]bool{}, map[name]bool{}
	for _, in := range c.Inputs {
		topics[in.Name] = true
	}
	take := func(what string, i int, n name) error {
		here := place{what, i, "name"}
		switch {
		case n == "":
			return at(data, here, "a %s needs a name", what)
		case topics[n]:
			return at(data, here, "two things that report are named %q", n)
		}
		topics[n] = true
		return nil
	}
	for i, b := range c.Batches {
		if err := take("batch", i, b.Name); err != nil {
			return err
		}
		batches[b.Name] = true
	}
	for i, in := range c.Inputs {
		switch {
		case in.Batch != "" && !batches[in.Batch]:
			return at(data, place{"input", i, "batch"}, "no batch is named %q", in.Batch)
		case in.Batch != "" && in.Report == reportNever:
			return at(data, place{"input", i, "batch"}, "an input that is never reported is in no batch")
		}
	}
	for i, s := range c.Sensors {
		if err := take("sensor", i, s.Name); err != nil {
			return err
		}
		if s.Batch != "" && !batches[s.Batch] {
			return at(data, place{"sensor", i, "batch"}, "no batch is named %q", s.Batch)
		}
		if s.Kind == "" {
			return at(data, place{"sensor", i, "kind"}, "sensor %q needs a kind", s.Name)
		}
		if err := s.complete(); err != nil {
			return at(data, place{"sensor", i, "kind"}, "%w", err)
		}
	}
	return nil
}

// read reads the sensor once.
func (s sensorConfig) read(ctx context.Context) (sensor.Reading, error) {
	one, err := sensor.New(s.sensor())
	if err != nil {
		return sensor.Reading{}, err
	}
	return one.Read(ctx)
}

func (s sensorConfig) complete() error {
	if len(s.Command) > 0 && s.Kind != sensorKind(sensor.Exec) {
		return errors.New("only a sensor of kind exec has a command")
	}
	_, err := sensor.New(s.sensor())
	return err
}
