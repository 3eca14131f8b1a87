package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// verdicts is how many verdicts may wait to be sealed.
const maxVerdicts = 4096

// verdictBatch is how many verdicts get their numbers at once.
const verdictBatch = 64

// verdict is a Verdict and whom it is for.
type verdict struct {
	signer string
	Verdict
}

// tally counts one reason and keeps its log lines few.
type tally struct {
	count      atomic.Uint64
	log        *rate.Limiter
	suppressed atomic.Uint64
}

// logRate is how many lines of each kind are logged a second; somebody else decides how many messages there are.
const (
	logRate  = 5
	logBurst = 20
)

func newTally() *tally { return &tally{log: rate.NewLimiter(logRate, logBurst)} }

// refuse ends the way of a message: it is counted, logged, and answered if its signer is known and within its rate.
func (a *Agent) refuse(j *job, id ident, err error) {
	a.note(j, id, err)
	if id.signer != "" {
		if j.policy.allowances[id.kid].refusals.Allow() {
			reason, detail := reasonOf(err)
			a.answer(j, id, reason, detail)
		} else {
			a.stats.unanswered.Add(1)
		}
	}
	a.finish(j)
}

// finish ends the way of a message: the broker need not deliver it again, and there is room for another.
func (a *Agent) finish(j *job) {
	j.ack()
	a.verifier.release(&j.route.queue, j)
	j.arrived()
}

func reasonOf(err error) (signing.Reason, string) {
	if refused, ok := errors.AsType[*signing.RefusedError](err); ok {
		return refused.Reason, refused.Detail
	}
	return signing.ReasonMalformed, err.Error()
}

// note counts a message and logs it, unless there was a lot to log lately. A nil error means that it was applied.
func (a *Agent) note(j *job, id ident, err error) {
	reason, detail := signing.ReasonApplied, ""
	if err != nil {
		reason, detail = reasonOf(err)
		j.stopped(reason, detail)
	}
	t := a.counters[reason]
	t.count.Add(1)
	level, text := slog.LevelInfo, "message refused"
	switch reason {
	case signing.ReasonApplied:
		text = "command applied"
	case signing.ReasonEquivocation:
		level, text = slog.LevelWarn, "ALARM: a signer, or a thief of its key, used one sequence number for two messages"
	case signing.ReasonHardware:
		level, text = slog.LevelError, "command not carried out"
	default:
	}
	a.log(t, level, text, j, id, slog.String("reason", string(reason)), slog.String("detail", detail))
}

func (a *Agent) noteUnjudged(j *job, id ident) {
	a.stats.unjudged.Add(1)
	a.log(a.unjudged, slog.LevelWarn, "telemetry accepted by its sequence number alone: the clock is not trusted", j, id)
}

func (a *Agent) log(t *tally, level slog.Level, text string, j *job, id ident, attrs ...slog.Attr) {
	if !a.cfg.Log.Enabled(context.Background(), level) {
		return
	}
	if !t.log.Allow() {
		t.suppressed.Add(1)
		return
	}
	attrs = append(attrs, slog.String("topic", j.topic))
	if id.signer != "" {
		attrs = append(attrs, slog.String("signer", id.signer), slog.Uint64("seq", id.seq))
	}
	if n := t.suppressed.Swap(0); n > 0 {
		attrs = append(attrs, slog.Uint64("suppressed", n))
	}
	a.cfg.Log.LogAttrs(context.Background(), level, text, attrs...) //nolint:sloglint // every text is a constant at its caller
}

// answer hands a verdict over to be sealed and sent.
func (a *Agent) answer(j *job, id ident, reason signing.Reason, detail string) {
	if id.signer == "" {
		return // unsigned
	}
	v := verdict{signer: id.signer, Verdict: Verdict{
		Topic: j.topic, KeyID: id.kid, Sequence: id.seq, Reason: reason, Detail: detail, Time: a.cfg.Clock.Now().UTC(),
	}}
	if j.message != nil {
		v.Topic = j.message.Topic()
	}
	if j.route.output != nil {
		v.State = j.route.output.stateNow()
	}
	select {
	case a.verdicts <- v:
	default:
		a.stats.unanswered.Add(1)
	}
}

// sendVerdicts seals verdicts and hands them to the broker until there will be no more. Those that wait get their
// numbers together: a number costs as much as half a signature.
func (a *Agent) sendVerdicts() {
	for v := range a.verdicts {
		batch := []verdict{v}
		for len(batch) < verdictBatch && len(a.verdicts) > 0 {
			batch = append(batch, <-a.verdicts)
		}
		if err := a.sendBatch(batch); err != nil {
			a.cfg.Log.Error("cannot seal verdicts", "error", err)
		}
	}
}

// sendBatch goes on after an error, which may be about one signer's verdicts alone: nobody to encrypt them to.
func (a *Agent) sendBatch(batch []verdict) (failed error) {
	now := a.cfg.Clock.Now()
	first, err := a.cfg.Sequence.Reserve(now, uint64(len(batch)))
	if err != nil {
		a.stats.unanswered.Add(uint64(len(batch)))
		return err
	}
	for i, v := range batch {
		if err := a.sendVerdict(v, now, first+uint64(i)); err != nil {
			a.countUnanswered(err)
			failed = err
		}
	}
	return failed
}

func (a *Agent) sendVerdict(v verdict, now time.Time, number uint64) error {
	msg, err := json.Marshal(v.Verdict)
	if err != nil {
		return err
	}
	c := signing.Claims{Topic: VerdictTopic(a.cfg.Node, v.signer), IssuedAt: now, Sequence: number, Message: msg}
	return a.publishSealed(c, false, a.countUnanswered)
}

func (a *Agent) countUnanswered(err error) {
	if err != nil {
		a.stats.unanswered.Add(1)
	}
}

func (a *Agent) publishSealed(c signing.Claims, retained bool, done func(error)) error {
	sealed, err := a.seal(c)
	if err != nil {
		return err
	}
	a.client.PublishAsync(mqtt.Message{Topic: c.Topic, Payload: sealed, QoS: 1, Retained: retained}, done)
	return nil
}

// seal encrypts by the rule of the topic, and signs.
func (a *Agent) seal(c signing.Claims) ([]byte, error) {
	c, err := a.encrypt(c)
	if err != nil {
		return nil, err
	}
	return signing.Seal(a.cfg.Key, c)
}
