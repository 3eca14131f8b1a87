package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"pinseal/agent"
	"pinseal/agent/sensor"

	"golang.org/x/sync/errgroup"
)

// sensorReport is the telemetry of a sensor that is in no batch.
type sensorReport struct {
	Value any         `json:"value"` // a number, a flag or a text
	Unit  string      `json:"unit,omitempty"`
	Time  json.Number `json:"time,omitempty"` // of the measurement; only while the clock is trusted
}

// runSensing reads inputs and sensors and tells of them until ctx ends, or a line cannot be read.
func (n *node) runSensing(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	batches := map[name]*batch{}
	for _, cfg := range n.config.Batches {
		b := &batch{cfg: cfg, node: string(n.config.Node), agent: n.agent, log: n.log.With("part", "batch", "batch", cfg.Name)}
		batches[cfg.Name] = b
		group.Go(func() error { b.run(ctx); return nil })
	}
	for _, in := range n.inputs {
		in.agent, in.batch = n.agent, batches[in.cfg.Batch]
		group.Go(func() error { return in.run(ctx) })
	}
	for _, cfg := range n.config.Sensors {
		s, err := sensor.New(cfg.sensor())
		if err != nil {
			return err // was checked when it was read
		}
		log := n.log.With("part", "sensor", "sensor", cfg.Name)
		report := func(r sensor.Reading, at time.Time) {
			if !n.clock.Trusted() {
				at = time.Time{}
			}
			if b := batches[cfg.Batch]; b != nil {
				b.add(sensor.Record{Name: string(cfg.Name), Reading: r, At: at})
			} else if err := reportReading(n.agent, string(cfg.Name), r, at); err != nil {
				log.Warn("not reported", "error", err)
			}
		}
		failed := func(err error) { log.Warn("not read", "error", err) }
		group.Go(func() error { s.Run(ctx, report, failed); return nil })
	}
	return group.Wait()
}

func reportReading(a *agent.Agent, name string, r sensor.Reading, at time.Time) error {
	report := sensorReport{Value: r.Value, Unit: r.Unit}
	if !at.IsZero() {
		report.Time = sensor.Seconds(at)
	}
	msg, err := json.Marshal(report)
	if err != nil {
		return err
	}
	return a.Report(name, msg)
}

// reporter sends telemetry. *agent.Agent is one.
type reporter interface {
	Report(measure string, msg []byte) error
}

// batch collects readings and sends them together.
type batch struct {
	cfg   batchConfig
	node  string
	agent reporter
	log   *slog.Logger

	mu      sync.Mutex
	records []sensor.Record
}

// add takes what was read at one time; the one that fills the batch sends it.
func (b *batch) add(records ...sensor.Record) {
	b.mu.Lock()
	b.records = append(b.records, records...)
	full := len(b.records) >= int(b.cfg.MaxRecords)
	b.mu.Unlock()
	if full {
		b.send()
	}
}

// run sends at every interval, and what is left when ctx ends.
func (b *batch) run(ctx context.Context) {
	ticker := time.NewTicker(time.Duration(b.cfg.Interval))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			b.send()
		case <-ctx.Done():
			b.send()
			return
		}
	}
}

func (b *batch) send() {
	b.mu.Lock()
	records := b.records
	b.records = nil
	b.mu.Unlock()
	if len(records) == 0 {
		return
	}
	msg, err := sensor.Pack(b.node, records)
	if err == nil {
		err = b.agent.Report(string(b.cfg.Name), msg)
	}
	if err != nil {
		b.log.Warn("not reported", "error", err)
	}
}
