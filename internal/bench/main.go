// Command bench measures pinseal beside the stack that it replaces: Debian's mosquitto with mutual TLS and an agent of
// paho-python and python-ecdsa (legacy/agent.py), which does the legacy scheme.
//
//	go run ./internal/bench [-rounds 5] [-brokers [-row TEXT]] [-sensing [-minutes 1]]
//
// Both do the same work on the same machine in the same run, in turns, with the same certificates and the same client:
// what differs from one run to another, or with what else the machine does, shows in both, so that the ratios are what
// to look at. Every figure is the median over the rounds. Nothing is asserted. docs/performance.md explains the rows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/term"
)

// brokerRounds are enough for the brokers, unless they are all that is measured.
const brokerRounds = 3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rounds := flag.Int("rounds", 5, "how often to measure; the table has the medians")
	only := flag.Bool("brokers", false, "only measure the brokers, pinseal's and mosquitto")
	idle := flag.Bool("idle", false, "only measure what a node costs that nobody asks for anything")
	senses := flag.Bool("sensing", false, "only measure inputs and the outbox")
	minutes := flag.Float64("minutes", 1, "how long to look at what is written to the disk for telemetry")
	row := flag.String("row", "", "with -brokers or -profile, only rows of the brokers' table that have this `text` in their name")
	alone := flag.Bool("alone", false, "only measure what a command costs that comes alone")
	program := flag.String("program", "", "with -alone, another pinseal than this one: its `file`")
	profile := flag.String("profile", "", "only load pinseal and write its CPU profile to this `file`")
	flag.Parse()
	var err error
	if *profile != "" {
		err = runProfile(ctx, *profile, *row)
	} else {
		err = run(ctx, max(*rounds, 1), parts{*only, *idle, *senses, *alone, *minutes, *row, *program}, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1) //nolint:forbidigo // this is the main of a program
	}
}

// parts says what of all is measured.
type parts struct {
	onlyBrokers, onlyIdle, onlySensing, onlyAlone bool

	minutes float64 // of sensing
	row     string  // of the brokers
	program string  // of onlyAlone
}

func run(ctx context.Context, rounds int, p parts, out io.Writer) (err error) {
	at, err := makePlace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.remove()) }()
	tell := progress(os.Stderr)
	program := p.program
	if program == "" {
		tell("building pinseal")
		program = filepath.Join(at.disk, "pinseal")
		if err := build(ctx, program); err != nil {
			return err
		}
	}
	if p.onlyAlone {
		return measureAlone(ctx, program, rounds, out, tell)
	}
	if p.onlyIdle {
		return measureIdle(ctx, program, out, tell)
	}
	if p.onlySensing {
		return sensing(ctx, program, at, p.minutes, out, tell)
	}
	us, err := ours(ctx, program, at)
	if err != nil {
		return err
	}
	them, err := theirs(at)
	if err != nil {
		return err
	}
	r, brokers, begin := results{}, brokerResults{}, time.Now()
	alone := mosquittoAlone(them)
	for i := range rounds {
		tell := func(what string) { tell(fmt.Sprintf("round %d of %d: %s", i+1, rounds, what)) }
		if !p.onlyBrokers {
			if err := round(ctx, r, us, them, tell); err != nil {
				return err
			}
		}
		if i >= brokerRounds && !p.onlyBrokers {
			continue
		}
		if err := brokers.brokers(ctx, us, alone, p.row, tell); err != nil {
			return err
		}
	}
	tell("")
	if p.onlyBrokers {
		return brokers.write(out)
	}
	return errors.Join(r.write(out, rounds, time.Since(begin)), brokers.write(out), measureIdle(ctx, program, out, tell),
		sensing(ctx, program, at, p.minutes, out, tell))
}

// round measures every stack once, and the bare operations.
func round(ctx context.Context, r results, us, them *stack, tell func(string)) error {
	for _, s := range []*stack{us, them} {
		f, err := live(ctx, s, func(what string) { tell(s.name + ", " + what) })
		if err != nil {
			return explain(err, s)
		}
		r.add(s.name, f)
	}
	tell("bare operations")
	return errors.Join(r.addVerification(), r.addDisk(filepath.Dir(us.log)))
}

// explain adds the end of what the processes printed.
func explain(err error, s *stack) error {
	log, readErr := os.ReadFile(s.log)
	if readErr != nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w\n%s", err, log[max(0, len(log)-2000):])
}

// build makes the program as it is released.
func build(ctx context.Context, to string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-o", to}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "pinseal/cmd/pinseal")...) //nolint:gosec // our own arguments
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building pinseal: %w\n%s", err, out)
	}
	return nil
}

// progress shows on a terminal what is being measured.
func progress(to *os.File) func(string) {
	if !term.IsTerminal(int(to.Fd())) {
		return func(string) {}
	}
	return func(what string) {
		_, _ = fmt.Fprintf(to, "\r\x1b[K%s", what) // nobody's loss
	}
}
