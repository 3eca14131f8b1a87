// Command proof tries what must never happen, as often as it takes to believe that it does not, and prints one table:
// what was tried, how often, and what went wrong.
//
//	go run ./internal/proof [-short] [-only WORD]
//
// It exits with 1 if anything went wrong. Every figure is counted in the run that prints it, from outside: from the
// messages that the node publishes, and from the writes to its lines, which the kernel reports (see watch). The tests of
// this package run the same experiments in a short form, and each once more with something broken on purpose, which it
// must notice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"pinseal/agent/outbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	short := flag.Bool("short", false, "the form that the tests run, in seconds")
	only := flag.String("only", "", "only the experiments whose name contains this `word`")
	flag.Parse()
	size := full()
	if *short {
		size = brief()
	}
	wrong, err := run(ctx, size, *only, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "proof: %v\n", err)
	}
	if err != nil || wrong > 0 {
		os.Exit(1) //nolint:forbidigo // this is the main of a program
	}
}

// scale says how often to try.
type scale struct {
	flipped             int // sealed messages whose every bit is flipped
	replays, restarts   int
	telemetry           int
	kills               int
	receiverKills       int
	clockRounds         int
	fullDisk            bool
	cutStep             int           // pages
	calm                time.Duration // how long commands are measured, with and without a flood, if each is acted on in time
	commandsPerSecond   int
	forgeriesPerSecond  int
	oversizedPerSecond  int
	telemetryDuplicates float64 // a share
}

func full() scale {
	return scale{
		flipped: 24, replays: 1_000_000, restarts: 24, telemetry: 1_000_000, kills: 400, receiverKills: 200, clockRounds: 25, cutStep: 1, fullDisk: true, calm: 10 * time.Second,
		commandsPerSecond: 50, forgeriesPerSecond: 10_000, oversizedPerSecond: 200, telemetryDuplicates: 0.1,
	}
}

func brief() scale {
	s := full()
	s.flipped, s.replays, s.restarts, s.telemetry, s.kills, s.receiverKills, s.clockRounds, s.cutStep, s.calm = 2, 2_000, 2, 2_000, 5, 9, 1, 4, 500*time.Millisecond
	s.forgeriesPerSecond, s.fullDisk = 1_000, false
	return s
}

// lab is where experiments are made.
type lab struct {
	scale
	program string // pinseal, as it is released
	dir     string
	random  *rand.Rand
	tell    func(format string, args ...any) // shows what is going on
}

// experiment fills the rows of the table. An error says that it could not be made.
type experiment struct {
	name string
	run  func(ctx context.Context, l *lab) ([]*row, error)
}

func experiments() []experiment {
	return []experiment{
		{"flips", flips},
		{"replays", func(ctx context.Context, l *lab) ([]*row, error) { return replays(ctx, l, nothing) }},
		{"telemetry", func(ctx context.Context, l *lab) ([]*row, error) { return telemetry(ctx, l, tolerated) }},
		{"kills", func(ctx context.Context, l *lab) ([]*row, error) { return kills(ctx, l, nothing) }},
		{"receipts", func(ctx context.Context, l *lab) ([]*row, error) { return receipts(ctx, l, (*outbox.Box).Put) }},
		{"disk", disk},
		{"clock", clocks},
		{"floods", func(ctx context.Context, l *lab) ([]*row, error) { return floods(ctx, l, floodKinds(), usualRates) }},
	}
}

func run(ctx context.Context, size scale, only string, out io.Writer) (wrong int, err error) {
	dir, err := os.MkdirTemp("", "pinseal-proof-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tell := progress(os.Stderr)
	tell("building pinseal")
	l := newLab(size, dir, filepath.Join(dir, "pinseal"), tell)
	if err := build(ctx, l.program); err != nil {
		return 0, err
	}
	t, begin := &table{}, time.Now()
	for _, e := range experiments() {
		if strings.Contains(e.name, only) {
			t.rows = append(t.rows, l.try(ctx, e)...)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	tell("")
	t.took = time.Since(begin)
	return t.wrong(), t.write(out)
}

// try makes an experiment. One that could not be made is nothing that went well.
func (l *lab) try(ctx context.Context, e experiment) []*row {
	l.tell("%s", e.name)
	begin := time.Now()
	rows, err := e.run(ctx, l)
	if err != nil {
		r := newRow(e.name + ": the experiment itself")
		r.fail("%v", err)
		rows = append(rows, r)
	}
	rows[len(rows)-1].note("%s took %v", e.name, time.Since(begin).Round(time.Second/10))
	return rows
}

func newLab(size scale, dir, program string, tell func(string, ...any)) *lab {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) //nolint:gosec // not for keys
	return &lab{scale: size, dir: dir, program: program, random: random, tell: tell}
}

// build makes the program as it is released.
func build(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", to, "pinseal/cmd/pinseal") //nolint:gosec // our own arguments
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building pinseal: %w\n%s", err, text)
	}
	return nil
}

// progress shows on a terminal what is going on.
func progress(to *os.File) func(string, ...any) {
	if !term.IsTerminal(int(to.Fd())) {
		return func(string, ...any) {}
	}
	return func(format string, args ...any) {
		_, _ = fmt.Fprintf(to, "\r\x1b[K"+format, args...) // nobody's loss
	}
}
