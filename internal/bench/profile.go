package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed profile/hook.go.txt
var profileHook []byte

// runProfile loads a pinseal that was built with a profiling hook, which the real one has not, and writes what it did:
// with commands, or with a row of the brokers' table.
func runProfile(ctx context.Context, to, row string) (err error) {
	at, err := makePlace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.remove()) }()
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	overlay, err := writeOverlay(ctx, at.disk)
	if err != nil {
		return err
	}
	program := filepath.Join(at.disk, "pinseal")
	if err := build(ctx, program, "-overlay", overlay); err != nil {
		return err
	}
	s, err := ours(ctx, program, at)
	if err != nil {
		return err
	}
	s.env = []string{"PINSEAL_BENCH_PROFILE=" + to}
	l, _, err := start(ctx, s)
	if err != nil {
		return explain(err, s)
	}
	work := (*life).commandLoad
	if row != "" {
		work, err = workOf(row)
	}
	if err == nil {
		err = l.profiled(ctx, to, work)
	}
	if err := errors.Join(err, l.stop()); err != nil {
		return explain(err, s)
	}
	return errors.Join(
		top(ctx, to, "-nodecount=10"),
		top(ctx, to, "-cum", "-show=^pinseal/", "-nodecount=30"), // where in the project the time goes
	)
}

// top prints the largest entries of a profile.
func top(ctx context.Context, profile string, flags ...string) error {
	args := append([]string{"tool", "pprof", "-top"}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, profile)...) //nolint:gosec // the file our user names
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// workOf is the first row of the brokers' table that has the text in its name.
func workOf(row string) (func(l *life, ctx context.Context) error, error) {
	for _, m := range measurements() {
		if strings.Contains(m.row, row) {
			return func(l *life, ctx context.Context) error {
				c, err := m.take(l, ctx)
				fmt.Printf("%s: %.0f\n", m.row, c.perSecond)
				return err
			}, nil
		}
	}
	return nil, fmt.Errorf("no row has %q in its name", row)
}

// profiled loads the stack and profiles it meanwhile.
func (l *life) profiled(ctx context.Context, to string, work func(l *life, ctx context.Context) error) error {
	process := l.commands[0].Process
	if err := process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	if err := work(l, ctx); err != nil {
		return err
	}
	return errors.Join(process.Signal(syscall.SIGUSR1), awaitFile(ctx, to))
}

// commandLoad has commands acted on as fast as they are.
func (l *life) commandLoad(ctx context.Context) error {
	packets, err := l.packets(l.load, alternating)
	if err != nil {
		return err
	}
	rate, _, err := sustained(ctx, l, packets)
	fmt.Printf("%.0f commands a second\n", rate)
	return err
}

// awaitFile waits until the hook has renamed its file to what it is to be called.
func awaitFile(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the profile was not written")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// writeOverlay writes the hook and what tells the go command to take it for a file of cmd/pinseal.
func writeOverlay(ctx context.Context, dir string) (string, error) {
	source, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "pinseal/cmd/pinseal").Output()
	if err != nil {
		return "", fmt.Errorf("looking for cmd/pinseal: %w", err)
	}
	hook, overlay := filepath.Join(dir, "hook.go"), filepath.Join(dir, "overlay.json")
	place := filepath.Join(strings.TrimSpace(string(source)), "bench_profile_hook.go")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {place: hook}})
	if err != nil {
		return "", err
	}
	return overlay, errors.Join(os.WriteFile(hook, profileHook, 0o600), os.WriteFile(overlay, text, 0o600))
}
