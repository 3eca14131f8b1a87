package agent

import (
	"errors"
	"fmt"
	"strconv"

	"pinseal/signing"
)

// The steps of the way in, as docs and doc.go number them.
const (
	stepSize = iota + 1
	stepParsed
	stepKey
	stepAdmitted
	stepSignature
	stepTopic
	stepPermitted
	stepFresh
	stepDecoded
	stepNumber
	stepRecorded
	stepActed
	stepVerdict
)

// stepName says of a step what is true once it has been passed.
func stepName(number int) string {
	return [...]string{
		"", "size, not retained", "form", "key", "admitted", "signature", "sealed for this topic", "signer permitted", "fresh, within its rate",
		"message, permitted", "number is new", "recorded on disk", "acted", "verdict",
	}[number]
}

// Step is where a traced message has come to.
type Step struct {
	Number int    // 1 to 13
	Name   string // of the step, for people
	Detail string
	Reason signing.Reason // why it ended here; empty if it passed
}

// Tracer follows one message.
type Tracer struct {
	// Wants picks the message. It must be quick; it is called for every message until it says yes, and then no more.
	Wants func(topic string, payload []byte) bool
	// Step is called for each step, one after the other. It must not block. Neither payload nor key is in it.
	Step func(Step)
	// Done is called once the message has come to its end.
	Done func()
}

// errTracing says that only one message is traced at a time.
var errTracing = errors.New("another message is being traced")

// Trace has t follow the next message that it wants, until stop is called. One message is traced at a time.
func (a *Agent) Trace(t *Tracer) (stop func(), err error) {
	if !a.tracer.CompareAndSwap(nil, t) {
		return nil, errTracing
	}
	return func() { a.tracer.CompareAndSwap(t, nil) }, nil
}

// Listens reports whether the node does anything with messages on a topic.
func (a *Agent) Listens(topic string) bool {
	r, _ := a.routeOf(topic)
	return r != nil
}

// journey is the way of a traced message; nil for all others.
type journey struct {
	agent  *Agent
	tracer *Tracer
	plan   []int // the steps that this kind of message takes
	ended  bool
}

func (a *Agent) journeyOf(j *job) *journey {
	t := a.tracer.Load()
	if t == nil || j.route.own != nil || !t.Wants(j.topic, j.payload) || !a.tracer.CompareAndSwap(t, nil) {
		return nil
	}
	way := &journey{agent: a, tracer: t}
	switch {
	case j.route.plain:
		way.plan = []int{stepSize, stepParsed, stepAdmitted, stepFresh, stepActed}
	case j.route.output == nil:
		way.plan = []int{stepSize, stepParsed, stepKey, stepAdmitted, stepSignature, stepTopic, stepPermitted, stepFresh, stepNumber, stepActed}
	default:
		for step := stepSize; step <= stepVerdict; step++ {
			way.plan = append(way.plan, step)
		}
	}
	return way
}

// passed tells that a step was passed. It costs nothing for a message that nobody traces.
func (j *job) passed(step int) {
	t := j.trace
	if t == nil || t.ended {
		return
	}
	// A step of which nothing is told was passed too.
	for len(t.plan) > 0 && t.plan[0] <= step {
		s := Step{Number: t.plan[0], Name: stepName(t.plan[0])}
		if s.Number == step {
			s.Detail = j.detail(step)
		}
		t.tracer.Step(s)
		t.plan = t.plan[1:]
	}
}

// detail is what there is to know of a message at a step that it has just passed.
func (j *job) detail(step int) string {
	a, o := j.trace.agent, j.route.output
	switch step {
	case stepSize:
		return fmt.Sprintf("%d bytes", len(j.payload))
	case stepParsed:
		return "a sealed message"
	case stepKey:
		if j.legacy != nil {
			return "the legacy key of " + j.signer.Name
		}
		return j.sealed.KeyID() + ", of " + j.signer.Name
	case stepTopic:
		return j.topic
	case stepPermitted:
		if o == nil {
			return j.signer.Name + " may publish there"
		}
		return j.signer.Name + " may command " + o.name
	case stepFresh:
		if j.route.plain {
			return "unsigned"
		}
		return fmt.Sprintf("clock trusted: %v", a.cfg.Clock.Trusted())
	case stepNumber:
		return strconv.FormatUint(j.ident().seq, 10)
	case stepActed:
		return j.outcome()
	case stepVerdict:
		return string(signing.ReasonApplied) + ", to " + VerdictTopic(a.cfg.Node, j.signer.Name)
	}
	return ""
}

// outcome is what became of an accepted message.
func (j *job) outcome() string {
	switch o := j.route.output; {
	case o != nil:
		return o.name + " is " + o.stateNow()
	case j.value == nil:
		return "accepted, and left encrypted"
	default:
		return "published as verified"
	}
}

// stopped tells that the next step was not passed.
func (j *job) stopped(reason signing.Reason, detail string) {
	t := j.trace
	if t == nil || t.ended || len(t.plan) == 0 {
		return
	}
	t.ended = true
	t.tracer.Step(Step{Number: t.plan[0], Name: stepName(t.plan[0]), Detail: detail, Reason: reason})
}

// arrived ends the journey.
func (j *job) arrived() {
	if j.trace != nil {
		j.trace.tracer.Done()
	}
}
