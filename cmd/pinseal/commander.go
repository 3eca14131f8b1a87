package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/sequence"
)

// resendAfter is how long the node may take to answer before the same bytes are sent once more, if the
// connection does not break before: what the broker has acknowledged can still be lost when node or
// broker stop. The node knows them again.
const resendAfter = 3 * time.Second

// slowDown is how long a message waits that came too fast for its key's rate.
const slowDown = 250 * time.Millisecond

// commander seals messages, publishes them and hears the node's answers.
type commander struct {
	client  *client
	key     *signing.PrivateKey
	secrets *cryptor
	numbers *sequence.Counter
	keyring *signing.Keyring
	mqtt    *mqtt.Client
	// stray hears of verdicts that no question waits for: on messages that others sent with this key, and
	// on those of our own that had seemed to be answered.
	stray func(v agent.Verdict, own bool)

	mu         sync.Mutex
	open       []*question   // in the order of asking
	nonce      string        // the node's challenge, once it was asked for
	challenged chan struct{} // closed when there is one

	clock nodeTime
}

// question is a sealed message that waits for the node's answer.
type question struct {
	message mqtt.Message // sealed
	text    []byte       // what was sealed
	seq     uint64
	patient bool // ask again when it came too fast for the key's rate
	echoed  bool // answered by an echo, which may have been that of the same text asked later
	arrived bool // at the broker
	resent  bool
	sealed  time.Time
	off     time.Duration // of our clock, as far as it was known then
	answer  chan agent.Verdict
}

// newCommander connects.
func newCommander(ctx context.Context, c *client, stray func(v agent.Verdict, own bool)) (*commander, error) {
	if c.Node == "" {
		return nil, noBundle("--node")
	}
	if err := c.defaultName(); err != nil {
		return nil, err
	}
	s := &commander{client: c, stray: stray, challenged: make(chan struct{}), clock: nodeTime{wall: c.now}}
	if err := s.openKeys(); err != nil {
		return nil, err
	}
	connection, err := c.connect(ctx, mqtt.Config{
		CleanSession:  true,
		Subscriptions: []mqtt.Subscription{{Filter: agent.VerdictTopic(c.Node, c.Name), QoS: 1}},
		OnMessage:     s.hear,
		OnUp:          s.askAgain,
	})
	if err != nil {
		return nil, errors.Join(err, s.numbers.Close())
	}
	s.mqtt = connection
	return s, nil
}

func (s *commander) openKeys() (err error) {
	if s.client.SignKey == "" {
		return usageError(withHint(errors.New("no signing key"), "--bundle FOLDER or --sign-key FILE"))
	}
	if s.key, err = readSignKey(s.client.SignKey); err != nil {
		return err
	}
	if s.keyring, err = s.client.readSigners(); err != nil {
		return err
	}
	if s.secrets, err = newCryptor(s.client.secrets, s.client.encrypt, s.client.encryptTo); err != nil {
		return err
	}
	if !knows(s.keyring, s.client.Node) {
		return withHint(fmt.Errorf("no key of node %s in %s: its answer could not be verified", s.client.Node, s.client.Signers),
			"put the node's public key there as %s.pem; on the node: openssl pkey -in keys/sign.key -pubout", s.client.Node)
	}
	s.numbers, err = openNumbers(s.client.SignKey)
	return err
}

func knows(keyring *signing.Keyring, signer string) bool {
	return slices.ContainsFunc(keyring.Signers(), func(s signing.Signer) bool { return s.Name == signer })
}

// Close ends the connection.
func (s *commander) Close() error { return errors.Join(s.mqtt.Close(), s.numbers.Close()) }

// hear takes what the node says: verdicts and the challenge count only with its signature, and
// verified/ can be written by the node alone.
func (s *commander) hear(m mqtt.Message, ack func()) {
	defer ack()
	if s.hearEcho(m) {
		return
	}
	if m.Topic == agent.TimeTopic(s.client.Node) {
		s.hearTime(m)
		return
	}
	said, err := s.said(m)
	if err == nil && m.Topic == agent.ChallengeTopic(s.client.Node) {
		err = s.hearChallenge(said)
	} else if err == nil {
		err = s.hearVerdict(said)
	}
	if err != nil {
		s.client.log.Warn("answer ignored", "topic", m.Topic, "error", err)
	}
}

