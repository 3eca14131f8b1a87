package agent

import (
	"encoding/json"
	"fmt"

	"pinseal/signing"
	"pinseal/signing/encryption"
)

// EncryptionRule has the messages on the topics that match Filter encrypted: one in the clear is refused, and what the
// node itself seals for them it encrypts; states of outputs, which are plain otherwise, it seals and encrypts. Whether
// the node is available is always plain: the broker says that. For a topic that several rules match, the first counts.
// An output is encrypted on all its topics if it is on one.
type EncryptionRule struct {
	Filter string
	// To is whom the node encrypts to. Without anybody, it seals nothing itself for these topics.
	To []encryption.Recipient
	// Republish publishes telemetry in the clear under verified/. The node must be able to open it then; it need not
	// otherwise, and tries it for commands alone.
	Republish bool
}

func (c *policy) setEncryption(p *Policy) error {
	for _, rule := range p.Encryption {
		if err := wellFormed(rule.Filter); err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
	}
	c.encryption, c.keys = p.Encryption, p.Keys
	if c.keys == nil {
		c.keys = &encryption.Keys{}
	}
	return nil
}

// encryptOutputs finds the outputs whose commands must be encrypted.
func (a *Agent) encryptOutputs(c *policy) func(*Policy) error {
	return func(*Policy) error {
		c.encrypted = make(map[*output]bool)
		for topic, r := range a.routes {
			if _, ok := c.encryptionOf(topic); ok {
				c.encrypted[r.output] = true
			}
		}
		for topic, r := range a.routes {
			_, legacy := c.legacy[topic]
			if c.encrypted[r.output] && (r.plain || legacy) {
				return fmt.Errorf("commands for the output %s are to be encrypted, and %s takes others", r.output.name, topic)
			}
		}
		return nil
	}
}

// encryptionOf finds the rule for a topic.
func (c *policy) encryptionOf(topic string) (EncryptionRule, bool) {
	for _, rule := range c.encryption {
		if matches(rule.Filter, topic) {
			return rule, true
		}
	}
	return EncryptionRule{}, false
}

// shows says whether telemetry of this topic is published in the clear as well.
func (c *policy) shows(topic string) bool {
	rule, encrypted := c.encryptionOf(topic)
	return !encrypted || rule.Republish
}

// openCommand is the first part of step 9 for a command: what its message says is in c.value afterwards.
func (c *command) openCommand(o *output) error {
	if c.legacy != nil {
		return nil
	}
	return c.open(c.policy.encrypted[o])
}

// EncryptedOnly is the detail of a verdict on what should have been encrypted.
const EncryptedOnly = "this topic takes encrypted messages only"

func (j *job) open(demanded bool) error {
	msg := j.message.JSON()
	switch {
	case !encryption.Encrypted(msg) && demanded:
		return signing.Refuse(signing.ReasonNotPermitted, EncryptedOnly)
	case !encryption.Encrypted(msg):
		j.value = msg
		return nil
	}
	var err error
	if j.value, err = j.policy.keys.Decrypt(msg, encryption.BindingOf(j.message)); err != nil {
		return cannotDecrypt()
	}
	return nil
}

// cannotDecrypt is the one answer to everything that can be wrong with a ciphertext.
func cannotDecrypt() error {
	return signing.Refuse(signing.ReasonBadCommand,
		"cannot be decrypted: it is encrypted to none of the node's keys, or for another message, or is damaged")
}

// openReading is step 9 for telemetry. What is encrypted has no value afterwards, unless it shall be republished.
func (j *job) openReading() error {
	rule, demanded := j.policy.encryptionOf(j.topic)
	msg := j.message.JSON()
	if !encryption.Encrypted(msg) || demanded && rule.Republish {
		return j.open(demanded)
	}
	if err := encryption.Check(msg, encryption.BindingOf(j.message)); err != nil {
		return cannotDecrypt()
	}
	return nil
}

// veil seals and encrypts what would be published plain, if the topic demands it.
func (a *Agent) veil(topic string, payload []byte) ([]byte, error) {
	if _, ok := a.policy.Load().encryptionOf(topic); !ok {
		return payload, nil
	}
	now := a.cfg.Clock.Now()
	number, err := a.reportNumbers.take(now)
	if err != nil {
		return nil, err
	}
	if !signing.ValidMessage(payload) { // a word
		if payload, err = json.Marshal(string(payload)); err != nil {
			return nil, err
		}
	}
	c, err := a.encrypt(signing.Claims{Topic: topic, IssuedAt: now, Sequence: number, Message: payload})
	if err != nil {
		return nil, err
	}
	return signing.Seal(a.cfg.Key, c)
}

// encrypt makes the message of what the node is about to seal encrypted if its topic demands it.
func (a *Agent) encrypt(c signing.Claims) (signing.Claims, error) {
	rule, ok := a.policy.Load().encryptionOf(c.Topic)
	switch {
	case !ok:
		return c, nil
	case len(rule.To) == 0:
		return c, fmt.Errorf("there is nobody to encrypt %s to", c.Topic)
	}
	b := encryption.Binding{Topic: c.Topic, KeyID: a.cfg.Key.Public().ID(), Sequence: c.Sequence}
	var err error
	c.Message, err = encryption.Encrypt(rule.To, b, c.Message)
	return c, err
}
