package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"pinseal/internal/mqtt"
)

// maxUnacknowledged messages may be on their way to the broker at once: enough that a slow
// network does not slow the lines down, few enough to hold in memory while the broker is away.
const maxUnacknowledged = 64

// pipeline publishes in order without waiting for each acknowledgement.
type pipeline struct {
	mqtt *mqtt.Client
	log  *slog.Logger
	free chan struct{}

	mu  sync.Mutex
	err error // of the first message that could not be published
}

func newPipeline(m *mqtt.Client, log *slog.Logger) *pipeline {
	return &pipeline{mqtt: m, log: log, free: make(chan struct{}, maxUnacknowledged)}
}

// send hands a message over; it waits only while too many are unacknowledged.
func (p *pipeline) send(ctx context.Context, m mqtt.Message) error {
	select {
	case p.free <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mqtt.PublishAsync(m, func(err error) {
		p.mu.Lock()
		p.err = errors.Join(p.err, err)
		p.mu.Unlock()
		<-p.free
		if err == nil {
			p.log.Info("acknowledged", "topic", m.Topic)
		}
	})
	return p.failed()
}

// drain waits until everything sent has been acknowledged.
func (p *pipeline) drain(ctx context.Context) error {
	for range maxUnacknowledged {
		select { // what was acknowledged counts even after an interruption
		case p.free <- struct{}{}:
			continue
		default:
		}
		select {
		case p.free <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("not everything was acknowledged: %w", ctx.Err())
		}
	}
	return p.failed()
}

func (p *pipeline) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
