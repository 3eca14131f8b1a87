package agent

import (
	"errors"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// receive takes steps 1 to 4. It is called in the order of arrival and does not block.
func (a *Agent) receive(m mqtt.Message, ack func()) {
	if a.stopping.Load() {
		return // not acknowledged: a broker that keeps the session delivers it to the next run, and senders ask again
	}
	if a.receiveTime(m) || a.asked(m) || a.receiveAnswer(m) {
		ack()
		return
	}
	r, l := a.routeOf(m.Topic)
	if r == nil {
		ack() // a subscription of a former configuration that the broker remembers
		return
	}
	j := &job{
		topic: m.Topic, payload: m.Payload, qos: m.QoS, ack: ack,
		route: r, policy: a.policy.Load(), verified: make(chan struct{}),
	}
	j.trace = a.journeyOf(j)
	err := j.screen(m.Retained)
	if errors.Is(err, errOwn) {
		ack()
		j.stopped(signing.ReasonUnknownKey, "the node's own, which it does not judge")
		j.arrived()
		return
	}
	if err == nil && !a.verifier.admit(&r.queue, j) {
		err = signing.Refuse(signing.ReasonRateLimited, "too many messages of this topic are under way")
	}
	if err != nil {
		a.note(j, ident{}, err)
		ack()
		j.arrived()
		return
	}
	j.passed(stepAdmitted)
	l.in.put(j)
}

// routeOf says where messages of a topic go, and in which order they are judged.
func (a *Agent) routeOf(topic string) (*route, *lane) {
	if topic == a.loopback.topic {
		return &a.loopback.route, a.loopback.lane
	}
	if r, ok := a.routes[topic]; ok {
		return r, r.output.lane
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for filter, r := range a.telemetryRoutes {
		if matches(filter, topic) {
			return r, a.telemetry
		}
	}
	return nil, nil
}

// errOwn says that a message claims to be the node's own telemetry, which comes back where a rule's filter covers it.
var errOwn = errors.New("our own")

// screen takes steps 1 to 3.
func (j *job) screen(retained bool) error {
	switch {
	case len(j.payload) > signing.MaxSealedBytes:
		return signing.Refuse(signing.ReasonMalformed, "longer than %d bytes", signing.MaxSealedBytes)
	case retained:
		return signing.Refuse(signing.ReasonRetained, "stored by a broker")
	}
	j.passed(stepSize)
	if j.route.plain {
		var err error
		j.unsigned, err = decodePlain(j.payload)
		return err
	}
	// A sealed message begins with the base64url of a brace or white space, never with a digit.
	if l, ok := j.policy.legacy[j.topic]; ok && len(j.payload) > 0 && isDigit(j.payload[0]) {
		j.legacy, j.signer = &l, signing.Signer{Name: l.Signer, Key: l.Key}
		j.passed(stepKey)
		return nil
	}
	var err error
	if j.sealed, err = signing.Parse(j.payload); err == nil {
		j.passed(stepParsed)
		switch {
		case j.route.own != nil:
			j.signer, err = j.route.lookupOwn(j.sealed.KeyID())
		case j.route.output == nil && j.sealed.KeyID() == j.policy.own:
			err = errOwn
		default:
			j.signer, err = j.policy.lookup(j.sealed.KeyID())
		}
	}
	if err == nil {
		j.passed(stepKey)
	}
	return err
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// renew repeats step 3 if the policy changed while the message was under way.
func (j *job) renew(p *policy) error {
	if p == j.policy || j.route.plain {
		return nil
	}
	j.policy = p
	if j.legacy == nil {
		var err error
		j.signer, err = p.lookup(j.sealed.KeyID()) // the same key, perhaps another's by now
		return err
	}
	if l := p.legacy[j.topic]; l.Key == nil || l.Key.ID() != j.legacy.Key.ID() || l.Signer != j.legacy.Signer {
		return signing.Refuse(signing.ReasonUnknownKey, "this legacy key is no longer trusted")
	}
	return nil
}
