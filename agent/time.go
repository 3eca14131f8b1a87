package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// TimeTopic is where a node answers who asks it for the time, sealed, and bound to the question by its nonce.
func TimeTopic(node string) string { return "pinseal/" + node + "/time" }

// TimeRequestTopic is where a node is asked for the time. The whole message is a nonce, see [NewTimeNonce].
func TimeRequestTopic(node string) string { return "pinseal/" + node + "/time/get" }

// TimeAnswerIn is how old an answer may be when it arrives: the time in it is off by no more.
const TimeAnswerIn = 2 * time.Second

// NewTimeNonce makes the nonce of one question.
func NewTimeNonce() string { return newChallenge() }

// validNonce keeps questions to what answers can carry.
func validNonce(s string) bool {
	const shortest, longest = 22, 64
	return len(s) >= shortest && len(s) <= longest &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

type timeMessage struct {
	Time time.Time `json:"time"`
}

// ParseTime reads the time from a verified message on [TimeTopic] that answers the question with this nonce.
func ParseTime(m *signing.Message, nonce string) (time.Time, error) {
	var t timeMessage
	if nonce == "" || m.Nonce() != nonce {
		return t.Time, errors.New("reading the time: it answers another question")
	}
	if err := json.Unmarshal(m.JSON(), &t); err != nil || t.Time.IsZero() {
		return t.Time, fmt.Errorf("reading the time: %w", errors.Join(err, errors.New("there is none")))
	}
	return t.Time, nil
}

// TimeTaker is a clock that can be told the time. *clock.Clock is one.
type TimeTaker interface {
	// Wants reports whether to ask for it.
	Wants() bool
	// Tell gives the time that it is now. An error says why it is not taken.
	Tell(now time.Time) error
}

// Who asks a node for the time, and how often one that has no answer asks again.
const (
	timeRate      = 20 // answers a second
	timeBurst     = 50
	timeLook      = 10 * time.Second
	timeQuestions = 64 // that may wait for their answer
)

// timekeeping is both halves: to answer others, and to ask one.
type timekeeping struct {
	requests, answers string // topics, "" for what is not done
	limiter           *rate.Limiter
	nonces            chan string   // to be answered
	up                chan struct{} // the broker can be heard again

	mu    sync.Mutex
	nonce string // of the open question
	asked time.Time
}

func (a *Agent) newTimekeeping() *timekeeping {
	t := &timekeeping{limiter: rate.NewLimiter(timeRate, timeBurst), nonces: make(chan string, timeQuestions), up: make(chan struct{}, 1)}
	if a.cfg.ServeTime {
		t.requests = TimeRequestTopic(a.cfg.Node)
	}
	if a.cfg.TimeFrom != "" {
		t.answers = TimeTopic(a.cfg.TimeFrom)
	}
	return t
}

// subscriptions are at QoS 0: what is not delivered now is of no use later.
func (t *timekeeping) subscriptions() []mqtt.Subscription {
	var subs []mqtt.Subscription
	for _, topic := range []string{t.requests, t.answers} {
		if topic != "" {
			subs = append(subs, mqtt.Subscription{Filter: topic})
		}
	}
	return subs
}

// connected has the question asked at once that the clock may have.
func (t *timekeeping) connected() {
	select {
	case t.up <- struct{}{}:
	default: // it is known already
	}
}

// keepTime answers and asks until ctx ends.
func (a *Agent) keepTime(ctx context.Context) {
	var halves sync.WaitGroup
	if a.time.requests != "" {
		halves.Go(func() { a.answerTime(ctx) })
	}
	if a.time.answers != "" {
		halves.Go(func() { a.askTime(ctx) })
	}
	halves.Wait()
}

// receiveTime takes what is about the time. A retained message is neither question nor answer.
func (a *Agent) receiveTime(m mqtt.Message) bool {
	t := a.time
	switch m.Topic {
	case "":
		return false
	case t.requests:
		if nonce := string(m.Payload); !m.Retained && validNonce(nonce) && t.limiter.Allow() {
			select {
			case t.nonces <- nonce:
			default: // more than can be answered in time
			}
		}
		return true
	case t.answers:
		if m.Retained {
			return true
		}
		if err := a.hearTime(m); err != nil {
			a.cfg.Log.Debug("an answer about the time is not taken", "from", a.cfg.TimeFrom, "error", err)
		}
		return true
	}
	return false
}

// answerTime answers questions. A node that does not trust its own clock says nothing.
func (a *Agent) answerTime(ctx context.Context) {
	for {
		select {
		case nonce := <-a.time.nonces:
			if !a.cfg.Clock.Trusted() {
				continue
			}
			if err := a.sealTime(nonce); err != nil {
				a.cfg.Log.Error("cannot seal the time", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) sealTime(nonce string) error {
	now := a.cfg.Clock.Now()
	number, err := a.cfg.Sequence.Reserve(now, 1)
	if err != nil {
		return err
	}
	msg, err := json.Marshal(timeMessage{a.cfg.Clock.Now().UTC()}) // the number may have had to wait for the disk
	if err != nil {
		return err
	}
	sealed, err := signing.Seal(a.cfg.Key, signing.Claims{Topic: TimeTopic(a.cfg.Node), IssuedAt: now, Sequence: number, Message: msg, Nonce: nonce})
	if err != nil {
		return err
	}
	a.client.PublishAsync(mqtt.Message{Topic: TimeTopic(a.cfg.Node), Payload: sealed}, nil)
	return nil
}

// hearTime takes the answer to the open question, from the node that is trusted with it, if it came in time. Each
// question has one answer.
func (a *Agent) hearTime(m mqtt.Message) error {
	sealed, err := signing.Parse(m.Payload)
	if err != nil {
		return err
	}
	signer, ok := a.policy.Load().keyring.Lookup(sealed.KeyID())
	if !ok || signer.Name != a.cfg.TimeFrom {
		return errors.New("not from the node that is asked")
	}
	message, err := sealed.Verify(signer.Key)
	if err == nil {
		err = message.CheckTopic(m.Topic)
	}
	if err != nil {
		return err
	}
	t := a.time
	t.mu.Lock()
	defer t.mu.Unlock()
	told, err := ParseTime(message, t.nonce)
	if err != nil {
		return err
	}
	t.nonce = ""
	if took := time.Since(t.asked); took > TimeAnswerIn {
		return fmt.Errorf("it took %v", took)
	}
	if err := a.cfg.TellTime.Tell(told); err != nil {
		return err
	}
	a.cfg.Log.Info("told the time", "from", a.cfg.TimeFrom, "time", told)
	return nil
}

// askTime asks as long as the clock wants to be told the time.
func (a *Agent) askTime(ctx context.Context) {
	look := time.NewTicker(timeLook)
	defer look.Stop()
	for {
		if a.cfg.TellTime.Wants() {
			a.askTimeOnce()
		}
		select {
		case <-look.C:
		case <-a.time.up:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) askTimeOnce() {
	t := a.time
	t.mu.Lock()
	t.nonce, t.asked = NewTimeNonce(), time.Now()
	m := mqtt.Message{Topic: TimeRequestTopic(a.cfg.TimeFrom), Payload: []byte(t.nonce)}
	t.mu.Unlock()
	a.client.PublishAsync(m, nil)
}
