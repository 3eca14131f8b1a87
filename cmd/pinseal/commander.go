package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/sequence"
)

// commander seals messages, publishes them and waits for the node's answers.
type commander struct {
	client   *client
	key      *signing.PrivateKey
	numbers  *sequence.Counter
	keyring  *signing.Keyring
	mqtt     *mqtt.Client
	rejected func(agent.Verdict) // hears of messages that nobody waits for

	mu        sync.Mutex
	waiting   map[command]chan agent.Verdict
	challenge chan string
}

// command names one sealed message as verdicts do.
type command struct {
	topic string
	seq   uint64
}

// newCommander connects; rejected hears of rejected messages whose answer nobody waits for.
func newCommander(ctx context.Context, c *client, rejected func(agent.Verdict)) (*commander, error) {
	if c.Node == "" {
		return nil, usageError(withHint(errors.New("whose answer to wait for?"), "--bundle FOLDER says it, or --node with the node's name"))
	}
	if err := c.defaultName(); err != nil {
		return nil, err
	}
	s := &commander{client: c, rejected: rejected, waiting: map[command]chan agent.Verdict{}, challenge: make(chan string, 1)}
	if err := s.openKeys(); err != nil {
		return nil, err
	}
	connection, err := c.connect(ctx, mqtt.Config{
		CleanSession:  true,
		Subscriptions: []mqtt.Subscription{{Filter: agent.VerdictTopic(c.Node, c.Name), QoS: 1}},
		OnMessage:     s.hear,
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
	if !knows(s.keyring, s.client.Node) {
		return withHint(fmt.Errorf("no key of node %s in %s: its answer could not be verified", s.client.Node, s.client.Signers),
			"put the node's public key there as %s.pem; on the node: openssl pkey -in keys/sign.key -pubout", s.client.Node)
	}
	s.numbers, err = sequence.Open(sequenceFile(s.client.SignKey))
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
	if s.verified(m.Topic) {
		return
	}
	sealed, signer, err := signing.Open(m.Payload, m.Topic, s.keyring)
	if err != nil || signer.Name != s.client.Node {
		s.client.log.Warn("answer ignored", "topic", m.Topic, "error", err)
		return
	}
	if m.Topic == agent.ChallengeTopic(s.client.Node) {
		err = s.hearChallenge(sealed)
	} else {
		err = s.hearVerdict(sealed)
	}
	if err != nil {
		s.client.log.Warn("answer ignored", "topic", m.Topic, "error", err)
	}
}

func (s *commander) hearChallenge(m *signing.Message) error {
	text, err := agent.ParseChallenge(m.JSON())
	if err != nil {
		return err
	}
	select {
	case s.challenge <- text:
	default: // one is waiting already
	}
	return nil
}

func (s *commander) hearVerdict(m *signing.Message) error {
	v, err := agent.ParseVerdict(m.JSON())
	if err != nil || v.KeyID != s.key.Public().ID() { // the signer may have other keys elsewhere
		return err
	}
	s.mu.Lock()
	answer, expected := s.waiting[command{v.Topic, v.Sequence}]
	s.mu.Unlock()
	switch {
	case expected:
		give(answer, v)
	case v.Reason != signing.ReasonApplied:
		s.rejected(v)
	}
	return nil
}

// verified answers whoever waits for telemetry that the node has just repeated on topic.
func (s *commander) verified(topic string) (answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, answer := range s.waiting {
		if repeated, ok := agent.VerifiedTopic(c.topic); ok && repeated == topic {
			give(answer, agent.Verdict{Topic: c.topic, Sequence: c.seq, Reason: signing.ReasonApplied})
			answered = true
		}
	}
	return answered
}

// give hands over the first answer; later ones to the same question are dropped.
func give(answer chan<- agent.Verdict, v agent.Verdict) {
	select {
	case answer <- v:
	default:
	}
}

// seal makes the next message of this key.
func (s *commander) seal(topic string, message []byte, nonce string) (raw []byte, seq uint64, err error) {
	now := time.Now()
	if seq, err = s.numbers.Next(now); err != nil {
		return nil, 0, err
	}
	raw, err = signing.Seal(s.key, signing.Claims{Topic: topic, IssuedAt: now, Sequence: seq, Message: message, Nonce: nonce})
	return raw, seq, err
}

// Command seals m's payload, publishes it and waits for the verdict. A node that does not trust its
// clock wants its challenge in the command; it is fetched and the command sealed once more.
func (s *commander) Command(ctx context.Context, m mqtt.Message) (agent.Verdict, error) {
	verdict, err := s.ask(ctx, m, "")
	if err != nil || verdict.Reason != signing.ReasonClockUnsynchronised {
		return verdict, err
	}
	nonce, err := s.fetchChallenge(ctx)
	if err != nil {
		return verdict, err
	}
	return s.ask(ctx, m, nonce)
}

// Telemetry seals m's payload, publishes it and waits until the node repeats the verified value,
// which counts as applied, or rejects it.
func (s *commander) Telemetry(ctx context.Context, m mqtt.Message) (agent.Verdict, error) {
	repeated, _ := agent.VerifiedTopic(m.Topic)
	if err := s.mqtt.Subscribe(ctx, mqtt.Subscription{Filter: repeated}); err != nil {
		return agent.Verdict{}, fmt.Errorf("subscribing to the verified value: %w", err)
	}
	return s.ask(ctx, m, "")
}

func (s *commander) ask(ctx context.Context, m mqtt.Message, nonce string) (agent.Verdict, error) {
	raw, seq, err := s.seal(m.Topic, m.Payload, nonce)
	if err != nil {
		return agent.Verdict{}, err
	}
	m.Payload = raw
	return s.await(ctx, command{m.Topic, seq}, func() error { return s.mqtt.Publish(ctx, m) })
}

// await publishes and waits for the verdict on what was published.
func (s *commander) await(ctx context.Context, c command, publish func() error) (agent.Verdict, error) {
	answer := make(chan agent.Verdict, 1)
	s.mu.Lock()
	s.waiting[c] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, c)
		s.mu.Unlock()
	}()
	if err := publish(); err != nil {
		return agent.Verdict{}, s.noAnswer(ctx, c.topic, err)
	}
	select {
	case v := <-answer:
		return v, nil
	case <-ctx.Done():
		return agent.Verdict{}, s.noAnswer(ctx, c.topic, ctx.Err())
	}
}

func (s *commander) fetchChallenge(ctx context.Context) (string, error) {
	if err := s.mqtt.Subscribe(ctx, mqtt.Subscription{Filter: agent.ChallengeTopic(s.client.Node), QoS: 1}); err != nil {
		return "", fmt.Errorf("fetching the node's challenge: %w", err)
	}
	select {
	case text := <-s.challenge:
		return text, nil
	case <-ctx.Done():
		return "", withCode(exitNoAnswer, errors.New("the node shows no challenge"))
	}
}

// noAnswer says what a missing answer can mean.
func (s *commander) noAnswer(ctx context.Context, topic string, err error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return withCode(exitNoAnswer, withHint(fmt.Errorf("no answer from node %s on %s in time: %w", s.client.Node, topic, err),
		"the node's log names what it refuses without an answer: an unknown key, a broken message, a topic its acl does not let you publish (this bundle: %v)", s.client.topics))
}
