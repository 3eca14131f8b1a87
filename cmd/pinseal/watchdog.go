package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"pinseal/agent"
	"pinseal/signing"
	"pinseal/systemd"
)

// statusEvery is how often systemd's line about the node is brought up to date where there is no watchdog to feed.
const statusEvery = 15 * time.Second

// watchdog feeds systemd's only while the node still hears itself.
type watchdog struct {
	every time.Duration                   // between two questions, and how long one may take
	hears func(ctx context.Context) error // nil: a message to ourselves came back verified
	feed  func()
	log   *slog.Logger
}

// watch feeds until ctx ends. It never gives up: if the node hears itself again before systemd's patience ends, it lives on.
func (w *watchdog) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.ask(ctx); err != nil {
			if ctx.Err() == nil {
				w.log.Error("the node does not hear itself, systemd's watchdog is not fed", "error", err)
			}
		} else {
			w.feed()
		}
		select {
		case <-time.After(w.every):
		case <-ctx.Done():
		}
	}
}

func (w *watchdog) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.every)
	defer cancel()
	return w.hears(ctx)
}

// keepInformed tells systemd how the node is, and that it is, until ctx ends.
func (n *node) keepInformed(ctx context.Context) {
	interval, err := systemd.WatchdogInterval()
	if err != nil {
		n.log.Warn("systemd's watchdog is not fed", "error", err)
	}
	w := &watchdog{every: statusEvery, hears: func(context.Context) error { return nil }, feed: n.tellStatus, log: n.log}
	if interval > 0 {
		// A quarter of systemd's patience to wait, and another to hear: one question may fail without harm.
		w.every, w.hears = interval/2, n.agent.Loopback
		w.feed = func() { n.notify(systemd.Alive); n.tellStatus() }
	}
	w.watch(ctx)
}

func (n *node) tellStatus() { n.notify(func() error { return systemd.Status(n.status()) }) }

// status is the line of `systemctl status`.
func (n *node) status() string {
	words := []string{n.URL()}
	for i, o := range n.config.Outputs {
		state := agent.Off
		if n.outputs[i].On() {
			state = agent.On
		}
		words = append(words, fmt.Sprintf("%s (%s) %s", o.Name, o.Line, state))
	}
	if len(n.outputs) == 0 {
		words = append(words, "no outputs")
	}
	counts := n.agent.Counters()
	applied := counts[signing.ReasonApplied]
	delete(counts, signing.ReasonApplied)
	refused := uint64(0)
	for _, count := range counts {
		refused += count
	}
	words = append(words, plural(int(n.signers.Load()), "signer"), fmt.Sprintf("%d applied", applied), fmt.Sprintf("%d refused", refused))
	return strings.Join(words, ", ")
}

func plural(count int, what string) string {
	if count == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", count, what)
}
