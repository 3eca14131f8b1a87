package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"pinseal/agent"
	"pinseal/internal/clock"
	"pinseal/signing"
	"pinseal/signing/replay"
)

const (
	year = 365 * 24 * time.Hour
	// buildAge is how old the program is: no wall clock below that is believed.
	buildAge = 30 * 24 * time.Hour
	// nudge is longer than clock remembers what the system said of its synchronisation.
	nudge = 2 * time.Second
)

// wall is a wall clock that can be set, and a system that says whether it is synchronised.
type wall struct {
	shift        atomic.Int64
	synchronized atomic.Bool
}

func (w *wall) now() time.Time { return time.Now().Add(time.Duration(w.shift.Load())) }

func (w *wall) set(shift time.Duration, synchronized bool) {
	w.synchronized.Store(synchronized)
	w.shift.Store(int64(shift))
}

// settable is a clock that is replaced as if the node had been started again.
type settable struct{ atomic.Pointer[clock.Clock] }

func (s *settable) Now() time.Time { return s.Load().Now() }
func (s *settable) Trusted() bool  { return s.Load().Trusted() }

// situation is what is wrong with the node's clock, and the answers that the design's table asks for then.
type situation struct {
	name         string
	shift        time.Duration
	synchronized bool
	kept         bool // the clock of before was kept as the floor

	plain, challenged, misled, again, old signing.Reason // of commands, see clockwork.commands
	reading, repeated, oldReading         signing.Reason // of telemetry
}

func situations() []situation {
	const (
		applied, stale, future = signing.ReasonApplied, signing.ReasonStale, signing.ReasonFuture
		unset, replayed        = signing.ReasonClockUnsynchronised, signing.ReasonReplay
		duplicate              = signing.ReasonDuplicate
	)
	untrusted := situation{
		plain: unset, challenged: applied, misled: stale, again: unset, old: unset,
		reading: accepted, repeated: duplicate, oldReading: replayed,
	}
	ahead := situation{
		synchronized: true, plain: stale, challenged: stale, misled: stale, again: stale, old: stale,
		reading: stale, repeated: stale, oldReading: stale,
	}
	as := func(s situation, name string, shift time.Duration, synchronized bool) situation {
		s.name, s.shift, s.synchronized = name, shift, synchronized
		return s
	}
	kept := as(untrusted, "right, but a year ahead was kept as the floor", 0, true)
	kept.kept = true
	return []situation{
		{
			name: "right", synchronized: true, plain: applied, challenged: applied, misled: stale, again: replayed, old: stale,
			reading: accepted, repeated: duplicate, oldReading: stale,
		},
		as(untrusted, "unsynchronised", -nudge, false),
		as(ahead, "a year ahead", year, true),
		as(untrusted, "a year behind", -year, true),
		as(untrusted, "1970", -time.Since(time.Unix(60, 0)), true),
		as(ahead, "stepped an hour forward", time.Hour, true),
		{
			// What was sealed an hour ago is fresh by this clock, and refused by its number.
			name: "stepped an hour back", shift: -time.Hour, synchronized: true, plain: future, challenged: future,
			misled: future, again: future, old: replayed, reading: future, repeated: future, oldReading: replayed,
		},
		kept,
	}
}

// clocks runs a node through every way in which its clock, or a sender's, can be wrong.
func clocks(ctx context.Context, l *lab) ([]*row, error) {
	return clockMatrix(ctx, l, func(c *settable) agent.Clock { return c })
}

