package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"pinseal/agent"
	"pinseal/signing"
)

const (
	// liveAtMost is how long commands stream before the process is killed, at a random moment of it.
	liveAtMost = 120 * time.Millisecond
	// startAtMost covers a start of the process on a quiet machine. One kill in startEvery comes during it.
	startAtMost = 25 * time.Millisecond
	startEvery  = 8
	// remembered is how many commands of each line that were acted on are sent again after every start.
	remembered = 3
)

// kills ends the process by SIGKILL at random moments while every line is told to toggle, one command after the other on
// each. After every start, the commands that were acted on before are sent once more, and so is the one that got no
// answer. Because a line has one command on its way at a time, every write to it belongs to one command: what the process
// did before it could tell shows in the kernel's count. between happens to the files while the process does not run.
func kills(ctx context.Context, l *lab, between func(*node) error) (_ []*row, err error) {
	r := newRow("SIGKILL at random moments under commands to toggle: acted twice, unreadable state, no restart")
	n, err := newNode(ctx, l, filepath.Join(l.dir, "kills"), unchanged)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	p, err := n.party(operator)
	if err != nil {
		return nil, err
	}
	e := &killer{lab: l, row: r, node: n}
	for line := range lines {
		e.lanes = append(e.lanes, &lane{row: r, owner: p, line: line})
	}
	for kill := range l.kills {
		l.tell("kills: %d of %d", kill, l.kills)
		if err := between(n); err != nil {
			return nil, err
		}
		if err := e.life(ctx, p, kill); err != nil {
			return []*row{r}, err
		}
		r.try(1)
		if ctx.Err() != nil {
			return []*row{r}, ctx.Err()
		}
	}
	if err := e.lastLife(ctx, p); err != nil {
		return []*row{r}, err
	}
	e.sum()
	return []*row{r}, nil
}

// killer is the experiment.
type killer struct {
	*lab
	row      *row
	node     *node
	lanes    []*lane
	answered <-chan struct{} // in this run
	atStart  int
	restarts time.Duration // the longest
}

// life is one run of the process, ended by SIGKILL: during the start, or soon after it, or soon after a command was
// answered.
func (e *killer) life(ctx context.Context, p *party, kill int) error {
	before, err := e.node.lines.snapshot()
	if err != nil {
		return err
	}
	if kill%startEvery == startEvery-1 {
		e.atStart++
		if err := e.node.spawn(ctx); err != nil {
			return err
		}
		e.sleep(startAtMost)
		if err := e.node.end(syscall.SIGKILL); err != nil {
			return err
		}
		return e.started(before, false)
	}
	c, before, err := e.begin(ctx, p, before)
	if err != nil {
		return err
	}
	defer c.Close()
	if kill%2 == 0 {
		select {
		case <-e.answered:
		case <-time.After(patience):
			e.row.fail("no command was answered within %v", patience)
		}
	}
	e.sleep(liveAtMost)
	if err := e.node.end(syscall.SIGKILL); err != nil {
		return err
	}
	c.Close()
	return e.account(before)
}

// sleep waits until a random moment.
func (e *killer) sleep(atMost time.Duration) {
	time.Sleep(time.Duration(e.random.Int64N(int64(atMost))))
}

// lastLife lets every command end.
func (e *killer) lastLife(ctx context.Context, p *party) error {
	before, err := e.node.lines.snapshot()
	if err != nil {
		return err
	}
	c, before, err := e.begin(ctx, p, before)
	if err != nil {
		return err
	}
	for _, lane := range e.lanes {
		if !lane.finish() {
			e.row.fail("a command to %s got no answer within %v", lineName(lane.line), patience)
		}
	}
	c.Close()
	return errors.Join(e.node.end(syscall.SIGTERM), e.accountExit(before))
}

// begin starts the process, looks at what it says, and lets the commands stream.
func (e *killer) begin(ctx context.Context, p *party, before [lines]int) (*client, [lines]int, error) {
	begin := time.Now()
	if err := e.node.start(ctx); err != nil {
		return nil, before, err
	}
	e.restarts = max(e.restarts, time.Since(begin))
	if err := e.started(before, true); err != nil {
		return nil, before, err
	}
	before, err := e.node.lines.snapshot()
	if err != nil {
		return nil, before, err
	}
	if err := e.readStates(ctx, p); err != nil {
		return nil, before, err
	}
	answered := make(chan struct{}, 1)
	e.answered = answered
	byTopic := map[string]*lane{}
	for _, lane := range e.lanes {
		byTopic[commandTopic(lane.line)] = lane
	}
	c, err := p.dial(ctx, func(_ string, payload []byte) {
		v := readVerdict(payload)
		if lane := byTopic[v.Topic]; lane != nil {
			lane.hear(v)
		}
		select {
		case answered <- struct{}{}:
		default:
		}
	}, verdictsTo(operator))
	if err != nil {
		return nil, before, err
	}
	for _, lane := range e.lanes {
		if err := lane.begin(c); err != nil {
			return nil, before, err
		}
	}
	return c, before, nil
}

// started checks that starting did nothing but drive each line to its initial level.
func (e *killer) started(before [lines]int, whole bool) error {
	after, err := e.node.lines.snapshot()
	if err != nil {
		return err
	}
	for line := range lines {
		if n := after[line] - before[line]; n > 1 || whole && n != 1 {
			e.row.fail("%s was written to %d times by a start", lineName(line), n)
		}
	}
	e.readLevels()
	return nil
}

func (e *killer) readLevels() {
	for line := range lines {
		if _, err := e.node.lines.level(line); err != nil {
			e.row.fail("reading a line: %v", err)
		}
	}
}

