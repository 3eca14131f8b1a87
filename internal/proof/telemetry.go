package main

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"pinseal/agent"
	"pinseal/signing"
)

// tolerated is within how many messages telemetry may be out of order: the node remembers the 64 highest numbers.
const tolerated = 64

// telemetry has the node judge messages that come out of order, some of them more than once. Each is sealed for the
// occasion and goes from the sensor through the broker, the agent and the broker again to who reads the verified values.
func telemetry(ctx context.Context, l *lab, disorder int) (_ []*row, err error) {
	fresh := newRow("fresh telemetry, reordered within 64, through the node: wrongly refused")
	again := newRow("telemetry published again: accepted twice")
	n, err := newNode(ctx, l, filepath.Join(l.dir, "telemetry"), unchanged)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.start(ctx); err != nil {
		return nil, err
	}
	p, err := n.party(sensor)
	if err != nil {
		return nil, err
	}
	j := newLedger(l.telemetry)
	topic := "telemetry/" + sensor + "/load"
	verified, _ := agent.VerifiedTopic(topic)
	c, err := p.dial(ctx, func(on string, payload []byte) { j.hear(on == verified, payload) }, verified, verdictsTo(sensor))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	begin := time.Now()
	repeated, err := j.send(ctx, l, p, c, topic, disorder)
	fresh.try(l.telemetry)
	again.try(repeated)
	if err != nil {
		return []*row{fresh, again}, err
	}
	j.judge(fresh, again)
	took := time.Since(begin)
	fresh.note("%.0f messages a second, each sealed with ES256 and verified by the node", float64(l.telemetry+repeated)/took.Seconds())
	again.note("answered: %v", j.refused)
	return []*row{fresh, again}, nil
}

// ledger knows which messages came out verified.
type ledger struct {
	mu       sync.Mutex
	more     chan struct{}
	verified []uint8 // how often, by the number that is the message
	stray    int
	refused  counts
	answered int
}

func newLedger(n int) *ledger {
	return &ledger{more: make(chan struct{}, 1), verified: make([]uint8, n), refused: counts{}}
}

// hear takes a verified value or a verdict.
func (j *ledger) hear(verified bool, payload []byte) {
	j.mu.Lock()
	j.answered++
	if verified {
		if i, err := strconv.Atoi(string(payload)); err == nil && i >= 0 && i < len(j.verified) {
			j.verified[i] += min(1, 255-j.verified[i])
		} else {
			j.stray++
		}
	} else {
		j.refused[reasonOf(payload)]++
	}
	j.mu.Unlock()
	select {
	case j.more <- struct{}{}:
	default:
	}
}

// await waits until there are n answers: every message gets one, its verified value or a verdict.
func (j *ledger) await(n int) error {
	for {
		j.mu.Lock()
		enough := j.answered >= n
		j.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-j.more:
		case <-time.After(patience):
			return errUnanswered
		}
	}
}

// judge says what went wrong.
func (j *ledger) judge(fresh, again *row) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, times := range j.verified {
		switch {
		case times == 0:
			fresh.fail("message %d was refused", i)
		case times > 1:
			again.fail("message %d was accepted %d times", i, times)
		}
	}
	for range j.stray {
		fresh.fail("a value was published that nobody sent")
	}
	for reason, count := range j.refused {
		if reason == signing.ReasonReplay || reason == signing.ReasonDuplicate {
			continue
		}
		for range count {
			fresh.fail("a message was answered with %q", reason)
		}
	}
}

// send publishes all messages out of order, and repeats some, and waits for the answers.
func (j *ledger) send(ctx context.Context, l *lab, p *party, c *client, topic string, disorder int) (repeated int, err error) {
	const share = onTheWay / 4
	var batch [][]byte
	sent := 0
	flush := func() error {
		if err := j.await(sent - onTheWay + share); err != nil {
			return err
		}
		sent += len(batch)
		err := c.Publish(topic, batch...)
		batch = batch[:0]
		return err
	}
	var old [][]byte
	for s := range sealAll(l, p, topic, disorder) {
		if err := errors.Join(s.err, ctx.Err()); err != nil {
			return repeated, err
		}
		batch = append(batch, s.raw)
		if old = append(old, s.raw); len(old) > 4*tolerated {
			old = old[1:]
		}
		if l.random.Float64() < l.telemetryDuplicates {
			repeated++
			batch = append(batch, old[l.random.IntN(len(old))])
		}
		if len(batch) < share {
			continue
		}
		l.tell("telemetry: %d of %d", sent, l.telemetry)
		if err := flush(); err != nil {
			return repeated, err
		}
	}
	if err := flush(); err != nil {
		return repeated, err
	}
	return repeated, j.await(sent)
}

// sealedOrNot is a sealed message.
type sealedOrNot struct {
	raw []byte
	err error
}

// sealAll yields the messages in the order to publish them, sealed by all processors.
func sealAll(l *lab, p *party, topic string, disorder int) func(yield func(sealedOrNot) bool) {
	base := p.last.Load() + 1
	return func(yield func(sealedOrNot) bool) {
		for order := range slices.Chunk(shuffled(l.telemetry, disorder, l.random.IntN), 4096) {
			chunk := make([]sealedOrNot, len(order))
			var sealers sync.WaitGroup
			for worker := range runtime.NumCPU() {
				sealers.Go(func() {
					for k := worker; k < len(order); k += runtime.NumCPU() {
						chunk[k].raw, chunk[k].err = signing.Seal(p.key, signing.Claims{
							Topic: topic, IssuedAt: time.Now(), Sequence: base + uint64(order[k]), //nolint:gosec // not negative
							Message: strconv.AppendInt(nil, int64(order[k]), 10),
						})
					}
				})
			}
			sealers.Wait()
			for _, s := range chunk {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// shuffled returns the numbers below n such that fewer than within of those above a number come before it.
func shuffled(n, within int, random func(int) int) []int {
	type place struct{ at, number int }
	places := make([]place, n)
	for i := range places {
		places[i] = place{i + random(within), i}
	}
	slices.SortStableFunc(places, func(a, b place) int { return a.at - b.at })
	order := make([]int, n)
	for i, p := range places {
		order[i] = p.number
	}
	return order
}
