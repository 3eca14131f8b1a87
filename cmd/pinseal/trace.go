package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"pinseal/agent"
	"pinseal/broker"
)

type traceCmd struct {
	dirFlag
	Topic   string        `arg:"" optional:"" default:"#" help:"Follow the next message on a topic that matches this filter."`
	Wait    time.Duration `help:"How long to wait for it." default:"1m" placeholder:"TIME"`
	Payload bool          `help:"Show the message itself, too."`
}

// Run asks the running node, which tells step by step.
func (c *traceCmd) Run(ctx context.Context, std streams) error {
	if err := checkFilter(c.Topic); err != nil {
		return usagef("%q is not a topic filter: %v", c.Topic, err)
	}
	err := askNodeLines(ctx, c.layout().control(), c.Wait, func(line string) { fmt.Fprintln(std.out, line) },
		"trace", c.Wait.String(), strconv.FormatBool(c.Payload), url.QueryEscape(c.Topic))
	switch {
	case errors.Is(err, errNotRunning):
		return withHint(err, "start it: %s", c.command("run"))
	case err != nil && err.Error() == errNothingCame.Error(): // it came as text
		return withCode(exitNoAnswer, withHint(err, "a publisher that cannot connect shows above or in the node's log; pinseal doctor HOST on its machine says why"))
	}
	return err
}

var (
	errNothingCame = errors.New("no such message came in time")
	errStopped     = errors.New("the message was not accepted")
)

// maxTraceNotes bounds what is told while the message has not come.
const maxTraceNotes = 20

// trace is one message on its way, seen from both of its halves.
type trace struct {
	node    *node
	filter  string
	payload bool
	lines   chan string // has room for all there can be
	ended   chan error  // has room for one

	claimed atomic.Pointer[string] // the message as the broker saw it
	notes   atomic.Int64
	stopped bool
}

// Trace follows one message and tells what it sees until that has come to its end.
func (n *node) Trace(ctx context.Context, words []string, tell func(string)) error {
	if len(words) != 3 {
		return errors.New("unknown request")
	}
	wait, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	filter, err := url.QueryUnescape(words[2])
	if err != nil {
		return err
	}
	t := &trace{
		node: n, filter: filter, payload: words[1] == "true", lines: make(chan string, 2*maxTraceNotes+32), ended: make(chan error, 1),
	}
	stop, err := t.start()
	if err != nil {
		return err
	}
	defer stop()
	tell("waiting for a message on " + filter)
	return t.follow(ctx, wait, tell)
}

func (t *trace) start() (stop func(), err error) {
	stopAgent, err := t.node.agent.Trace(&agent.Tracer{Wants: t.wants, Step: t.step, Done: t.done})
	if err != nil || t.node.broker == nil {
		return stopAgent, err
	}
	stopBroker, err := t.node.broker.Watch(&broker.Watcher{Published: t.published, Refused: t.refused})
	if err != nil {
		stopAgent()
		return nil, err
	}
	return func() { stopBroker(); stopAgent() }, nil
}

func (t *trace) follow(ctx context.Context, wait time.Duration, tell func(string)) error {
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		select {
		case line := <-t.lines:
			tell(line)
		case err := <-t.ended:
			for len(t.lines) > 0 {
				tell(<-t.lines)
			}
			return err
		case <-end.C:
			return errNothingCame
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *trace) say(format string, args ...any) {
	select {
	case t.lines <- fmt.Sprintf(format, args...):
	default: // more than there can be
	}
}

func (t *trace) end(err error) {
	select {
	case t.ended <- err:
	default: // it has ended
	}
}

// published is what the broker saw: the first message that matches is the one, and the agent knows it again by its bytes.
func (t *trace) published(p broker.Publication, payload []byte) {
	if t.claimed.Load() != nil || !broker.Matches(t.filter, p.Topic) || !t.claimed.CompareAndSwap(nil, new(p.Topic+"\n"+string(payload))) {
		return
	}
	from := fmt.Sprintf("from %s at %s, QoS %d", orDefault(p.Identity, "nobody"), p.Address, p.QoS)
	if t.payload {
		t.say("message: %q", payload)
	}
	switch {
	case p.Decision.Reason != "":
		t.say("STOP   0 %-24s %s on %s: %s (%s)", "broker", from, p.Topic, p.Decision.Reason, orDefault(p.Decision.Source, "no rule allows it"))
		t.end(errStopped)
	case !t.node.agent.Listens(p.Topic):
		t.say("STOP   0 %-24s %s: the node does nothing with messages on %s", "broker", from, p.Topic)
		t.end(errStopped)
	default:
		t.say("ok     0 %-24s %s on %s: allowed by %s", "broker", from, p.Topic, p.Decision.Source)
	}
}

func (t *trace) refused(reason broker.Reason, identity, address, detail string) {
	if t.notes.Add(1) <= maxTraceNotes {
		t.say("note     a connection from %s (%s) was refused or ended: %s %s", address, orDefault(identity, "unknown"), reason, detail)
	}
}

func (t *trace) wants(topic string, payload []byte) bool {
	if t.node.broker == nil {
		return broker.Matches(t.filter, topic)
	}
	seen := t.claimed.Load()
	return seen != nil && *seen == topic+"\n"+string(payload)
}

func (t *trace) step(s agent.Step) {
	if s.Reason == "" {
		t.say("ok    %2d %-24s %s", s.Number, s.Name, s.Detail)
		return
	}
	t.stopped = true
	t.say("STOP  %2d %-24s %s", s.Number, s.Name, strings.TrimSuffix(fmt.Sprintf("%s: %s", s.Reason, s.Detail), ": "))
}

func (t *trace) done() {
	if t.stopped {
		t.end(errStopped)
		return
	}
	t.end(nil)
}