// said gives what the node says, and nobody else.
func (s *commander) said(m mqtt.Message) ([]byte, error) {
	sealed, signer, err := signing.Open(m.Payload, m.Topic, s.keyring)
	if err != nil {
		return nil, err
	}
	if signer.Name != s.client.Node {
		return nil, fmt.Errorf("signed by %s, not by the node", signer.Name)
	}
	return s.secrets.value(sealed)
}

// hearChallenge takes the node's challenge, which goes into every message from then on.
func (s *commander) hearChallenge(said []byte) error {
	nonce, err := agent.ParseChallenge(said)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nonce == "" {
		close(s.challenged)
	}
	s.nonce = nonce
	return nil
}

func (s *commander) hearVerdict(said []byte) error {
	v, err := agent.ParseVerdict(said)
	if err != nil || v.KeyID != s.key.Public().ID() { // the signer may have other keys elsewhere
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.open, func(q *question) bool { return q.message.Topic == v.Topic && q.seq == v.Sequence })
	switch {
	case i < 0:
		s.stray(v, false)
	case s.open[i].patient && v.Reason == signing.ReasonRateLimited:
		q := s.open[i]
		time.AfterFunc(slowDown, func() { s.publish(q) })
	case !s.open[i].echoed:
		s.open[i].answer <- v // has room for the one answer that an open question can get
		s.open = slices.Delete(s.open, i, i+1)
	case v.Reason != signing.ReasonDuplicate: // the echo had been another's
		s.stray(v, true)
	}
	return nil
}

// hearEcho takes a verified value as the answer to the oldest question that is repeated in these words.
// The question stays known for a while: should the echo have been another's, the node's refusal follows.
func (s *commander) hearEcho(m mqtt.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.open, func(q *question) bool {
		repeated, ok := agent.VerifiedTopic(q.message.Topic)
		return ok && repeated == m.Topic && !q.echoed && plainText(q.text) == string(m.Payload)
	})
	if i < 0 {
		return false
	}
	q := s.open[i]
	q.echoed = true
	q.answer <- agent.Verdict{Reason: signing.ReasonApplied}
	if len(s.open) > 2*maxUnanswered && s.open[0].echoed {
		s.open = slices.Delete(s.open, 0, 1)
	}
	return true
}

// seal makes the next message of this key.
func (s *commander) seal(topic string, message []byte, at time.Time) (raw []byte, seq uint64, err error) {
	s.mu.Lock()
	nonce := s.nonce
	s.mu.Unlock()
	if seq, err = s.numbers.Next(at); err != nil {
		return nil, 0, err
	}
	raw, err = s.secrets.seal(s.key, signing.Claims{Topic: topic, IssuedAt: at, Sequence: seq, Message: message, Nonce: nonce})
	return raw, seq, err
}

// Command seals m's payload, publishes it and waits for the answer.
func (s *commander) Command(ctx context.Context, m mqtt.Message) (agent.Verdict, error) {
	q, err := s.send(m, false, s.clock.now())
	if err != nil {
		return agent.Verdict{}, err
	}
	return s.follow(ctx, q)
}

// follow waits for the answer to a question. A node that does not trust its clock wants its challenge in
// the command, one that finds ours wrong may tell the time: it is fetched, and the command sealed once more.
func (s *commander) follow(ctx context.Context, q *question) (agent.Verdict, error) {
	verdict, err := s.await(ctx, q)
	if err != nil {
		return verdict, err
	}
	at := q.sealed
	switch verdict.Reason {
	case signing.ReasonClockUnsynchronised:
		if err := s.fetchChallenge(ctx); err != nil {
			return verdict, err
		}
	case signing.ReasonStale, signing.ReasonFuture:
		off, told := s.fetchTime(ctx)
		// A message that is too old by a right clock, too, is not made younger.
		if wrong := off - q.off; !told || wrong.Abs() < clockTolerance {
			return verdict, nil
		}
		at = at.Add(off - q.off)
	default:
		return verdict, nil
	}
	m := q.message
	m.Payload = q.text
	if q, err = s.send(m, q.patient, at); err != nil {
		return verdict, err
	}
	return s.await(ctx, q)
}