// readStates reads the retained state of every output, which must be that of its line.
func (e *killer) readStates(ctx context.Context, p *party) error {
	type state struct{ topic, state string }
	heard := make(chan state, 2*lines)
	c, err := p.dial(ctx, func(topic string, payload []byte) { heard <- state{topic, string(payload)} }, agent.StateTopic(nodeName, "+"))
	if err != nil {
		return err
	}
	defer c.Close()
	known := map[string]string{}
	for len(known) < lines {
		select {
		case s := <-heard:
			known[s.topic] = s.state
		case <-time.After(patience):
			e.row.fail("only %d of %d states can be read", len(known), lines)
			return nil
		}
	}
	for line := range lines {
		on, err := e.node.lines.level(line)
		if got := known[agent.StateTopic(nodeName, outputName(line))]; err == nil && (got == agent.On) != on || strings.Trim(got, "ONF") != "" {
			e.row.fail("the state of %s reads %q, its line is on: %v", outputName(line), got, on)
		}
	}
	return nil
}

// account gives every write to a line since before to a command. It is called when the process is gone and everything it
// said was heard.
func (e *killer) account(before [lines]int) error {
	after, err := e.node.lines.snapshot()
	if err != nil {
		return err
	}
	e.readLevels()
	for _, lane := range e.lanes {
		lane.account(after[lane.line] - before[lane.line])
	}
	return nil
}

// accountExit is account after an orderly end, which drives every line to its exit level.
func (e *killer) accountExit(before [lines]int) error {
	for line := range before {
		before[line]++
	}
	return e.account(before)
}

func (e *killer) sum() {
	var all lane
	for _, lane := range e.lanes {
		all.sealed += lane.sealed
		all.acted += lane.acted
		all.untold += lane.untold
		all.repeated += lane.repeated
		all.lost += lane.lost
	}
	e.row.note("%d of the kills during a start; the slowest start took %v", e.atStart, e.restarts.Round(time.Millisecond))
	e.row.note("%d commands, %d acted on, %d of these unanswered when the process died; %d recorded, not acted on and refused for good",
		all.sealed, all.acted, all.untold, all.lost)
	e.row.note("%d commands sent again after having been acted on", all.repeated)
}

// attempt is a command and what became of it.
type attempt struct {
	*command
	sent, acted int
}

// lane commands one line. At any time at most one of its commands is on its way.
type lane struct {
	row   *row
	owner *party
	line  int

	mu       sync.Mutex
	client   *client
	pending  *attempt   // on its way
	unsure   *attempt   // the one that got no answer in an earlier run
	done     []*attempt // acted on, the latest last
	again    []*attempt // to be sent again in this run
	told     int        // answers in this run that say applied
	ending   bool
	finished chan struct{}

	sealed, acted, untold, repeated, lost int
}

// begin starts a run: first the commands that were acted on are sent again, then the one that got no answer.
func (a *lane) begin(c *client) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.client, a.told, a.finished = c, 0, make(chan struct{})
	if a.pending != nil && a.pending.acted == 0 {
		a.unsure = a.pending
	}
	a.pending = nil
	a.again = append([]*attempt(nil), a.done[max(0, len(a.done)-remembered):]...)
	return a.next()
}

// next sends what is due. a.mu is held.
func (a *lane) next() error {
	switch {
	case len(a.again) > 0:
		a.pending, a.again = a.again[0], a.again[1:]
		a.repeated++
	case a.unsure != nil:
		a.pending, a.unsure = a.unsure, nil
	case a.ending:
		close(a.finished)
		return nil
	default:
		cmd, err := a.owner.toggle(a.line)
		if err != nil {
			return err
		}
		a.sealed++
		a.pending = &attempt{command: cmd}
	}
	a.pending.sent++
	return a.client.Publish(commandTopic(a.line), a.pending.raw)
}

// hear takes the answer to the command on its way and sends the next.
func (a *lane) hear(v agent.Verdict) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pending
	if p == nil || v.Sequence != p.seq {
		a.row.fail("%s: an answer to a command that is not on its way: %s", lineName(a.line), v.Reason)
		return
	}
	switch v.Reason {
	case signing.ReasonApplied:
		a.told++
		a.act(p)
	case signing.ReasonDuplicate, signing.ReasonReplay:
		switch {
		case p.sent == 1:
			a.row.fail("%s: a new command was refused: %s", lineName(a.line), v.Reason)
		case p.acted == 0:
			a.lost++ // recorded, and then the power was gone: at most once
		}
	default:
		a.row.fail("%s: a command was refused: %s, %s", lineName(a.line), v.Reason, v.Detail)
	}
	a.pending = nil
	_ = a.next() // the connection ends with the process
}

// act notes that a command was acted on. a.mu is held.
func (a *lane) act(p *attempt) {
	if p.acted++; p.acted > 1 {
		a.row.fail("%s: a command was acted on %d times", lineName(a.line), p.acted)
		return
	}
	a.acted++
	a.done = append(a.done[max(0, len(a.done)-remembered):], p)
}

// account compares how often the line was written to in this run with what was answered.
func (a *lane) account(writes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch untold := writes - a.told; {
	case untold == 0:
	case untold == 1 && a.pending != nil:
		a.untold++
		a.act(a.pending)
	default:
		a.row.fail("%s changed %d times for %d commands that were answered", lineName(a.line), writes, a.told)
	}
}

// finish lets the lane end and reports whether it could.
func (a *lane) finish() bool {
	a.mu.Lock()
	a.ending = true
	finished := a.finished
	a.mu.Unlock()
	select {
	case <-finished:
		return true
	case <-time.After(patience):
		return false
	}
}
