package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
)

type watchCmd struct {
	connectFlags
}

// Run shows what the node does until it is told to end. On a terminal that is a screen that changes; anywhere else a
// line for each event.
func (c *watchCmd) Run(ctx context.Context, std streams) (err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	settings, err := c.client(std)
	if err != nil {
		return err
	}
	w := &watcher{arrived: make(chan mqtt.Message, 1024), up: make(chan bool, 16), notices: make(chan string, 1)}
	if w.board, err = settings.newBoard(); err != nil {
		return err
	}
	connection, err := w.open(ctx, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	terminal, err := openWindow(std, stop)
	if err != nil {
		return err
	}
	if terminal == nil {
		settings.keepRenewed(ctx)
		return w.lines(ctx, std)
	}
	defer func() { err = errors.Join(err, terminal.Close()) }()
	settings.warn = func(text string) { // standard error may be the screen, too
		select {
		case w.notices <- text:
		case <-ctx.Done():
		}
	}
	settings.keepRenewed(ctx)
	return w.draw(ctx, terminal)
}

// newBoard reads the keys that verdicts and readings are opened with.
func (c *client) newBoard() (*board, error) {
	if c.Node == "" {
		return nil, noBundle("--node")
	}
	keyring, err := c.readSigners()
	if err != nil {
		return nil, err
	}
	secrets, err := newCryptor(c.secrets, nil, nil)
	if err != nil {
		return nil, err
	}
	return newBoard(c.Node, keyring, secrets), nil
}

// open connects and subscribes to as much as the broker lets this client see.
func (w *watcher) open(ctx context.Context, c *client) (*mqtt.Client, error) {
	tell := func(up bool) {
		select {
		case w.up <- up:
		case <-ctx.Done():
		}
	}
	connection, err := c.connect(ctx, mqtt.Config{
		CleanSession: true,
		OnMessage: func(m mqtt.Message, ack func()) {
			select {
			case w.arrived <- m:
				ack()
			case <-ctx.Done():
			}
		},
		OnUp:   func() { tell(true) },
		OnDown: func(error) { tell(false) },
	})
	if err != nil {
		return nil, err
	}
	for _, filter := range w.board.filters(c.Name) {
		err := connection.Subscribe(ctx, mqtt.Subscription{Filter: filter, QoS: 1})
		if errors.Is(err, mqtt.ErrSubscriptionRefused) {
			w.board.hidden = append(w.board.hidden, filter)
		} else if err != nil {
			return nil, errors.Join(c.explain(err), connection.Close())
		}
	}
	return connection, nil
}

// watcher takes what arrives to who shows it.
type watcher struct {
	board   *board
	arrived chan mqtt.Message
	up      chan bool // whether there is a connection
	notices chan string
}

// lines prints a line for each event.
func (w *watcher) lines(ctx context.Context, std streams) error {
	for {
		select {
		case m := <-w.arrived:
			now := time.Now()
			if line := w.board.take(m, now); line != "" {
				if _, err := fmt.Fprintf(std.out, "%s %s\n", now.Format(time.RFC3339), line); err != nil {
					return err
				}
			}
		case up := <-w.up:
			if up != w.board.connected {
				fmt.Fprintf(std.out, "%s connected: %v\n", time.Now().Format(time.RFC3339), up)
			}
			w.board.connected = up
		case <-ctx.Done():
			return nil
		}
	}
}

// drawEvery is how often a changed screen is drawn; ages are drawn anew every second.
const drawEvery = 100 * time.Millisecond

// draw keeps the screen as it should be.
func (w *watcher) draw(ctx context.Context, t *window) error {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	changed, drawn := true, time.Time{}
	for {
		select {
		case m := <-w.arrived:
			w.board.take(m, time.Now())
			changed = true
		case w.board.connected = <-w.up:
			changed = true
		case w.board.notice = <-w.notices:
			changed = true
		case <-resized:
			changed, drawn = true, time.Time{}
		case now := <-tick.C:
			if !changed && now.Sub(drawn) < time.Second {
				continue
			}
			if err := t.draw(w.board, now); err != nil {
				return err
			}
			changed, drawn = false, now
		case <-ctx.Done():
			return nil
		}
	}
}

// filters are what a client of this name may want to see.
func (b *board) filters(name string) []string {
	filters := []string{
		agent.AvailabilityTopic(b.node), agent.StateTopic(b.node, "+"), agent.StatusTopic(b.node, "+"),
		agent.VerdictTopic(b.node, "+"), "verified/#", "telemetry/#",
	}
	if name != "" {
		filters = append(filters, agent.VerdictTopic(b.node, name))
	}
	return filters
}