// followEchoes subscribes to where the node repeats verified telemetry, which then answers it.
func (s *commander) followEchoes(ctx context.Context, topic string) error {
	repeated, _ := agent.VerifiedTopic(topic)
	if err := s.mqtt.Subscribe(ctx, mqtt.Subscription{Filter: repeated, QoS: 1}); err != nil {
		return fmt.Errorf("subscribing to the verified value: %w", err)
	}
	return nil
}

// send seals m's payload and hands it over to be published, in the order of the calls.
func (s *commander) send(m mqtt.Message, patient bool, at time.Time) (*question, error) {
	raw, seq, err := s.seal(m.Topic, m.Payload, at)
	if err != nil {
		return nil, err
	}
	q := &question{message: m, text: m.Payload, seq: seq, patient: patient, sealed: at, off: s.clock.off(), answer: make(chan agent.Verdict, 1)}
	q.message.Payload = raw
	s.mu.Lock()
	s.open = append(s.open, q)
	s.mu.Unlock()
	s.publish(q)
	return q, nil
}

// publish hands over a question. That it is acknowledged is no answer, and that it is not is no end.
func (s *commander) publish(q *question) {
	s.mqtt.PublishAsync(q.message, func(err error) {
		if err != nil {
			s.client.log.Warn("not published", "topic", q.message.Topic, "error", err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		q.arrived = true
	})
}

// askAgain sends in the same bytes what the broker had acknowledged before the connection broke and the
// node has not answered; the connection itself repeats what was not acknowledged.
func (s *commander) askAgain() {
	s.mu.Lock()
	var unanswered []*question
	for _, q := range s.open {
		q.resent = true
		if q.arrived && !q.echoed {
			unanswered = append(unanswered, q)
		}
	}
	s.mu.Unlock()
	for _, q := range unanswered {
		s.publish(q)
	}
}

// await waits for the answer, and asks again in the same bytes as long as there is none. That the node
// says duplicate then means that only its answer had been lost.
func (s *commander) await(ctx context.Context, q *question) (agent.Verdict, error) {
	again := time.NewTicker(resendAfter)
	defer again.Stop()
	for {
		select {
		case v := <-q.answer:
			s.mu.Lock()
			resent := q.resent
			s.mu.Unlock()
			if resent && v.Reason == signing.ReasonDuplicate {
				v.Reason, v.Detail = signing.ReasonApplied, ""
			}
			return v, nil
		case <-again.C:
			s.mu.Lock()
			q.resent = true
			s.mu.Unlock()
			s.publish(q)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return agent.Verdict{}, s.noAnswer(q.message.Topic)
			}
			return agent.Verdict{}, ctx.Err()
		}
	}
}

func (s *commander) fetchChallenge(ctx context.Context) error {
	if err := s.mqtt.Subscribe(ctx, mqtt.Subscription{Filter: agent.ChallengeTopic(s.client.Node), QoS: 1}); err != nil {
		return fmt.Errorf("fetching the node's challenge: %w", err)
	}
	select {
	case <-s.challenged:
		return nil
	case <-ctx.Done():
		return withCode(exitNoAnswer, errors.New("the node shows no challenge"))
	}
}

// noAnswer says what a missing answer can mean.
func (s *commander) noAnswer(topic string) error {
	return withCode(exitNoAnswer, withHint(fmt.Errorf("no answer from node %s on %s in time", s.client.Node, topic),
		"%s", noAnswerHint(s.client, topicName(topic))))
}

func noAnswerHint(c *client, topic topicName) string {
	switch {
	case slices.Contains(c.topics, topic) || isTelemetry(string(topic)):
	case len(c.topics) == 0 && c.Bundle != "":
		return fmt.Sprintf("as far as is known here, %s may command nothing; on the node, pinseal policy explain --as %s pub %s says more", c.Name, c.Name, topic)
	case len(c.topics) > 0:
		var known []string
		for _, t := range c.topics {
			known = append(known, string(t))
		}
		return fmt.Sprintf("no output of the node answers there, as far as is known here: %s commands on %s", c.Name, strings.Join(known, ", "))
	}
	return fmt.Sprintf("the node's log says what it refuses without an answer: an unknown key, a broken message, or that its acl does not let %s publish there", c.Name)
}