// clockMatrix gives the agent the clock that wrap makes of the one under test.
func clockMatrix(ctx context.Context, l *lab, wrap func(*settable) agent.Clock) (_ []*row, err error) {
	r := newRow("a clock that is wrong, commands and telemetry: answered otherwise than the design says, or a key of no more use")
	dir := filepath.Join(l.dir, "clocks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	store, err := replay.Open(filepath.Join(dir, stateFile), replay.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	w := &clockwork{row: r, floor: filepath.Join(dir, "clock")}
	if err := w.restart(); err != nil {
		return nil, err
	}
	if w.node, err = newInside(ctx, wrap(&w.clock), store); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.node.stop()) }()
	if err := w.prime(ctx); err != nil {
		return nil, err
	}
	for range l.clockRounds {
		for _, s := range situations() {
			l.tell("clock: %s", s.name)
			if err := errors.Join(w.through(ctx, s), w.senders(ctx)); err != nil {
				return []*row{r}, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	r.note("%d rounds through %d situations of the node's clock and %d of a sender's", l.clockRounds, len(situations()), len(senders()))
	return []*row{r}, nil
}

// clockwork is the experiment.
type clockwork struct {
	row    *row
	wall   wall
	floor  string
	clock  settable
	node   *inside
	number uint64 // the highest used by both keys

	command, reading       sealed // accepted while the clock was right
	oldCommand, oldReading sealed // of an hour ago, not seen by the node
}

type sealed struct {
	topic string
	seq   uint64
	raw   []byte
}

// restart makes the clock as a start of the node does.
func (w *clockwork) restart() error {
	c, err := clock.New(clock.Config{
		Trust: clock.Auto, FloorPath: w.floor, BuildTime: time.Now().Add(-buildAge),
		Synchronized: w.wall.synchronized.Load, Now: w.wall.now,
	})
	if err != nil {
		return err
	}
	w.clock.Store(c)
	return nil
}

// next is the number that a sender with that clock uses.
func (w *clockwork) next(at time.Time) uint64 {
	w.number = max(w.number+1, uint64(max(0, at.UnixMicro())))
	return w.number
}

func (w *clockwork) seal(signer, topic string, seq uint64, at time.Time, nonce string) (sealed, error) {
	message := `"toggle"`
	if signer == sensor {
		message = strconv.FormatUint(seq, 10)
	}
	raw, err := signing.Seal(w.node.keys[signer], signing.Claims{
		Topic: topic, IssuedAt: at, Sequence: seq, Message: []byte(message), Nonce: nonce,
	})
	return sealed{topic, seq, raw}, err
}

// expect publishes a message and compares the answer; a command must have moved the line exactly if it was applied.
func (w *clockwork) expect(ctx context.Context, what string, s sealed, want signing.Reason) error {
	before := w.node.line.acts.Load()
	got, err := w.node.ask(ctx, s.topic, s.raw, s.seq)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	w.row.try(1)
	if got.reason != want {
		w.row.fail("%s: %s (%s), want %s", what, got.reason, got.detail, want)
	}
	if acted := w.node.line.acts.Load() - before; acted != 0 && got.reason != signing.ReasonApplied || acted > 1 {
		w.row.fail("%s: answered with %s, and the line was driven %d times", what, got.reason, acted)
	}
	return nil
}

// expectNow seals a message with the next number and expects an answer to it.
func (w *clockwork) expectNow(ctx context.Context, what, signer string, at time.Time, nonce string, want signing.Reason) (sealed, error) {
	topic := ledTopic
	if signer == sensor {
		topic = sensorTopic
	}
	s, err := w.seal(signer, topic, w.next(at), at, nonce)
	if err != nil {
		return s, err
	}
	return s, w.expect(ctx, what, s, want)
}

// prime has the clock right, and fills what the node remembers of the sensor.
func (w *clockwork) prime(ctx context.Context) (err error) {
	w.wall.set(0, true)
	hourAgo := time.Now().Add(-time.Hour)
	if w.oldCommand, err = w.seal(operator, ledTopic, w.next(hourAgo), hourAgo, ""); err != nil {
		return err
	}
	if w.oldReading, err = w.seal(sensor, sensorTopic, w.next(hourAgo), hourAgo, ""); err != nil {
		return err
	}
	for range tolerated {
		if err := w.right(ctx, "right"); err != nil {
			return err
		}
	}
	return nil
}

// right sets the clock right and expects both keys to be of use.
func (w *clockwork) right(ctx context.Context, after string) (err error) {
	w.wall.set(0, true)
	if w.command, err = w.expectNow(ctx, after+", right again, a command", operator, time.Now(), "", signing.ReasonApplied); err != nil {
		return err
	}
	w.reading, err = w.expectNow(ctx, after+", right again, telemetry", sensor, time.Now(), "", accepted)
	return err
}

// through sets the clock wrong between two messages, tries everything, and sets it right again.
func (w *clockwork) through(ctx context.Context, s situation) error {
	if err := w.right(ctx, "before "+s.name); err != nil {
		return err
	}
	if s.kept {
		if err := w.keepFloor(year); err != nil {
			return err
		}
	}
	w.wall.set(s.shift, s.synchronized)
	if err := errors.Join(w.commands(ctx, s), w.telemetry(ctx, s)); err != nil {
		return err
	}
	if s.kept {
		if err := errors.Join(os.Remove(w.floor), w.restart()); err != nil {
			return err
		}
	}
	return w.right(ctx, s.name)
}

// keepFloor has the clock keep a wrong time while it is trusted, and starts it again.
func (w *clockwork) keepFloor(shift time.Duration) error {
	w.wall.set(shift, true)
	over, end := context.WithCancel(context.Background())
	end()
	return errors.Join(w.clock.Load().Run(over), w.restart())
}

func (w *clockwork) commands(ctx context.Context, s situation) error {
	now := time.Now()
	_, err1 := w.expectNow(ctx, s.name+", a command", operator, now, "", s.plain)
	challenged, err2 := w.expectNow(ctx, s.name+", a command with the challenge", operator, now, w.node.nonce, s.challenged)
	err3 := error(nil)
	if s.challenged == signing.ReasonApplied {
		err3 = w.expect(ctx, s.name+", that one again", challenged, signing.ReasonDuplicate)
	}
	_, err4 := w.expectNow(ctx, s.name+", a command with another challenge", operator, now, "AAAAAAAAAAAAAAAAAAAAAA", s.misled)
	err5 := w.expect(ctx, s.name+", a command accepted before", w.command, s.again)
	err6 := w.expect(ctx, s.name+", a command of an hour ago", w.oldCommand, s.old)
	return errors.Join(err1, err2, err3, err4, err5, err6)
}

func (w *clockwork) telemetry(ctx context.Context, s situation) error {
	_, err1 := w.expectNow(ctx, s.name+", telemetry", sensor, time.Now(), "", s.reading)
	err2 := w.expect(ctx, s.name+", telemetry accepted before", w.reading, s.repeated)
	err3 := w.expect(ctx, s.name+", telemetry of an hour ago", w.oldReading, s.oldReading)
	return errors.Join(err1, err2, err3)
}

// sender is what is wrong with a sender's clock, while the node's is right.
type sender struct {
	name string
	at   time.Time
	want signing.Reason
}

func senders() []sender {
	now := time.Now()
	return []sender{
		{"a year ahead", now.Add(year), signing.ReasonFuture},
		{"a year behind", now.Add(-year), signing.ReasonStale},
		{"1970", time.Unix(60, 0), signing.ReasonStale},
		{"a minute ahead", now.Add(time.Minute), signing.ReasonFuture},
		{"six minutes behind", now.Add(-6 * time.Minute), signing.ReasonStale},
	}
}

// senders lets the clocks of both senders be wrong. Their numbers come from those clocks alone, so that a number far too
// high, were it remembered, would make the key useless afterwards.
func (w *clockwork) senders(ctx context.Context) error {
	for _, s := range senders() {
		seq := uint64(s.at.UnixMicro())
		for signer, topic := range map[string]string{operator: ledTopic, sensor: sensorTopic} {
			m, err := w.seal(signer, topic, seq, s.at, "")
			if err != nil {
				return err
			}
			if err := w.expect(ctx, fmt.Sprintf("the clock of %s is %s", signer, s.name), m, s.want); err != nil {
				return err
			}
		}
		if err := w.right(ctx, "a sender's clock "+s.name); err != nil {
			return err
		}
	}
	return nil
}
