package main

import (
	"bytes"
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
	"pinseal/internal/freeport"
	"pinseal/internal/load"
)

const (
	edges        = 100
	edgeInterval = 100 * time.Millisecond // slower than what a node reports of an input at most
	diskSettle   = 10 * time.Second       // the first numbers are reserved by then

	sensingNode = "sensing"
	sensorNode  = "attic"
	button      = "GPIO22"
)

const sensingBlocks = `
[[input]]
name = "button"
line = "GPIO22"
debounce = "0s"
`

// sensorToml is a machine with one sensor that reports every second.
const sensorToml = `
[agent]
bundle = %q

[clock]
trust = "always"

[gpio]
chip = "none"

[[sensor]]
name = "uptime"
kind = "uptime"
interval = "1s"
`

// sensing measures inputs and the outbox, and prints a table of its own: there is nothing to compare with.
func sensing(ctx context.Context, program string, at place, minutes float64, out io.Writer, tell func(string)) (err error) {
	s, err := newSensing(ctx, program, at)
	if err != nil {
		return err
	}
	receiver, err := s.spawn(ctx, sensingNode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, receiver.stop()) }()
	tell("edge in to sealed telemetry out")
	times, err := s.edges(ctx)
	if err != nil {
		return explain(err, receiver.stack)
	}
	sender, err := s.spawn(ctx, sensorNode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sender.stop()) }()
	tell("bytes written to the disk")
	written, err := writtenPerDay(ctx, time.Duration(minutes*float64(time.Minute)), sender, receiver)
	if err != nil {
		return explain(err, sender.stack)
	}
	tell("")
	var text bytes.Buffer
	fmt.Fprintf(&text, "\ninputs and the outbox, simulated lines\n\n")
	for _, row := range []struct {
		value  float64
		digits int
		name   string
	}{
		{milliseconds(percentile(times, 50)), 2, "edge in to sealed telemetry out, p50, ms"},
		{milliseconds(percentile(times, 99)), 2, "edge in to sealed telemetry out, p99, ms"},
		{written[0] / 1e6, 1, "MB written to the disk a day by who sends telemetry every second (target: below 20)"},
		{written[1] / 1e6, 1, "MB written to the disk a day by who receives it"},
	} {
		fmt.Fprintf(&text, "%10.*f  %s\n", row.digits, row.value, row.name)
	}
	_, err = out.Write(text.Bytes())
	return err
}

// sensingRun is the two nodes.
type sensingRun struct {
	program, address, memory string
	at                       place
}

func (s *sensingRun) dir(name string) string { return filepath.Join(s.at.disk, name) }

// newSensing makes the files. What lies in /run lies in memory, as it does there.
func newSensing(ctx context.Context, program string, at place) (*sensingRun, error) {
	s := &sensingRun{program: program, at: at}
	var err error
	if s.memory, err = os.MkdirTemp(at.memory, "run-"); err != nil {
		return nil, err
	}
	if s.address, err = freeport.Address(); err != nil {
		return nil, err
	}
	dir, bundle := s.dir(sensingNode), s.dir("bundle")
	for _, args := range [][]string{
		{"init", "--dir", dir, "--node", sensingNode, "--operator", signer, "--topic", topic, "--chip", "sim", "--listen", s.address},
		{"device", "add", sensorNode, "--dir", dir, "--out", bundle},
	} {
		if text, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil { //nolint:gosec // just built
			return nil, fmt.Errorf("pinseal %s: %w\n%s", args[0], err, text)
		}
	}
	if err := appendTo(filepath.Join(dir, "pinseal.toml"), sensingBlocks); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.dir(sensorNode), 0o700); err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, sensorToml, bundle)
	if err := os.WriteFile(filepath.Join(s.dir(sensorNode), "pinseal.toml"), text, 0o600); err != nil {
		return nil, err
	}
	for _, name := range []string{sensingNode, sensorNode} {
		run := filepath.Join(s.memory, name)
		if err := errors.Join(os.MkdirAll(run, 0o700), os.RemoveAll(filepath.Join(s.dir(name), "run")), os.Symlink(run, filepath.Join(s.dir(name), "run"))); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *sensingRun) spawn(ctx context.Context, name string) (*life, error) {
	st := &stack{name: name, processes: [][]string{{s.program, "run", "--dir", s.dir(name)}}, log: s.dir(name + ".log")}
	return st.spawn(ctx)
}

// edges measures from just before the level is written until the sealed message is in the client's hands.
func (s *sensingRun) edges(ctx context.Context) (times []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, edges*edgeInterval+2*patience)
	defer cancel()
	cfg, err := bundle{s.dir(sensingNode)}.tls()
	if err != nil {
		return nil, err
	}
	arrived := make(chan time.Time, edges)
	client, err := dial(ctx, s.address, cfg, load.Options{
		Filters: []string{agent.TelemetryTopic(sensingNode, "button")},
		Hear: func(_, _ []byte) {
			select {
			case arrived <- time.Now():
			default: // more than was asked for
			}
		},
	})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	line, err := os.OpenFile(filepath.Join(s.memory, sensingNode, "lines", button), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, line.Close()) }()
	for i := range edges {
		time.Sleep(edgeInterval)
		for len(arrived) > 0 {
			<-arrived // how things stood at the start
		}
		begin := time.Now()
		if _, err := line.WriteAt([]byte(strconv.Itoa((i+1)%2)), 0); err != nil {
			return nil, err
		}
		select {
		case at := <-arrived:
			times = append(times, at.Sub(begin))
		case <-ctx.Done():
			return nil, fmt.Errorf("edge %d was not reported: %w", i, ctx.Err())
		}
	}
	return times, nil
}

func wait(ctx context.Context, length time.Duration) error {
	select {
	case <-time.After(length):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writtenPerDay is what processes have the disk write, by what the kernel charges them with (write_bytes, proc_pid_io(5)).
func writtenPerDay(ctx context.Context, length time.Duration, lives ...*life) ([]float64, error) {
	look := func() (bytes []float64, err error) {
		for _, l := range lives {
			n, err := field(fmt.Sprintf("/proc/%d/io", l.commands[0].Process.Pid), "write_bytes:")
			if err != nil {
				return nil, err
			}
			bytes = append(bytes, n)
		}
		return bytes, nil
	}
	if err := wait(ctx, diskSettle); err != nil {
		return nil, err
	}
	before, err := look()
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, length); err != nil {
		return nil, err
	}
	after, err := look()
	if err != nil {
		return nil, err
	}
	for i := range after {
		after[i] = (after[i] - before[i]) * float64(24*time.Hour) / float64(length)
	}
	return after, nil
}

// field reads a number behind its name, from a file of /proc with one on each line.
func field(path, name string) (float64, error) {
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("%s says no %s", path, name)
}
