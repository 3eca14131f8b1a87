package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pinseal/agent"
	"pinseal/internal/load"
)

// idleFor is how long a node with nothing to do is watched, after it has settled.
const idleFor = 15 * time.Second

// idleNode is a node that nobody asks for anything.
type idleNode struct {
	name   string
	config string // beside what init made
	before string // command to the output o1, as a bare word; empty: none
}

func idleNodes() []idleNode {
	var outputs, rest strings.Builder
	for i := range 3 { // init has made one
		fmt.Fprintf(&outputs, "\n[[output]]\nname = \"o%d\"\nline = \"GPIO%d\"\nmax_on = \"1h\"\nmin_off = \"1ms\"\n", i+1, 20+i)
		fmt.Fprintf(&outputs, "\n[[permit]]\nsigner = %q\noutput = \"o%d\"\nactions = [\"blink\"]\n", signer, i+1)
	}
	for i := range 4 {
		fmt.Fprintf(&rest, "\n[[input]]\nname = \"i%d\"\nline = \"GPIO%d\"\npull = \"down\"\n", i+1, 5+i)
	}
	for _, kind := range []string{"load", "memory", "disk", "uptime"} {
		fmt.Fprintf(&rest, "\n[[sensor]]\nname = %q\nkind = %q\n", kind, kind)
	}
	rest.WriteString("\n[[sensor]]\nname = \"file\"\nkind = \"file\"\npath = \"/proc/sys/kernel/pid_max\"\n")
	return []idleNode{
		{"1 output", "", ""},
		{"4 outputs with rules", outputs.String(), ""},
		{"4 outputs with rules, 4 inputs, 5 sensors", outputs.String() + rest.String(), ""},
		{"the same, one output blinking once a second", outputs.String() + rest.String(), `"blink"`},
	}
}

// idleCost is what a process took while it was watched.
type idleCost struct {
	processor time.Duration
	wakeUps   int // times that a thread was put on a processor
}

// measureIdle writes a table of what nodes cost that nobody asks for anything.
func measureIdle(ctx context.Context, program string, out io.Writer, tell func(string)) error {
	fmt.Fprintf(out, "\nidle, watched for %s:\n\n%10s%12s\n", idleFor, "% of CPU", "wake-ups/s")
	for _, n := range idleNodes() {
		tell("idle: " + n.name)
		c, err := n.measure(ctx, program)
		if err != nil {
			return fmt.Errorf("a node with %s: %w", n.name, err)
		}
		fmt.Fprintf(out, "%10.2f%12.1f  %s\n", 100*c.processor.Seconds()/idleFor.Seconds(), float64(c.wakeUps)/idleFor.Seconds(), n.name)
	}
	return nil
}

func (n idleNode) measure(ctx context.Context, program string) (c idleCost, err error) {
	at, err := makePlace()
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, at.remove()) }()
	s, err := ours(ctx, program, at)
	if err != nil {
		return c, err
	}
	if err := appendTo(filepath.Join(at.disk, "ours", "pinseal.toml"), n.config); err != nil {
		return c, err
	}
	l, err := s.spawn(ctx)
	if err != nil {
		return c, err
	}
	defer func() {
		if stopErr := l.stop(); stopErr != nil {
			err = explain(errors.Join(err, stopErr), s)
		}
	}()
	client, err := dial(ctx, s.address, s.tls, load.Options{ID: "first"}) // returns once the node listens
	if err != nil {
		return c, err
	}
	client.Close()
	if n.before != "" {
		bundle := filepath.Join(at.disk, "ours", "bundles", signer)
		cmd := exec.CommandContext(ctx, program, "pub", "--bundle", bundle, "-t", agent.SetTopic(node, "o1"), "-m", n.before) //nolint:gosec // just built
		if out, err := cmd.CombinedOutput(); err != nil {
			return c, fmt.Errorf("pinseal pub: %w\n%s", err, out)
		}
	}
	return l.watchIdle(ctx)
}

func (l *life) watchIdle(ctx context.Context) (idleCost, error) {
	var samples [2]idleCost
	for i, wait := range []time.Duration{settleTime, idleFor} {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return idleCost{}, ctx.Err()
		}
		var err error
		if samples[i], err = usedSoFar(l.commands[0].Process.Pid); err != nil {
			return idleCost{}, err
		}
	}
	return idleCost{samples[1].processor - samples[0].processor, samples[1].wakeUps - samples[0].wakeUps}, nil
}

// usedSoFar adds up the threads of a process, which a Go program does not end: time on a processor in nanoseconds, time
// waited for one, and times put on one (Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat).
func usedSoFar(pid int) (c idleCost, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return c, err
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			return c, err
		}
		fields := strings.Fields(string(text))
		if len(fields) != 3 {
			return c, fmt.Errorf("%s has %d fields", path, len(fields))
		}
		on, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return c, err
		}
		times, err := strconv.Atoi(fields[2])
		if err != nil {
			return c, err
		}
		c.processor += time.Duration(on)
		c.wakeUps += times
	}
	return c, nil
}
