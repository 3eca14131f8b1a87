package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"pinseal/systemd"

	"golang.org/x/sync/errgroup"
)

type runCmd struct {
	dirFlag
	Config string `help:"Read this configuration instead." type:"existingfile" placeholder:"FILE"`
}

// Run is the node: it ends with the context, on SIGTERM or SIGINT, or when a part of it fails.
func (c *runCmd) Run(ctx context.Context, std streams) error {
	l := c.layout()
	if c.Config != "" {
		l = l.withConfig(c.Config)
	}
	cfg, err := readConfig(l.config)
	if err != nil {
		return err
	}
	if err := c.becomeServiceUser(); err != nil {
		return err
	}
	ctx, stop := untilTold(ctx)
	defer stop()
	// Whoever read its log may go, with the pipe to it broken: nothing has to be switched off for that.
	signal.Ignore(syscall.SIGPIPE)

	log := newLogger(std.err, cfg.Log)
	n, err := newNode(l, cfg, log, std.clock())
	if err != nil {
		return err
	}
	return serve(ctx, n, std.err)
}

// serve runs a node, announces when it is ready and reloads it on SIGHUP and when its files have changed.
func serve(ctx context.Context, n *node, announce io.Writer) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.Run(ctx) })
	group.Go(func() error {
		select {
		case <-n.Ready():
		case <-ctx.Done():
			return nil
		}
		fmt.Fprintf(announce, "ready: %s\n", n.URL())
		n.notify(systemd.Ready)
		n.tellStatus()
		group.Go(func() error { n.keepInformed(ctx); return nil })
		changed := make(chan struct{})
		group.Go(func() error { n.watchFiles(ctx, changed); return nil })
		for {
			select {
			case <-hangup:
				n.reloadAndTell()
			case <-changed:
				n.reloadChanged()
			case <-ctx.Done():
				n.notify(systemd.Stopping)
				return nil
			}
		}
	})
	return group.Wait()
}

// notify tells systemd; that it cannot be told is no reason to stop switching.
func (n *node) notify(what func() error) {
	if err := what(); err != nil {
		n.log.Warn("systemd not notified", "error", err)
	}
}

func (n *node) reloadAndTell() (done bool) {
	n.notify(systemd.Reloading)
	err := n.Reload()
	if err != nil {
		n.log.Error("reload refused, everything stays as it was", "error", err)
	}
	n.notify(systemd.Ready)
	n.tellStatus()
	return err == nil
}

func newLogger(w io.Writer, cfg logConfig) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(cfg.Level)}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
