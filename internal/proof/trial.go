package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"pinseal/agent"
	"pinseal/signing"
)

// trial is a node with its operator, who gives one command after the other and looks at the line each time.
type trial struct {
	row     *row
	node    *node
	owner   *party
	client  *client
	answers chan agent.Verdict
	acted   []*command
}

func newTrial(r *row, n *node) (*trial, error) {
	owner, err := n.party(operator)
	return &trial{row: r, node: n, owner: owner, answers: make(chan agent.Verdict, 100)}, err
}

// start starts the node and connects to it.
func (t *trial) start(ctx context.Context) error {
	if err := t.node.start(ctx); err != nil {
		return err
	}
	return t.connect(ctx)
}

func (t *trial) connect(ctx context.Context) (err error) {
	t.client, err = t.owner.dial(ctx, func(_ string, payload []byte) { t.answers <- readVerdict(payload) }, verdictsTo(operator))
	return err
}

// end ends the node.
func (t *trial) end(with syscall.Signal) error {
	if t.client != nil {
		defer t.client.Close()
	}
	return t.node.end(with)
}

// ask publishes a command, waits for the verdict, and fails the row if the line did not do what the verdict says.
func (t *trial) ask(cmd *command) (v agent.Verdict, err error) {
	before, err := t.node.lines.snapshot()
	if err != nil {
		return v, err
	}
	if err := t.client.Publish(commandTopic(cmd.line), cmd.raw); err != nil {
		return v, err
	}
	for v.Sequence != cmd.seq {
		select {
		case v = <-t.answers:
		case <-time.After(patience):
			return v, errUnanswered
		}
	}
	after, err := t.node.lines.snapshot()
	if err != nil {
		return v, err
	}
	t.row.try(1)
	want := 0
	if v.Reason == signing.ReasonApplied {
		want = 1
		t.acted = append(t.acted, cmd)
	}
	if acted := after[cmd.line] - before[cmd.line]; acted != want {
		t.row.fail("a command was answered with %s, and the line changed %d times", v.Reason, acted)
	}
	return v, nil
}

// expect gives n new commands, all of which are to be answered with a reason.
func (t *trial) expect(what string, n int, want signing.Reason) error {
	for range n {
		cmd, err := t.owner.toggle(ledLine)
		if err != nil {
			return err
		}
		v, err := t.ask(cmd)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if v.Reason != want || want != signing.ReasonApplied && v.Detail == "" {
			t.row.fail("%s: a new command was answered with %s (%s), want %s", what, v.Reason, v.Detail, want)
		}
	}
	return nil
}

// repeat sends everything that was acted on once more.
func (t *trial) repeat(what string) error {
	for _, cmd := range t.acted {
		v, err := t.ask(cmd)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if v.Reason == signing.ReasonApplied || v.Reason == signing.ReasonHardware {
			t.row.fail("%s: a command that was acted on before was answered with %s", what, v.Reason)
		}
	}
	return nil
}
