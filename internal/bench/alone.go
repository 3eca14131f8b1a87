package main

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// alone is a steady stream so slow that each command meets a node with nothing to do.
func alone() pace { return pace{perSecond: 100, messages: 400} }

// measureAlone writes what a command costs that comes alone: the times that a thread of the node was put on a processor
// for it, and the time there; then the time on a processor and the memory under load. All of these depend less than times
// do on what else the machine does.
func measureAlone(ctx context.Context, program string, rounds int, out io.Writer, tell func(string)) (err error) {
	at, err := makePlace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.remove()) }()
	s, err := ours(ctx, program, at)
	if err != nil {
		return err
	}
	l, _, err := start(ctx, s)
	if err != nil {
		return explain(err, s)
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	p := alone()
	fmt.Fprintf(out, "\n%12s%12s%10s%10s%18s%12s\n", "wake-ups", "CPU, µs", "p50, ms", "p99, ms", "CPU of many, µs", "memory, MB")
	for range rounds {
		tell("commands that come alone")
		before, errBefore := usedSoFar(l.commands[0].Process.Pid)
		times, err := latencies(ctx, l, p)
		if err != nil {
			return explain(err, s)
		}
		after, err := usedSoFar(l.commands[0].Process.Pid)
		if err := errors.Join(errBefore, err); err != nil {
			return err
		}
		many := figures{}
		if err := l.underLoad(ctx, many); err != nil {
			return explain(err, s)
		}
		fmt.Fprintf(out, "%12.1f%12.0f%10.2f%10.2f%18.0f%12.1f\n", float64(after.wakeUps-before.wakeUps)/float64(p.messages),
			(after.processor-before.processor).Seconds()*1e6/float64(p.messages),
			milliseconds(percentile(times, 50)), milliseconds(percentile(times, 99)), many[rowCPU], many[rowMemory])
	}
	return nil
}
