package agent

import (
	"errors"
	"fmt"

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
	tracer *Tracer
	plan   []int // the steps that this kind of message takes
	ended  bool
}

func (a *Agent) journeyOf(j *job) *journey {
	t := a.tracer.Load()
	if t == nil || j.route.own != nil || !t.Wants(j.topic, j.payload) || !a.tracer.CompareAndSwap(t, nil) {
		return nil
	}
	switch {
	case j.route.plain:
		return &journey{tracer: t, plan: []int{stepSize, stepParsed, stepAdmitted, stepFresh, stepActed}}
	case j.route.output == nil:
		return &journey{tracer: t, plan: []int{stepSize, stepParsed, stepKey, stepAdmitted, stepSignature, stepTopic, stepPermitted, stepFresh, stepNumber, stepActed}}
	}
	plan := make([]int, stepVerdict)
	for i := range plan {
		plan[i] = i + 1
	}
	return &journey{tracer: t, plan: plan}
}

// passed tells that the next step was passed, which the caller names.
func (j *job) passed(step int, format string, args ...any) {
	t := j.trace
	if t == nil || t.ended || len(t.plan) == 0 {
		return
	}
	// A step of which nothing is told was passed too.
	for len(t.plan) > 0 && t.plan[0] <= step {
		s := Step{Number: t.plan[0], Name: stepName(t.plan[0])}
		if s.Number == step {
			s.Detail = fmt.Sprintf(format, args...)
		}
		t.tracer.Step(s)
		t.plan = t.plan[1:]
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
