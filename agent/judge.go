package agent

import (
	"time"

	"pinseal/agent/actuator"
	"pinseal/signing"
	"pinseal/signing/replay"
)

// ident names a verified message and its signer. It is zero for what is not verified, or not signed at all.
type ident struct {
	signer, kid string
	seq         uint64
}

// lane is an order: what is put into it is judged, and for an output acted on, one after the other.
type lane struct {
	in       *fifo[*job]
	accepted *fifo[*command] // nil for telemetry
}

// command is an accepted command. It must not be acted on before its commit, if it has one, is done.
type command struct {
	*job
	id      ident
	command actuator.Command
	commit  *replay.Commit
}

// judgeCommands takes the commands of an output through steps 5 to 10, in their order.
func (a *Agent) judgeCommands(o *output) {
	for jobs := o.lane.in.take(); jobs != nil; jobs = o.lane.in.take() {
		for _, j := range jobs {
			<-j.verified
			c, err := a.judgeCommand(o, j)
			if err != nil {
				a.refuse(j, c.id, err)
				continue
			}
			o.lane.accepted.put(c)
		}
	}
}

// judgeCommand always returns a command: with an error it says at least who it was, once that is known.
func (a *Agent) judgeCommand(o *output, j *job) (*command, error) {
	c := &command{job: j}
	if j.route.plain {
		return c, c.admitPlain(o)
	}
	if j.err != nil {
		return c, j.err
	}
	if err := j.renew(a.policy.Load()); err != nil {
		return c, err
	}
	c.id = j.ident()
	j.passed(stepSignature)
	if err := j.checkTopic(); err != nil {
		return c, err
	}
	j.passed(stepTopic)
	permitted := j.policy.permits[permitKey{c.id.signer, o.name}]
	if len(permitted) == 0 {
		return c, signing.Refuse(signing.ReasonNotPermitted, "%s may not command %s", c.id.signer, o.name)
	}
	j.passed(stepPermitted)
	if err := a.checkCommandFresh(j); err != nil {
		return c, err
	}
	return c, a.accept(o, c, permitted)
}

// accept takes the rest of step 8, and steps 9 and 10. What is refused here costs nothing of the key's allowance.
func (a *Agent) accept(o *output, c *command, permitted actions) error {
	giveBack, err := c.spend()
	if err != nil {
		return err
	}
	c.passed(stepFresh)
	if err := c.openCommand(o); err != nil {
		giveBack()
		return err
	}
	if err := c.decode(o, permitted); err != nil {
		giveBack()
		return err
	}
	c.passed(stepDecoded)
	var outcome replay.Outcome
	if c.legacy != nil {
		outcome, c.commit = a.cfg.Replay.Legacy(c.id.kid, c.old.Second(), c.old.Digest())
	} else {
		outcome, c.commit = a.cfg.Replay.Command(c.id.kid, o.name, c.id.seq, c.message.Digest())
	}
	if err := refusalOf(outcome); err != nil {
		giveBack()
		return err
	}
	c.passed(stepNumber)
	return nil
}

// admitPlain judges an unsigned command.
func (c *command) admitPlain(o *output) error {
	if !o.plainRate.Allow() {
		return signing.Refuse(signing.ReasonRateLimited, "more than %v unsigned commands a second", o.plainRate.Limit())
	}
	c.passed(stepFresh)
	c.command = c.unsigned
	return c.permit(o, o.plain, "who does not sign")
}

// decode is step 9.
func (c *command) decode(o *output, permitted actions) (err error) {
	if c.legacy != nil {
		c.command, err = decodeLegacy(c.old.Text())
	} else {
		c.command, err = decodeCommand(c.value)
	}
	if err != nil {
		return err
	}
	c.command.Signed = !c.fresh.IsZero()
	return c.permit(o, permitted, c.id.signer)
}

// permit asks whether the output can do what is commanded, and whether who commands may.
func (c *command) permit(o *output, permitted actions, who string) error {
	if c.command.Dims && !o.dims {
		return signing.Refuse(signing.ReasonBadCommand, "%s cannot be dimmed", o.name)
	}
	maxOn, missing := permitted.allow(c.command)
	if missing != "" {
		return signing.Refuse(signing.ReasonNotPermitted, "%s may not command %s: %s", who, o.name, missing)
	}
	c.command.MaxOn = maxOn
	return nil
}

// judgeTelemetry takes telemetry through steps 5 to 10 and publishes what is accepted.
func (a *Agent) judgeTelemetry() {
	for jobs := a.telemetry.in.take(); jobs != nil; jobs = a.telemetry.in.take() {
		for _, j := range jobs {
			<-j.verified
			id, err := a.judgeReading(j)
			if err != nil {
				if reason, _ := reasonOf(err); reason == signing.ReasonDuplicate {
					a.acknowledge(j, id) // the receipt was lost
				}
				a.refuse(j, id, err)
				continue
			}
			a.publishReading(j, id)
			a.finish(j)
		}
	}
}

