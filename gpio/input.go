package gpio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// InputConfig says which line an [Input] reads and how.
type InputConfig struct {
	Line      string // any spelling that FindLine knows
	Pull      Pull
	ActiveLow bool // on is electrically low, as with a button to ground
	// Debounce is how long a level must stay to count; 0 takes every edge. The kernel does it where it can.
	Debounce time.Duration
}

// Change is an input that has become on or off.
type Change struct {
	On bool
	// At is when the line took that level for good, before any debouncing: the kernel's time where it tells. Where the
	// kernel debounces, it is when it had done so.
	At time.Time
}

// Input is a claimed line that is on or off, and counts its pulses: how often it became on. Run is for one goroutine;
// everything else is safe for concurrent use.
type Input struct {
	cfg    InputConfig
	line   InputLine
	period time.Duration // of debouncing here; 0 where the kernel does it
	opened time.Time     // pulses are counted by how long ago that is, whatever is done to the wall clock

	mu     sync.Mutex
	on     bool
	pulses pulses
}

// debouncer is a line whose chip can debounce it.
type debouncer interface {
	Debounce(period time.Duration) error
}

// OpenInput claims the line. The caller closes the input, before or after the chip. Errors: those of Chip.Input.
func OpenInput(c Chip, cfg InputConfig) (*Input, error) {
	line, err := c.Input(cfg.Line, cfg.Pull)
	if err != nil {
		return nil, err
	}
	i := &Input{cfg: cfg, line: line, period: cfg.Debounce, opened: time.Now()}
	if d, ok := line.(debouncer); ok && cfg.Debounce > 0 && d.Debounce(cfg.Debounce) == nil {
		i.period = 0
	}
	level, err := line.Level()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading line %s: %w", cfg.Line, err), line.Close())
	}
	i.on = i.state(level)
	return i, nil
}

// On reports the state as last found: after debouncing.
func (i *Input) On() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.on
}

// Pulses says how often the input became on since it was opened, and how often in the minute before now.
func (i *Input) Pulses(now time.Time) (total, lastMinute uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pulses.total, i.pulses.lastMinute(now.Sub(i.opened))
}

// Close releases the line and thereby ends Run. A second Close does nothing.
func (i *Input) Close() error { return i.line.Close() }

// Run reports every change until ctx ends or the input is closed, which is no error. changed must not block for long:
// the kernel keeps 64 edges meanwhile.
func (i *Input) Run(ctx context.Context, changed func(Change)) error {
	if err := i.follow(ctx, changed); ctx.Err() == nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("reading line %s: %w", i.cfg.Line, err)
	}
	return nil
}

// follow ends with an error, be it that of ctx.
func (i *Input) follow(ctx context.Context, changed func(Change)) error {
	for {
		edge, err := i.line.WaitEdge(ctx)
		if err != nil {
			return err
		}
		if i.period > 0 {
			if edge, err = i.settle(ctx, edge); err != nil {
				return err
			}
		}
		if c, ok := i.take(edge); ok {
			changed(c)
		}
	}
}

// settle waits until no edge has come for the period, and returns the last.
func (i *Input) settle(ctx context.Context, last Edge) (Edge, error) {
	for {
		quiet, cancel := context.WithDeadline(ctx, last.At.Add(i.period))
		edge, err := i.line.WaitEdge(quiet)
		cancel()
		switch {
		case err == nil:
			last = edge
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			// Edges may have been lost, the level cannot be.
			level, err := i.line.Level()
			last.Level = level
			return last, err
		default:
			return last, err
		}
	}
}

// take notes an edge; ok says that it changed the state.
func (i *Input) take(e Edge) (c Change, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	on, was := i.state(e.Level), i.on
	i.on = on
	switch {
	case i.period == 0 && e.Lost > 0:
		// Of the edges that came too fast to be told of, and this one, every other one led to on.
		edges := uint64(e.Lost) + 1
		if !was {
			edges++
		}
		i.pulses.add(e.At.Sub(i.opened), edges/2)
	case on && !was:
		i.pulses.add(e.At.Sub(i.opened), 1)
	}
	return Change{On: on, At: e.At}, on != was
}

// state is what an electrical level means.
func (i *Input) state(l Level) bool { return bool(l) != i.cfg.ActiveLow }

// pulses counts, in total and second by second for a minute.
type pulses struct {
	total   uint64
	seconds [60]uint64
	newest  uint64 // the second of the newest count
}

// add counts what was at a time since the input was opened.
func (p *pulses) add(at time.Duration, n uint64) {
	if n == 0 {
		return
	}
	p.total += n
	p.seconds[p.forget(at)%60] += n
}

// forget makes room for the seconds up to now, and gives the present one.
func (p *pulses) forget(now time.Duration) uint64 {
	second := uint64(max(0, now) / time.Second)
	for s := max(p.newest+60, second) - 59; s <= second; s++ {
		p.seconds[s%60] = 0
	}
	p.newest = max(p.newest, second)
	return second
}

func (p *pulses) lastMinute(now time.Duration) (sum uint64) {
	p.forget(now)
	for _, n := range p.seconds {
		sum += n
	}
	return sum
}
