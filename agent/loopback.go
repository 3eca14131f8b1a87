package agent

import (
	"context"
	"fmt"
	"sync"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// loopback is the way of the messages that the node seals to itself, to find out whether it still hears. It shares the
// connection and the verifiers with everything else. Its key is made for one run and trusted for nothing else, so these
// messages need no numbers from the disk, and whoever has one has nothing.
type loopback struct {
	topic string
	key   *signing.PrivateKey
	route route
	lane  *lane

	asking sync.Mutex // one question at a time

	mu       sync.Mutex
	number   uint64        // of the message that is expected
	expected chan struct{} // closed when it has come
}

func newLoopback(node string) (*loopback, error) {
	key, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		return nil, err
	}
	l := &loopback{topic: LoopbackTopic(node), key: key, lane: &lane{in: newFIFO[*job]()}}
	l.route.own = key.Public()
	return l, nil
}

// Loopback seals a message to the node itself, sends it the way that commands take and returns nil once it was verified:
// the proof that the node would still act. With [Config].OwnBroker that way begins at the broker; otherwise it begins
// where messages arrive, because a broker elsewhere may be away for days, and no restart here brings it back. It does not
// touch a line or the disk. The error is the end of ctx, or what kept the message from being sent.
func (a *Agent) Loopback(ctx context.Context) error {
	l := a.loopback
	l.asking.Lock()
	defer l.asking.Unlock()
	number, come := l.expect()
	sealed, err := signing.Seal(l.key, signing.Claims{Topic: l.topic, IssuedAt: a.cfg.Clock.Now(), Sequence: number, Message: []byte("1")})
	if err != nil {
		return fmt.Errorf("sealing to ourselves: %w", err)
	}
	m := mqtt.Message{Topic: l.topic, Payload: sealed, QoS: 1}
	if !a.cfg.OwnBroker {
		a.receive(m, func() {})
	} else if err := a.client.Publish(ctx, m); err != nil {
		return fmt.Errorf("publishing to ourselves: %w", err)
	}
	select {
	case <-come:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a message to ourselves did not come back verified: %w", ctx.Err())
	}
}

// expect begins a new question: only its own message answers it.
func (l *loopback) expect() (uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	l.expected = make(chan struct{})
	return l.number, l.expected
}

// judgeLoopback takes messages to ourselves through steps 5 and 6.
func (a *Agent) judgeLoopback() {
	for jobs := a.loopback.lane.in.take(); jobs != nil; jobs = a.loopback.lane.in.take() {
		for _, j := range jobs {
			<-j.verified
			err := j.err
			if err == nil {
				err = j.checkTopic()
			}
			if err != nil {
				a.note(j, ident{}, err)
			} else {
				a.loopback.arrived(j.message.Sequence())
			}
			a.finish(j)
		}
	}
}

func (l *loopback) arrived(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number == l.number && l.expected != nil {
		close(l.expected)
		l.expected = nil
	}
}

// lookupOwn is step 3 for messages to ourselves.
func (r *route) lookupOwn(kid string) (signing.Signer, error) {
	if kid != r.own.ID() {
		return signing.Signer{}, signing.Refuse(signing.ReasonUnknownKey, "not the node's own key of this run")
	}
	return signing.Signer{Key: r.own}, nil
}
