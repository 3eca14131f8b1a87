package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"pinseal/signing"
	"pinseal/systemd"
)

// watchEvery is how often the node asks itself where systemd does not say.
const watchEvery = 8 * time.Second

// watchdog feeds systemd's only while the node still hears itself, and lets the outputs go where it does not.
type watchdog struct {
	every   time.Duration                   // between two questions, and how long one may take
	hears   func(ctx context.Context) error // nil: a message to ourselves came back verified
	feed    func()
	healthy func(ok bool) // is told when the node has not heard itself for too long, and when it does
	log     *slog.Logger
}

// watch feeds until ctx ends. It never gives up: if the node hears itself again before systemd's patience ends, it lives on.
func (w *watchdog) watch(ctx context.Context) {
	// A timer, and not this loop, which may itself be stuck in a question.
	starves := time.AfterFunc(w.patience(), func() { w.healthy(false) })
	defer starves.Stop()
	for ctx.Err() == nil {
		if err := w.ask(ctx); err != nil {
			if ctx.Err() == nil {
				w.log.Error("the node does not hear itself, systemd's watchdog is not fed", "error", err)
			}
		} else {
			starves.Reset(w.patience())
			w.healthy(true)
			w.feed()
		}
		select {
		case <-time.After(w.every):
		case <-ctx.Done():
		}
	}
}

// patience is how long the outputs trust a node that does not hear itself: longer than one question that fails, shorter
// than systemd does, which is four times every.
func (w *watchdog) patience() time.Duration { return 3*w.every + w.every/2 }

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
	w := &watchdog{every: watchEvery, hears: n.agent.Loopback, feed: n.tellStatus, healthy: n.tellHealth, log: n.log}
	if interval > 0 {
		// A quarter of systemd's patience to wait, and another to hear: one question may fail without harm.
		w.every = interval / 2
		w.feed = func() { n.notify(systemd.Alive); n.tellStatus() }
	}
	w.watch(ctx)
}

func (n *node) tellStatus() { n.notify(func() error { return systemd.Status(n.status()) }) }

// status is the line of `systemctl status`.
func (n *node) status() string {
	words := []string{n.URL()}
	for i, o := range n.config.Outputs {
		words = append(words, fmt.Sprintf("%s (%s) %s", o.Name, o.where(), n.outputs[i].Status().State))
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
	words = append(words, n.outboxStatus()...)
	return strings.Join(words, ", ")
}

func plural(count int, what string) string {
	if count == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", count, what)
}
