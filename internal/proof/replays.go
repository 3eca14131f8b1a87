package main

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"pinseal/signing"
)

const (
	// onTheWay is how many messages may wait for their answer: enough to keep the node busy, and fewer than the broker
	// keeps for a client.
	onTheWay = 512
	// captures is how many genuine commands of each run of the process are there to be replayed, over all lines.
	captures = 10 * lines
)

// replays publishes commands that were acted on again and again, from another identity, while the process is ended and
// started, by SIGKILL and SIGTERM in turns. They are fresh by the clock, so only the node's memory of their numbers is
// between them and the lines. between happens to the files while the process does not run.
func replays(ctx context.Context, l *lab, between func(*node) error) (_ []*row, err error) {
	r := newRow("commands replayed by another identity, over restarts of the process: acted on")
	n, err := newNode(ctx, l, filepath.Join(l.dir, "replays"), unchanged)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	e, err := newReplayer(l, r, n)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	for run := range l.restarts + 1 {
		if err := between(n); err != nil {
			return nil, err
		}
		if err := e.life(ctx, run); err != nil {
			return []*row{r}, err
		}
		l.tell("replays: %d of %d", r.tried, l.replays)
		if ctx.Err() != nil {
			return []*row{r}, ctx.Err()
		}
	}
	took := time.Since(begin)
	r.note("%d restarts; %.0f a second, each judged by the node: %v", l.restarts, float64(r.tried)/took.Seconds(), e.answers.reasons)
	r.note("%d genuine commands in between, all acted on once", e.genuine)
	return []*row{r}, nil
}

// replayer is the owner of the commands and the thief.
type replayer struct {
	*lab
	row     *row
	node    *node
	owner   *party
	thief   *party
	pool    []*command // was acted on
	genuine int
	answers tally
}

func newReplayer(l *lab, r *row, n *node) (*replayer, error) {
	owner, err := n.party(operator)
	if err != nil {
		return nil, err
	}
	other, err := n.party(thief)
	if err != nil {
		return nil, err
	}
	return &replayer{lab: l, row: r, node: n, owner: owner, thief: other, answers: newTally()}, nil
}

// life is one run of the process: what was captures in the run before is replayed first, then new commands are given and
// replayed. A stray write to a line fails the row, whoever asked for it.
func (e *replayer) life(ctx context.Context, run int) (err error) {
	if err := e.node.start(ctx); err != nil {
		return err
	}
	before, err := e.node.lines.snapshot()
	if err != nil {
		return err
	}
	c, err := e.thief.dial(ctx, e.hear, verdictsTo(operator))
	if err != nil {
		return err
	}
	defer c.Close()
	share := (e.replays*(run+1)/(e.restarts+1) - e.row.tried) / 2
	if run > 0 {
		if err := e.replay(c, share); err != nil {
			return err
		}
	}
	if err := e.capture(c); err != nil {
		return err
	}
	if err := e.replay(c, e.replays*(run+1)/(e.restarts+1)-e.row.tried); err != nil {
		return err
	}
	after, err := e.node.lines.snapshot()
	if err != nil {
		return err
	}
	for line := range lines {
		if acted, asked := after[line]-before[line], captures/lines; acted != asked {
			e.row.fail("run %d: %s changed %d times for %d commands", run, lineName(line), acted, asked)
		}
	}
	return e.node.end([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[run%2])
}

func (e *replayer) hear(_ string, payload []byte) { e.answers.add(reasonOf(payload)) }

// capture has new commands acted on. The old ones grow too old to be worth replaying.
func (e *replayer) capture(c *client) error {
	e.pool = e.pool[:0]
	e.answers.expect(signing.ReasonApplied)
	for i := range captures {
		cmd, err := e.owner.toggle(i % lines)
		if err != nil {
			return err
		}
		e.pool = append(e.pool, cmd)
		if err := c.Publish(commandTopic(cmd.line), cmd.raw); err != nil {
			return err
		}
	}
	if err := e.answers.await(captures); err != nil {
		return err
	}
	if refused := e.answers.settle(); len(refused) > 0 {
		e.row.fail("genuine commands were refused: %v", refused)
	}
	e.genuine += captures
	return nil
}

// replay publishes n commands of the pool at random. An answer that says applied is as bad as a line that changes.
func (e *replayer) replay(c *client, n int) error {
	e.answers.expect(signing.ReasonReplay, signing.ReasonDuplicate)
	for sent := 0; sent < n; {
		portion := min(n-sent, onTheWay/4)
		if err := e.answers.await(sent + portion - onTheWay); err != nil {
			return err
		}
		for line, raws := range e.draw(portion) {
			if err := c.Publish(commandTopic(line), raws...); err != nil {
				return err
			}
		}
		sent += portion
	}
	e.row.try(n)
	if err := e.answers.await(n); err != nil {
		return err
	}
	for reason, count := range e.answers.settle() {
		for range count {
			e.row.fail("a replay was answered with %q", reason)
		}
	}
	return nil
}

// draw takes n commands of the pool, by line.
func (e *replayer) draw(n int) map[int][][]byte {
	drawn := map[int][][]byte{}
	for range n {
		cmd := e.pool[e.random.IntN(len(e.pool))]
		drawn[cmd.line] = append(drawn[cmd.line], cmd.raw)
	}
	return drawn
}

// tally counts answers. It is safe for concurrent use.
type tally struct {
	mu      *sync.Mutex
	more    chan struct{}
	reasons counts // of all answers so far
	now     counts // of those since expect
	total   int    // of now
	wanted  []signing.Reason
}

func newTally() tally {
	return tally{mu: &sync.Mutex{}, more: make(chan struct{}, 1), reasons: counts{}, now: counts{}}
}

// expect begins to count anew, and says which answers are in order.
func (t *tally) expect(reasons ...signing.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now, t.total, t.wanted = counts{}, 0, reasons
}

func (t *tally) add(reason signing.Reason) {
	t.mu.Lock()
	t.reasons[reason]++
	t.now[reason]++
	t.total++
	t.mu.Unlock()
	select {
	case t.more <- struct{}{}:
	default:
	}
}

// await waits until there are n answers.
func (t *tally) await(n int) error {
	for {
		t.mu.Lock()
		enough := t.total >= n
		t.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-t.more:
		case <-time.After(patience):
			return errUnanswered
		}
	}
}

// settle returns the answers that are not in order.
func (t *tally) settle() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	bad := maps.Clone(t.now)
	for _, reason := range t.wanted {
		delete(bad, reason)
	}
	return bad
}
