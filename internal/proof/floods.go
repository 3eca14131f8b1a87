package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"pinseal/signing"
)

// flood is what another identity does to the node while a good client commands it.
type flood struct {
	name      string
	perSecond func(s scale) int
	// messages are sent in turns, to the topic of the good client's commands.
	messages func(ctx context.Context, g *goodClient) ([][]byte, error)
}

func floodKinds() []flood {
	forgeries := func(s scale) int { return s.forgeriesPerSecond }
	return []flood{
		{"forged messages: bad signatures under a trusted key, unknown keys, no messages at all", forgeries, forged},
		{"forged messages: bad signatures under a trusted key only", forgeries, badSignatures},
		{"replays of genuine commands", forgeries, captured},
		{"oversized payloads, 70 to 120 KiB", func(s scale) int { return s.oversizedPerSecond }, oversized},
	}
}

// floods measures a good client's commands in quiet and under each flood. change may alter the node.
func floods(ctx context.Context, l *lab, kinds []flood, change func(string) string) (_ []*row, err error) {
	n, err := newNode(ctx, l, filepath.Join(l.dir, "floods"), change)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.start(ctx); err != nil {
		return nil, err
	}
	good, err := n.party(operator)
	if err != nil {
		return nil, err
	}
	bad, err := n.party(thief)
	if err != nil {
		return nil, err
	}
	g := &goodClient{scale: l.scale, node: n, owner: good}
	quiet := newRow("commands of a good client in quiet: not acted on")
	l.tell("floods: quiet")
	calm, err := g.command(ctx, quiet)
	if err != nil {
		return []*row{quiet}, err
	}
	quiet.note("p50 %v, p99 %v from publishing to the line, at %d a second", calm.at(50), calm.at(99), l.commandsPerSecond)
	rows := []*row{quiet}
	for _, f := range kinds {
		l.tell("floods: %s", f.name)
		r := newRow("the same under " + f.name)
		rows = append(rows, r)
		if err := g.underFlood(ctx, r, f, bad, calm); err != nil {
			return rows, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return rows, nil
}

func (g *goodClient) underFlood(ctx context.Context, r *row, f flood, bad *party, calm times) error {
	messages, err := f.messages(ctx, g)
	if err != nil {
		return err
	}
	attack, err := launch(ctx, bad, messages, f.perSecond(g.scale))
	if err != nil {
		return err
	}
	under, err := g.command(ctx, r)
	sent, rate, attackErr := attack.stop()
	if err := errors.Join(err, attackErr); err != nil {
		return err
	}
	r.note("p50 %v, p99 %v: %.1f times the quiet p99; %d messages of the flood, %.0f a second",
		under.at(50), under.at(99), float64(under.at(99))/float64(calm.at(99)), sent, rate)
	return nil
}

// goodClient commands one line at a steady pace.
type goodClient struct {
	scale
	node  *node
	owner *party
}

// command gives commands for a while, each of which must be acted on once, and returns how long they took to the change
// of the line.
func (g *goodClient) command(ctx context.Context, r *row) (taken times, err error) {
	answers := newTally()
	c, err := g.owner.dial(ctx, func(_ string, payload []byte) {
		if reasonOf(payload) == signing.ReasonApplied {
			answers.add(signing.ReasonApplied)
		}
	}, verdictsTo(operator))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	before, err := g.node.lines.snapshot()
	if err != nil {
		return nil, err
	}
	pace := time.NewTicker(time.Second / time.Duration(g.commandsPerSecond))
	defer pace.Stop()
	lost := 0
	for range int(g.calm.Seconds() * float64(g.commandsPerSecond)) {
		<-pace.C
		took, err := g.one(ctx, c, r)
		if err != nil {
			return nil, err
		}
		if took > 0 {
			taken = append(taken, took)
		} else if lost++; lost == mostLost {
			r.note("given up after %d were lost", lost)
			break
		}
	}
	if err := answers.await(len(taken)); err != nil {
		r.fail("%d commands were acted on and %d were answered so", len(taken), answers.total)
	}
	after, err := g.node.lines.snapshot()
	if acted := after[ledLine] - before[ledLine]; acted != len(taken) {
		r.fail("%d commands moved the line %d times", len(taken), acted)
	}
	return taken, err
}

// A command counts as lost after a while; after so many a flood has won.
const (
	lostAfter = 2 * time.Second
	mostLost  = 3
)

func (g *goodClient) one(ctx context.Context, c *client, r *row) (took time.Duration, err error) {
	cmd, err := g.owner.toggle(ledLine)
	if err != nil {
		return 0, err
	}
	changed := g.node.lines.next(ledLine)
	begin := time.Now()
	r.try(1)
	if err := c.Publish(ledTopic, cmd.raw); err != nil {
		return 0, err
	}
	select {
	case at := <-changed:
		return at.Sub(begin), nil
	case <-time.After(lostAfter):
		r.fail("a command was not acted on within %v", lostAfter)
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// times are durations.
type times []time.Duration

func (t times) at(percent int) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[(len(sorted)-1)*percent/100].Round(10 * time.Microsecond)
}

// attack is a flood that goes on.
type attack struct {
	quit chan struct{}
	done sync.WaitGroup

	begin time.Time
	took  time.Duration
	sent  int
	err   error
}

// burst is how often a second the flood is sent.
const burst = 200

// launch publishes the messages in turns, so many a second, until the attack is stopped.
func launch(ctx context.Context, bad *party, messages [][]byte, perSecond int) (*attack, error) {
	c, err := bad.dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	a := &attack{quit: make(chan struct{}), begin: time.Now()}
	a.done.Go(func() {
		defer c.Close()
		tick := time.NewTicker(time.Second / burst)
		defer tick.Stop()
		for a.err == nil {
			select {
			case <-a.quit:
				a.took = time.Since(a.begin)
				return
			case <-tick.C:
			}
			due := int(time.Since(a.begin).Seconds()*float64(perSecond)) - a.sent
			portion := make([][]byte, 0, due)
			for i := range due {
				portion = append(portion, messages[(a.sent+i)%len(messages)])
			}
			if len(portion) > 0 {
				a.err = c.Publish(ledTopic, portion...)
			}
			a.sent += due
		}
	})
	return a, nil
}

func (a *attack) stop() (sent int, rate float64, err error) {
	close(a.quit)
	a.done.Wait()
	if a.err != nil {
		return a.sent, 0, fmt.Errorf("the flood ended early: %w", a.err)
	}
	return a.sent, float64(a.sent) / a.took.Seconds(), nil
}

// various is how many messages a flood repeats.
const various = 100

// genuine seals commands of the good client.
func (g *goodClient) genuine() ([][]byte, error) {
	raws := make([][]byte, 0, various)
	for range various {
		cmd, err := g.owner.toggle(ledLine)
		if err != nil {
			return nil, err
		}
		raws = append(raws, cmd.raw)
	}
	return raws, nil
}

// captured are commands that were acted on.
func captured(ctx context.Context, g *goodClient) ([][]byte, error) {
	raws, err := g.genuine()
	if err != nil {
		return nil, err
	}
	answers := newTally()
	c, err := g.owner.dial(ctx, func(_ string, payload []byte) { answers.add(reasonOf(payload)) }, verdictsTo(operator))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answers.expect(signing.ReasonApplied)
	if err := errors.Join(c.Publish(ledTopic, raws...), answers.await(len(raws))); err != nil {
		return nil, err
	}
	if bad := answers.settle(); len(bad) > 0 {
		return nil, fmt.Errorf("genuine commands were refused: %v", bad)
	}
	return raws, nil
}

// badSignatures are commands of the good client with a character of the signature changed.
func badSignatures(_ context.Context, g *goodClient) ([][]byte, error) {
	raws, err := g.genuine()
	for _, raw := range raws {
		c := &raw[len(raw)-40]
		if *c++; *c > 'z' || *c < 'a' {
			*c = 'a'
		}
	}
	return raws, err
}

// forged mixes everything that can be sent without a key that is trusted.
func forged(ctx context.Context, g *goodClient) ([][]byte, error) {
	raws, err := badSignatures(ctx, g)
	if err != nil {
		return nil, err
	}
	unknown, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		return nil, err
	}
	for i := range various {
		raw, err := signing.Seal(unknown, signing.Claims{
			Topic: ledTopic, IssuedAt: time.Now(), Sequence: g.owner.last.Load(), Message: []byte(`"toggle"`),
		})
		if err != nil {
			return nil, err
		}
		raws = append(raws, raw, raws[i][:len(raws[i])/2])
	}
	return raws, nil
}

func oversized(context.Context, *goodClient) ([][]byte, error) {
	var raws [][]byte
	for kib := 70; kib <= 120; kib += 10 {
		raws = append(raws, make([]byte, kib<<10))
	}
	return raws, nil
}
