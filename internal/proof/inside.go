package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/broker"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/replay"
)

// sensorTopic is where the sensor publishes its telemetry.
const sensorTopic = "telemetry/" + sensor + "/load"

// accepted stands for telemetry that came out verified, beside the reasons of verdicts.
const accepted signing.Reason = "accepted"

// inside is a node in this process, for what cannot be done to another one: broker and agent as `pinseal run` has them,
// the broker reached in memory.
type inside struct {
	line    memoryLine
	agent   *agent.Agent
	client  *mqtt.Client
	keys    map[string]*signing.PrivateKey
	answers chan answer
	nonce   string // the node's challenge
	stop    func() error
}

// answer is what the node says to one message.
type answer struct {
	seq    uint64 // of telemetry: the value
	reason signing.Reason
	detail string
}

// memoryLine counts how often it is driven.
type memoryLine struct {
	level atomic.Uint32
	acts  atomic.Int64
}

func (m *memoryLine) Drive(level uint8) error {
	m.level.Store(uint32(level))
	m.acts.Add(1)
	return nil
}

func (m *memoryLine) Level() uint8 { return uint8(m.level.Load()) } //nolint:gosec // one was stored

// numbers is a sequence without a file.
type numbers struct{ last atomic.Uint64 }

func (n *numbers) Reserve(_ time.Time, count uint64) (uint64, error) {
	return n.last.Add(count) - count + 1, nil
}

func newInside(ctx context.Context, clock agent.Clock, store *replay.Store) (_ *inside, err error) {
	n := &inside{keys: map[string]*signing.PrivateKey{}, answers: make(chan answer, 100)}
	var signers []signing.Signer
	for _, name := range []string{operator, sensor, nodeName} {
		if n.keys[name], err = signing.GenerateKey(signing.ES256); err != nil {
			return nil, err
		}
		signers = append(signers, signing.Signer{Name: name, Key: n.keys[name].Public()})
	}
	keyring, err := signing.NewKeyring(signers[:2]...)
	if err != nil {
		return nil, err
	}
	// Who dials in memory is the node, which may write to what is reserved for it: here that is everything.
	b, err := broker.New(broker.Config{Node: nodeName, Policy: &broker.Policy{Reserved: []string{"#"}}})
	if err != nil {
		return nil, err
	}
	led, err := actuator.New(actuator.Config{Name: outputName(ledLine), Driver: &n.line})
	if err != nil {
		return nil, err
	}
	n.agent, err = agent.New(agent.Config{
		Node: nodeName, Key: n.keys[nodeName], Sequence: &numbers{}, Dial: b.Dial, ClientID: "agent",
		Outputs: []agent.Output{{Name: outputName(ledLine), Topic: ledTopic, Actuator: led}},
		Policy: &agent.Policy{
			Keyring:   keyring,
			Permits:   []agent.Permit{{Signer: operator, Output: outputName(ledLine), Actions: []actuator.Action{actuator.Toggle}}},
			Telemetry: []agent.TelemetryRule{{Signer: sensor, Filter: sensorTopic}},
			Rate:      100_000, Burst: 100_000,
		},
		Replay: store, Clock: clock,
	})
	if err != nil {
		return nil, err
	}
	return n, n.run(ctx, b)
}

// run starts broker and agent and listens to what they say.
func (n *inside) run(ctx context.Context, b *broker.Broker) error {
	brokerCtx, stopBroker := context.WithCancel(ctx)
	agentCtx, stopAgent := context.WithCancel(ctx)
	ended := make(chan error, 2)
	go func() { ended <- b.Run(brokerCtx) }()
	go func() { ended <- n.agent.Run(agentCtx) }()
	n.stop = func() error {
		if n.client != nil {
			_ = n.client.Close() // returns no error
		}
		stopAgent()
		err := <-ended
		stopBroker()
		return errors.Join(err, <-ended)
	}
	select {
	case <-n.agent.Ready():
	case <-time.After(patience):
		return errors.Join(errors.New("the agent is not ready"), n.stop())
	}
	challenge := make(chan string, 1)
	var err error
	n.client, err = mqtt.Connect(ctx, mqtt.Config{
		Dial: b.Dial, ClientID: "proof",
		Subscriptions: []mqtt.Subscription{
			{Filter: agent.VerdictTopic(nodeName, "+"), QoS: 1},
			{Filter: "verified/#", QoS: 1},
			{Filter: agent.ChallengeTopic(nodeName), QoS: 1},
		},
		OnMessage: func(m mqtt.Message, ack func()) { n.hear(m, challenge); ack() },
	})
	if err != nil {
		return errors.Join(err, n.stop())
	}
	select {
	case n.nonce = <-challenge:
		return nil
	case <-time.After(patience):
		return errors.Join(errors.New("there is no challenge"), n.stop())
	}
}

// hear verifies what the node says.
func (n *inside) hear(m mqtt.Message, challenge chan<- string) {
	if value, err := strconv.ParseUint(string(m.Payload), 10, 64); err == nil {
		n.answers <- answer{seq: value, reason: accepted}
		return
	}
	keyring, err := signing.NewKeyring(signing.Signer{Name: nodeName, Key: n.keys[nodeName].Public()})
	if err != nil {
		n.answers <- answer{detail: err.Error()}
		return
	}
	msg, _, err := signing.Open(m.Payload, m.Topic, keyring)
	if err != nil {
		n.answers <- answer{detail: err.Error()}
		return
	}
	if m.Topic == agent.ChallengeTopic(nodeName) {
		if text, err := agent.ParseChallenge(msg.JSON()); err == nil {
			challenge <- text
		}
		return
	}
	var v agent.Verdict
	if err := json.Unmarshal(msg.JSON(), &v); err != nil {
		n.answers <- answer{detail: err.Error()}
		return
	}
	n.answers <- answer{v.Sequence, v.Reason, v.Detail}
}

// ask publishes a sealed message and waits for the answer. seq is its number, and for telemetry its value too.
func (n *inside) ask(ctx context.Context, topic string, raw []byte, seq uint64) (answer, error) {
	if err := n.client.Publish(ctx, mqtt.Message{Topic: topic, Payload: raw, QoS: 1}); err != nil {
		return answer{}, err
	}
	select {
	case a := <-n.answers:
		if a.seq != seq {
			return a, fmt.Errorf("an answer to %d instead of %d: %s %s", a.seq, seq, a.reason, a.detail)
		}
		return a, nil
	case <-time.After(patience):
		return answer{}, errUnanswered
	}
}
