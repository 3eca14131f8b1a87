package main

import (
	"context"
	"sync"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// clockTolerance is how far our clock must be off before a message is sealed once more for its sake.
const clockTolerance = time.Second

// nodeTime is the time as the node has told it, for a machine whose own clock the node finds wrong. It tells one answer
// from another by what it asked; the machine's own clock is left as it is.
type nodeTime struct {
	asking sync.Mutex       // one question at a time
	wall   func() time.Time // our own clock; nil is the machine's

	mu     sync.Mutex
	nonce  string // of the open question, "" if there is none
	asked  time.Time
	heard  chan struct{} // closed when it is answered
	anchor time.Time     // our own clock when it was told the time, zero before
	ahead  time.Duration // the node's clock of ours
}

// now is our own clock, or the node's once it was told. What has passed since is measured by the monotonic clock.
func (t *nodeTime) now() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.anchor.IsZero() {
		return t.own()
	}
	return t.anchor.Round(0).Add(t.ahead + t.own().Sub(t.anchor))
}

func (t *nodeTime) own() time.Time {
	if t.wall == nil {
		return time.Now()
	}
	return t.wall()
}

// off is how far the node's clock is ahead of ours, as far as is known.
func (t *nodeTime) off() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ahead
}

func (t *nodeTime) ask() (nonce string, heard <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nonce, t.asked, t.heard = agent.NewTimeNonce(), time.Now(), make(chan struct{})
	return t.nonce, t.heard
}

// hear takes the answer to the open question, once, if it is as young as it must be.
func (t *nodeTime) hear(m *signing.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	told, err := agent.ParseTime(m, t.nonce)
	if err != nil || time.Since(t.asked) > agent.TimeAnswerIn {
		return
	}
	t.nonce = ""
	t.anchor = t.own()
	t.ahead = told.Sub(t.anchor.Round(0))
	close(t.heard)
}

// hearTime counts only with the node's signature.
func (s *commander) hearTime(m mqtt.Message) {
	message, signer, err := signing.Open(m.Payload, m.Topic, s.keyring)
	if err != nil || signer.Name != s.client.Node {
		s.client.log.Warn("answer ignored", "topic", m.Topic, "signer", signer.Name, "error", err)
		return
	}
	s.clock.hear(message)
}

// recently is for how long an answer about the time is good for other messages, too.
const recently = time.Minute

// fetchTime asks the node for the time. It is the one that judges our messages by its clock, so it may as well be believed.
func (s *commander) fetchTime(ctx context.Context) (off time.Duration, told bool) {
	t := &s.clock
	t.asking.Lock()
	defer t.asking.Unlock()
	t.mu.Lock()
	known := !t.anchor.IsZero() && t.own().Sub(t.anchor) < recently
	t.mu.Unlock()
	if known {
		return t.off(), true
	}
	ctx, cancel := context.WithTimeout(ctx, agent.TimeAnswerIn)
	defer cancel()
	if err := s.mqtt.Subscribe(ctx, mqtt.Subscription{Filter: agent.TimeTopic(s.client.Node)}); err != nil {
		return 0, false // it does not tell the time, or not us
	}
	nonce, heard := t.ask()
	s.mqtt.PublishAsync(mqtt.Message{Topic: agent.TimeRequestTopic(s.client.Node), Payload: []byte(nonce)}, nil)
	select {
	case <-heard:
		s.client.log.Info("the node told the time", "ahead", t.off())
		return t.off(), true
	case <-ctx.Done():
		return 0, false
	}
}
