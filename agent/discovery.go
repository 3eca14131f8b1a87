package agent

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// Discovery tells software that looks for devices what this node has.
type Discovery struct {
	// Announce gives what is to be published, retained, in this order. It is called whenever the node has connected, and
	// when the other software asks.
	Announce func() []Announcement
	// Announced is called once the broker has confirmed all of that; may be nil.
	Announced func()
	// Topic is where the other software says Word when it has started, unsigned. Empty, nobody asks.
	Topic, Word string
}

// Announcement is a retained message. An empty payload deletes what was announced before.
type Announcement struct {
	Topic   string
	Payload []byte
}

// The node tells everything again at most so often, whoever asks.
const (
	askedEvery = 5 * time.Second
	askedBurst = 3
)

func (d *Discovery) check() error {
	switch {
	case d == nil:
		return nil
	case d.Announce == nil:
		return fmt.Errorf("discovery has nothing to announce")
	case d.Topic != "" && !signing.ValidTopic(d.Topic):
		return fmt.Errorf("%q is no topic to hear of a start on", d.Topic)
	}
	return nil
}

// discoverable publishes the announcements. done hears when all are confirmed.
func (a *Agent) discoverable() {
	d := a.cfg.Discovery
	if d == nil {
		return
	}
	messages := d.Announce()
	for i, m := range messages {
		done := func(err error) {
			if err == nil && i == len(messages)-1 && d.Announced != nil {
				d.Announced() // messages are confirmed in their order
			}
		}
		a.client.PublishAsync(mqtt.Message{Topic: m.Topic, Payload: m.Payload, QoS: 1, Retained: true}, done)
	}
}

// asked reports whether a message is for the discovery, and answers it.
func (a *Agent) asked(m mqtt.Message) bool {
	d := a.cfg.Discovery
	if d == nil || d.Topic == "" || m.Topic != d.Topic {
		return false
	}
	if string(m.Payload) == d.Word && a.asking.Allow() {
		a.show()
		a.reports.each(func(topic string, m mqtt.Message) {
			if a.policy.Load().shows(topic) {
				a.client.PublishAsync(m, nil)
			}
		})
	}
	return true
}

func newAsking() *rate.Limiter { return rate.NewLimiter(rate.Every(askedEvery), askedBurst) }

// publishReport publishes plain what the node itself says as telemetry of this topic, and keeps it for who has just started: an input that changes once
// in a week would not be known until then.
func (a *Agent) publishReport(topic string, m mqtt.Message) {
	if a.cfg.Discovery != nil {
		a.reports.keep(topic, m)
	}
	a.client.PublishAsync(m, nil)
}

// latest is the last message by topic of telemetry. It holds as many as the node has inputs, sensors and batches.
type latest struct {
	mu       sync.Mutex
	messages map[string]mqtt.Message
}

func (l *latest) keep(topic string, m mqtt.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.messages == nil {
		l.messages = make(map[string]mqtt.Message)
	}
	l.messages[topic] = m
}

func (l *latest) each(do func(topic string, m mqtt.Message)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for topic, m := range l.messages {
		do(topic, m)
	}
}
