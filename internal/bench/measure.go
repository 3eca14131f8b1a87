package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pinseal/internal/load"
)

const (
	patience      = 15 * time.Second
	startPatience = 5 * time.Second
	// windowed is how many commands may be on their way at once: enough to keep both stacks busy, and few enough that
	// mosquitto, which drops what it cannot queue (1000 messages), loses none.
	windowed = 512
	// startInterval is how often the first command is sent until one is acted on.
	startInterval = 2 * time.Millisecond
)

// figures are what one life of a stack gave, by the name of their row.
type figures map[string]float64

// live starts the stack and measures it from its first command to its memory after load.
func live(ctx context.Context, s *stack, tell func(string)) (f figures, err error) {
	f = figures{}
	tell("start")
	l, first, err := start(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	f[rowStart] = milliseconds(first)
	for _, p := range paces() {
		tell(p.p50)
		times, err := latencies(ctx, l, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		f[p.p50], f[p.p99] = milliseconds(percentile(times, 50)), milliseconds(percentile(times, 99))
	}
	tell(rowRate)
	if err := l.underLoad(ctx, f); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return f, nil
}

// underLoad measures the sustained rate and what it takes of the machine.
func (l *life) underLoad(ctx context.Context, f figures) error {
	packets, err := l.packets(l.load, alternating)
	if err != nil {
		return err
	}
	before, errBefore := l.processorTime()
	ownBefore, errOwnBefore := ownProcessorTime()
	if f[rowRate], f[rowLost], err = sustained(ctx, l, packets); err != nil {
		return err
	}
	after, errAfter := l.processorTime()
	own, errOwn := ownProcessorTime()
	kib, err := l.residentKiB()
	f[rowCPU] = (after - before).Seconds() * 1e6 / float64(l.load)
	f[rowOwn] = (own - ownBefore).Seconds() * 1e6 / float64(l.load)
	f[rowMemory] = float64(kib) / 1024
	return errors.Join(errBefore, errOwnBefore, errAfter, errOwn, err)
}

// alternating switches off first: before it, the line is on.
func alternating(i int) bool { return i%2 == 1 }

// start measures the time from starting the processes to the first command acted on.
func start(ctx context.Context, s *stack) (_ *life, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	packets, err := s.packets(int(startPatience/startInterval), func(int) bool { return true })
	if err != nil {
		return nil, 0, err
	}
	w, err := watchLine(s.line)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	begin := time.Now()
	l, err := s.spawn(context.WithoutCancel(ctx))
	if err != nil {
		return nil, 0, err
	}
	changed, err := l.first(ctx, w, packets)
	if err != nil {
		return nil, 0, errors.Join(err, l.stop())
	}
	return l, changed.Sub(begin), nil
}

// first connects and switches on until the line shows it.
func (l *life) first(ctx context.Context, w *watch, packets [][]byte) (at time.Time, err error) {
	o := load.Options{ID: "bench"}
	if l.answers != "" {
		o.Filters, o.Hear = []string{l.answers}, func(_, payload []byte) { l.onAnswer(payload) }
	}
	if l.client, err = dial(ctx, l.address, l.tls, o); err != nil {
		return at, err
	}
	before, err := l.acted()
	if err != nil {
		return at, err
	}
	sent := 0
	for at.IsZero() {
		if sent == len(packets) {
			return at, errors.New("no command was acted on")
		}
		if err := l.client.Send(packets[sent]); err != nil {
			return at, err
		}
		sent++
		pause, cancel := context.WithTimeout(ctx, startInterval)
		at, _ = w.await(pause, true) // not yet is no error
		cancel()
	}
	return at, l.settle(ctx, before)
}

// settle waits until the stack has nothing left to do.
func (l *life) settle(ctx context.Context, before int) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		now, err := l.acted()
		if err != nil || now > 0 && now == before {
			return err
		}
		before = now
	}
}

// pace is a steady stream of commands.
type pace struct {
	perSecond, messages int
	p50, p99            string // names of the rows
}

func paces() []pace {
	return []pace{
		{20, 100, "publish to line, p50 at 20 a second, ms", "publish to line, p99 at 20 a second, ms"},
		{50, 150, "publish to line, p50 at 50 a second, ms", "publish to line, p99 at 50 a second, ms"},
	}
}

// latencies measures from the moment before a command is written to the socket to the change of the line.
func latencies(ctx context.Context, l *life, p pace) (times []time.Duration, err error) {
	packets, err := l.packets(p.messages, alternating)
	if err != nil {
		return nil, err
	}
	w, err := watchLine(l.line)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	tick := time.NewTicker(time.Second / time.Duration(p.perSecond))
	defer tick.Stop()
	for i, packet := range packets {
		<-tick.C
		sent := time.Now()
		if err := l.client.Send(packet); err != nil {
			return nil, err
		}
		changed, err := w.await(ctx, alternating(i))
		if err != nil {
			return nil, err
		}
		times = append(times, changed.Sub(sent))
	}
	return times, nil
}

// sustained sends as fast as the stack acts, with a fixed number of commands on their way.
func sustained(ctx context.Context, l *life, packets [][]byte) (perSecond, lost float64, err error) {
	before, err := l.acted()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	progress, acted, sent := begin, 0, 0
	var batch []byte
	for acted < len(packets) && time.Since(progress) < 3*time.Second && ctx.Err() == nil {
		now, err := l.acted()
		if err != nil {
			return 0, 0, err
		}
		if now-before > acted {
			acted, progress = now-before, time.Now()
		}
		batch = batch[:0]
		for ; sent < len(packets) && sent-acted < windowed; sent++ {
			batch = append(batch, packets[sent]...)
		}
		if len(batch) > 0 {
			if err := l.client.Send(batch); err != nil {
				return 0, 0, err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return float64(acted) / progress.Sub(begin).Seconds(), float64(sent - acted), ctx.Err()
}

// packets seals commands in advance, so that sealing costs neither stack anything.
func (s *stack) packets(n int, on func(i int) bool) ([][]byte, error) {
	packets := make([][]byte, n)
	for i := range packets {
		sealed, err := s.seal(on(i))
		if err != nil {
			return nil, err
		}
		packets[i] = load.EncodePublish(topic, i, sealed)
	}
	return packets, nil
}

func percentile(times []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)-1)*percent/100]
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
