package agent

import (
	"context"
	"fmt"

	"pinseal/agent/outbox"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// remote is the node that this one's telemetry is for.
type remote struct {
	name               string
	receipts, verdicts string // topics
	outbox             *outbox.Box
}

// newRemote gives nil where telemetry is for nobody in particular.
func (cfg *Config) newRemote() *remote {
	if cfg.Receiver == "" {
		return nil
	}
	return &remote{
		name: cfg.Receiver, outbox: cfg.Outbox,
		receipts: ReceiptTopic(cfg.Receiver, cfg.Node), verdicts: VerdictTopic(cfg.Receiver, cfg.Node),
	}
}

func (r *remote) subscriptions() []mqtt.Subscription {
	if r == nil {
		return nil
	}
	return []mqtt.Subscription{{Filter: r.receipts, QoS: 1}, {Filter: r.verdicts, QoS: 1}}
}

// connected has telemetry sent again that an earlier connection may have lost behind its end.
func (r *remote) connected() {
	if r != nil {
		r.outbox.Again()
	}
}

// runOutbox publishes what waits in the outbox until ctx ends.
func (a *Agent) runOutbox(ctx context.Context) {
	if a.remote == nil {
		return
	}
	a.remote.outbox.Run(ctx, func(m outbox.Message, done func(error)) {
		// Sealed before this node was given another key: who receives it knows the former no longer, and says nothing to it.
		if sealed, err := signing.Parse(m.Sealed); err == nil && !a.policy.Load().ours(sealed.KeyID(), a.cfg.Node) {
			a.remote.outbox.Refused(m.Topic, m.Number, signing.ReasonUnknownKey)
			return
		}
		a.client.PublishAsync(mqtt.Message{Topic: m.Topic, Payload: m.Sealed, QoS: 1}, done)
	})
}

// receiveAnswer takes what the receiver of our telemetry says about it; only with its signature it counts.
func (a *Agent) receiveAnswer(m mqtt.Message) bool {
	r := a.remote
	if r == nil || m.Topic != r.receipts && m.Topic != r.verdicts {
		return false
	}
	if err := a.hearAnswer(m); err != nil {
		a.cfg.Log.Warn("answer ignored", "topic", m.Topic, "error", err)
	}
	return true
}

func (a *Agent) hearAnswer(m mqtt.Message) error {
	if len(m.Payload) > signing.MaxSealedBytes {
		return fmt.Errorf("longer than %d bytes", signing.MaxSealedBytes)
	}
	p := a.policy.Load()
	sealed, signer, err := signing.Open(m.Payload, m.Topic, p.keyring)
	if err != nil {
		return err
	}
	if signer.Name != a.remote.name {
		return fmt.Errorf("signed by %s, not by %s", signer.Name, a.remote.name)
	}
	if m.Topic == a.remote.receipts {
		return a.hearReceipt(p, sealed.JSON())
	}
	return a.hearVerdict(p, sealed.JSON())
}

// ours reports whether a key is the node's: the one it signs with, or one of before that its own signers know it by.
func (c *policy) ours(kid, node string) bool {
	signer, ok := c.keyring.Lookup(kid)
	return kid == c.own || ok && signer.Name == node
}

func (a *Agent) hearReceipt(p *policy, msg []byte) error {
	r, err := ParseReceipt(msg)
	if err != nil || !p.ours(r.KeyID, a.cfg.Node) {
		return err
	}
	for _, accepted := range r.Accepted {
		for _, number := range accepted.Sequences {
			a.remote.outbox.Accepted(accepted.Topic, number)
		}
	}
	return nil
}

func (a *Agent) hearVerdict(p *policy, msg []byte) error {
	v, err := ParseVerdict(msg)
	if err != nil || !p.ours(v.KeyID, a.cfg.Node) {
		return err
	}
	if v.Reason == signing.ReasonApplied { // what stays encrypted is answered so
		a.remote.outbox.Accepted(v.Topic, v.Sequence)
	} else {
		a.remote.outbox.Refused(v.Topic, v.Sequence, v.Reason)
	}
	return nil
}