func (a *Agent) judgeReading(j *job) (ident, error) {
	if j.err != nil {
		return ident{}, j.err
	}
	if err := j.renew(a.policy.Load()); err != nil {
		return ident{}, err
	}
	id := j.ident()
	j.passed(stepSignature)
	if err := j.checkTopic(); err != nil {
		return id, err
	}
	j.passed(stepTopic)
	rule, ok := j.policy.rule(id.signer, j.topic)
	if !ok {
		return id, signing.Refuse(signing.ReasonNotPermitted, "%s may not publish on this topic", id.signer)
	}
	j.passed(stepPermitted)
	trusted := a.cfg.Clock.Trusted()
	if trusted {
		if err := a.checkTime(j.message, signing.Window{MaxAge: rule.MaxAge, MaxAhead: MaxAhead}); err != nil {
			return id, err
		}
	}
	giveBack, err := j.spend()
	if err != nil {
		return id, err
	}
	j.passed(stepFresh)
	if err := j.openReading(); err != nil {
		giveBack()
		return id, err
	}
	if err := refusalOf(a.cfg.Replay.Telemetry(id.kid, j.topic, id.seq, j.message.Digest())); err != nil {
		giveBack()
		return id, err
	}
	j.passed(stepNumber)
	if !trusted {
		a.noteUnjudged(j, id)
	}
	return id, nil
}

func (j *job) ident() ident {
	id := ident{signer: j.signer.Name, kid: j.signer.Key.ID()}
	if j.legacy != nil {
		id.seq = uint64(max(0, j.old.Second()))
	} else {
		id.seq = j.message.Sequence()
	}
	return id
}

// checkTopic is step 6. A legacy key is for one topic, which is the one it was looked up with.
func (j *job) checkTopic() error {
	if j.legacy != nil {
		return nil
	}
	return j.message.CheckTopic(j.topic)
}

// checkCommandFresh is step 8 but for the rate.
func (a *Agent) checkCommandFresh(j *job) error {
	if !a.cfg.Clock.Trusted() {
		return a.checkChallenge(j)
	}
	var sealed time.Time
	if j.legacy != nil {
		if err := j.old.CheckFresh(a.cfg.Clock.Now()); err != nil {
			return err
		}
		sealed = time.Unix(j.old.Second(), 0)
	} else {
		if err := a.checkTime(j.message, j.policy.window); err != nil {
			return err
		}
		sealed = j.message.IssuedAt()
	}
	// What was accepted until then is forgotten. With an untrusted clock the challenge of this run does this.
	if since := a.cfg.Replay.Since(); !sealed.After(since) {
		return signing.Refuse(signing.ReasonStale,
			"the node lost its record of what it had accepted, and takes only what was sealed after %s",
			since.UTC().Format(time.RFC3339))
	}
	j.fresh = a.cfg.Clock.Now()
	return nil
}

// checkTime judges the time of a message by a trusted clock. A nonce it carries nevertheless must be right.
func (a *Agent) checkTime(m *signing.Message, w signing.Window) error {
	if err := m.CheckFresh(a.cfg.Clock.Now(), w); err != nil {
		return err
	}
	if m.Nonce() != "" && m.Nonce() != a.challenge {
		return signing.Refuse(signing.ReasonStale, "its nonce is not the node's present challenge")
	}
	return nil
}

// checkChallenge judges a command without a clock.
func (a *Agent) checkChallenge(j *job) error {
	switch {
	case j.legacy != nil:
		return signing.Refuse(signing.ReasonClockUnsynchronised, "the node's clock is not set yet")
	case j.message.Nonce() == "":
		return signing.Refuse(signing.ReasonClockUnsynchronised,
			"the node's clock is not set yet, and the command does not carry the node's challenge")
	case j.message.Nonce() != a.challenge:
		return signing.Refuse(signing.ReasonStale, "its nonce is not the node's present challenge")
	}
	return nil
}

// spend takes one message off what the key may have accepted. The result gives it back.
func (j *job) spend() (giveBack func(), err error) {
	now := time.Now()
	limiter := j.policy.allowances[j.signer.Key.ID()].accepted
	r := limiter.ReserveN(now, 1)
	giveBack = func() { r.CancelAt(now) }
	if !r.OK() || r.DelayFrom(now) > 0 {
		giveBack()
		return nil, signing.Refuse(signing.ReasonRateLimited, "more than %v messages a second from this key", limiter.Limit())
	}
	return giveBack, nil
}

func refusalOf(outcome replay.Outcome) error {
	switch outcome {
	case replay.New:
		return nil
	case replay.Duplicate:
		return signing.Refuse(signing.ReasonDuplicate, "accepted before, not acted on again")
	case replay.Equivocation:
		return signing.Refuse(signing.ReasonEquivocation, "another message was accepted with this sequence number")
	default:
		return signing.Refuse(signing.ReasonReplay, "its sequence number is not above those accepted")
	}
}
