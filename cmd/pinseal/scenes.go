package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// sceneTimeout is how long the node may take to answer in a scene.
const sceneTimeout = 10 * time.Second

// scene is one attempt to move the LED.
type scene struct {
	who, does string
	want      signing.Reason // the node's
	on        bool           // the LED afterwards
	act       func(context.Context) (agent.Verdict, error)
}

// scenes are the demo's story. The neighbour's attempts come while the LED is off and would switch it on.
func (d *demo) scenes() []scene {
	var stolen []byte // "on", sealed by the operator for ledStatus, as the neighbour overheard it
	set := agent.SetTopic(demoNode, demoOutput)
	return []scene{
		{"operator", "publishes on, sealed", signing.ReasonApplied, true, func(ctx context.Context) (v agent.Verdict, err error) {
			if v, err = d.command(ctx, `"on"`); err == nil {
				stolen, err = d.overhear(ctx)
			}
			return v, err
		}},
		{"operator", "publishes off, sealed", signing.ReasonApplied, false, func(ctx context.Context) (agent.Verdict, error) {
			return d.command(ctx, `"off"`)
		}},
		{"neighbour", "publishes the captured on again", signing.ReasonReplay, false, func(ctx context.Context) (agent.Verdict, error) {
			return d.tell(ctx, demoTopic, stolen)
		}},
		{"neighbour", "publishes it on another topic", signing.ReasonWrongTopic, false, func(ctx context.Context) (agent.Verdict, error) {
			return d.tell(ctx, set, stolen)
		}},
		{"neighbour", "changes one byte of it", signing.ReasonBadSignature, false, func(ctx context.Context) (agent.Verdict, error) {
			return d.counted(ctx, mqtt.Message{Topic: demoTopic, Payload: spoil(stolen), QoS: 1})
		}},
		{"neighbour", "seals on with a key nobody trusts", signing.ReasonUnknownKey, false, func(ctx context.Context) (agent.Verdict, error) {
			forged, err := forge(time.Now())
			if err != nil {
				return agent.Verdict{}, err
			}
			return d.counted(ctx, mqtt.Message{Topic: demoTopic, Payload: forged, QoS: 1})
		}},
		{"neighbour", "held back an on for a minute", signing.ReasonStale, false, func(ctx context.Context) (agent.Verdict, error) {
			old, err := d.sealedAt(time.Now().Add(-time.Minute))
			if err != nil {
				return agent.Verdict{}, err
			}
			return d.tell(ctx, demoTopic, old)
		}},
		{"neighbour", "publishes a plain 1", signing.ReasonMalformed, false, func(ctx context.Context) (agent.Verdict, error) {
			return d.counted(ctx, mqtt.Message{Topic: demoTopic, Payload: []byte("1"), QoS: 1})
		}},
		{"neighbour", "publishes it retained", signing.ReasonRetained, false, func(ctx context.Context) (agent.Verdict, error) {
			return d.counted(ctx, mqtt.Message{Topic: demoTopic, Payload: stolen, QoS: 1, Retained: true})
		}},
	}
}

// play runs a scene, draws the LED and says what the node answered.
func (d *demo) play(ctx context.Context, s scene) bool {
	ctx, cancel := context.WithTimeout(ctx, sceneTimeout)
	defer cancel()
	verdict, err := s.act(ctx)
	on := d.node.outputs[0].line.Level() > 0
	good := err == nil && verdict.Reason == s.want && on == s.on
	text := fmt.Sprintf("%-9s  %-34s  %s", s.who, s.does, verdictText(verdict))
	switch {
	case err != nil:
		text = fmt.Sprintf("%-9s  %-34s  failed: %v", s.who, s.does, err)
	case !good:
		text += fmt.Sprintf("  (wrong: %s was expected)", s.want)
	}
	d.screen.led(on, text)
	return good
}

// command has the operator command the LED.
func (d *demo) command(ctx context.Context, message string) (agent.Verdict, error) {
	return d.operator.Command(ctx, mqtt.Message{Topic: demoTopic, Payload: []byte(message), QoS: 1})
}

// overhear gives what the neighbour heard last on the LED's topic.
func (d *demo) overhear(ctx context.Context) ([]byte, error) {
	select {
	case payload := <-d.captured:
		return payload, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tell publishes as the neighbour and gives the verdict that the operator gets for it.
func (d *demo) tell(ctx context.Context, topic string, payload []byte) (agent.Verdict, error) {
	if err := d.neighbour.Publish(ctx, mqtt.Message{Topic: topic, Payload: payload, QoS: 1}); err != nil {
		return agent.Verdict{}, err
	}
	select {
	case v := <-d.told:
		return v, nil
	case <-ctx.Done():
		return agent.Verdict{}, ctx.Err()
	}
}

// counted publishes as the neighbour what the node refuses without an answer, and gives the reason it counted.
func (d *demo) counted(ctx context.Context, m mqtt.Message) (agent.Verdict, error) {
	before := d.node.refusals()
	if err := d.neighbour.Publish(ctx, m); err != nil {
		return agent.Verdict{}, err
	}
	for look := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return agent.Verdict{}, errors.New("the node did not count it")
		}
		for reason, count := range d.node.refusals() {
			if count > before[reason] {
				return agent.Verdict{Reason: reason, Detail: "not answered, only counted and logged"}, nil
			}
		}
	}
}

// sealedAt is an operator's "on" that was sealed at another time.
func (d *demo) sealedAt(at time.Time) ([]byte, error) {
	seq, err := d.operator.numbers.Next(time.Now())
	if err != nil {
		return nil, err
	}
	return signing.Seal(d.operator.key, signing.Claims{Topic: demoTopic, IssuedAt: at, Sequence: seq, Message: []byte(`"on"`)})
}

// forge seals "on" with a key that is as good as any, but that no node knows.
func forge(now time.Time) ([]byte, error) {
	key, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		return nil, err
	}
	return signing.Seal(key, signing.Claims{Topic: demoTopic, IssuedAt: now, Sequence: 1, Message: []byte(`"on"`)})
}

// spoil changes one byte of a sealed message's signature, for another letter of base64url.
func spoil(sealed []byte) []byte {
	spoilt := bytes.Clone(sealed)
	at := bytes.LastIndexByte(spoilt, '.') + 1
	if spoilt[at] == 'A' {
		spoilt[at] = 'B'
	} else {
		spoilt[at] = 'A'
	}
	return spoilt
}
