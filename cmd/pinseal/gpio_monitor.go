package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"pinseal/gpio"

	"golang.org/x/sync/errgroup"
)

type gpioMonitorCmd struct {
	chipFlag
	Lines []string      `arg:"" help:"Lines, such as GPIO22."`
	Pull  string        `help:"Bias: none, up or down." default:"none" enum:"none,up,down"`
	Every time.Duration `help:"How often to tell." default:"1s" placeholder:"TIME"`
}

// Run tells of each line, again and again, how often it changed and how briefly, until a signal ends it: what bounces or
// hums is seen at once.
func (c *gpioMonitorCmd) Run(ctx context.Context, std streams) (err error) {
	if c.Every <= 0 {
		return usagef("--every is a length of time above 0")
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	chip, err := c.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	var meters []*lineMeter
	for _, name := range c.Lines {
		line, err := chip.Input(name, pullOf(c.Pull))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, line.Close()) }()
		m := &lineMeter{name: name, line: line}
		meters = append(meters, m)
		group.Go(func() error { return m.run(ctx) })
	}
	group.Go(func() error { return tellMeters(ctx, std, meters, c.Every) })
	return group.Wait()
}

func tellMeters(ctx context.Context, std streams, meters []*lineMeter, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for _, m := range meters {
			text, err := m.take(every)
			if err != nil {
				return err
			}
			fmt.Fprintln(std.out, text)
		}
	}
}

// lineMeter counts the edges of a line.
type lineMeter struct {
	name string
	line gpio.InputLine

	mu       sync.Mutex
	edges    int
	lost     uint32
	last     time.Time     // of the last edge
	shortest time.Duration // between two edges; 0 as long as there were none
}

func (m *lineMeter) run(ctx context.Context) error {
	for {
		edge, err := m.line.WaitEdge(ctx)
		if errors.Is(err, context.Canceled) { // a signal is how monitoring ends
			return nil
		}
		if err != nil {
			return err
		}
		m.count(edge)
	}
}

func (m *lineMeter) count(edge gpio.Edge) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.edges++
	m.lost += edge.Lost
	if since := edge.At.Sub(m.last); !m.last.IsZero() && since > 0 && (m.shortest == 0 || since < m.shortest) {
		m.shortest = since
	}
	m.last = edge.At
}

// take tells of the edges since the last call and begins anew.
func (m *lineMeter) take(every time.Duration) (string, error) {
	level, err := m.line.Level()
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	words := []string{m.name, strings.ToLower(level.String()), plural(m.edges, "edge")}
	if m.edges > 0 {
		words = append(words, fmt.Sprintf("%.1f/s", float64(m.edges)/every.Seconds()))
	}
	if m.shortest > 0 {
		words = append(words, fmt.Sprintf("shortest %s", m.shortest.Round(time.Microsecond)))
	}
	if m.lost > 0 {
		words = append(words, fmt.Sprintf("%d more were too fast", m.lost))
	}
	m.edges, m.lost, m.shortest = 0, 0, 0
	return strings.Join(words, " "), nil
}
