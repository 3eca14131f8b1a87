package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/broker"
	"pinseal/signing"
	"pinseal/signing/boxtec"
)

// brokerPolicy is who may publish and subscribe where, plus what holds whatever the rules say: the
// node's own topics are the node's alone, and a command is never retained.
func (c *config) brokerPolicy() (*broker.Policy, error) {
	p := &broker.Policy{Reserved: ownTopics(string(c.Node)), Denied: c.deniedNames()}
	if c.Clock.Serve {
		line, _ := locate(c.source.data, place{table: "clock", key: "serve"})
		p.Rules = append(p.Rules, broker.Rule{
			Identity: "*", Publish: []string{agent.TimeRequestTopic(string(c.Node))}, Subscribe: []string{agent.TimeTopic(string(c.Node))},
			Source: fmt.Sprintf("%s:%d: [clock] serve", c.source.path, line),
		})
		p.NoRetain = append(p.NoRetain, agent.TimeRequestTopic(string(c.Node)))
	}
	if c.Clock.From != "" {
		p.Reserved = append(p.Reserved, agent.TimeRequestTopic(string(c.Clock.From)))
	}
	if path := c.Auth.ACLFile; path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the ACL file: %w", err)
		}
		if p.ACLFile, err = broker.ParseACLFile(path, text); err != nil {
			return nil, withHint(err, "its format is mosquitto's: man mosquitto.conf, acl_file")
		}
	}
	for i := range c.ACL {
		p.Rules = append(p.Rules, c.brokerRules(i)...)
	}
	for _, o := range c.Outputs {
		p.NoRetain = append(p.NoRetain, agent.SetTopic(string(c.Node), string(o.Name)))
		for _, topic := range []topicName{o.Topic, o.PlainTopic} {
			if topic != "" {
				p.NoRetain = append(p.NoRetain, string(topic))
			}
		}
	}
	for _, l := range c.Legacy {
		p.NoRetain = append(p.NoRetain, string(l.Topic))
	}
	return p, nil
}

// brokerRules makes one [[acl]] block one rule for each identity.
func (c *config) brokerRules(i int) []broker.Rule {
	r := c.ACL[i]
	line, _ := locate(c.source.data, place{table: "acl", index: i})
	rule := broker.Rule{
		Identity: string(r.Identity), Publish: strs(r.Publish), Subscribe: strs(r.Subscribe),
		Source: fmt.Sprintf("%s:%d: [[acl]] identity = %q", c.source.path, line, r.Identity),
	}
	if r.MaxQoS != nil {
		rule.MaxQoS = new(byte(*r.MaxQoS)) //nolint:gosec // was checked when it was read
	}
	if r.Role == "" {
		return []broker.Rule{rule}
	}
	rule.Source = fmt.Sprintf("%s:%d: [[acl]] role = %q", c.source.path, line, r.Role)
	var rules []broker.Rule
	for _, role := range c.Roles {
		if role.Name != r.Role {
			continue
		}
		for _, member := range role.Members {
			rule.Identity = string(member)
			rules = append(rules, rule)
		}
	}
	return rules
}

// ownTopics are the filters of what the node alone may write.
func ownTopics(node string) []string {
	return []string{
		agent.AvailabilityTopic(node), agent.ChallengeTopic(node),
		agent.TimeTopic(node), agent.StateTopic(node, "+"), agent.StatusTopic(node, "+"), agent.VerdictTopic(node, "+"), agent.ReceiptTopic(node, "+"), agent.LoopbackTopic(node), "verified/#",
		"+/device/" + node + "/config", // of Home Assistant's discovery, whatever its prefix is or was
	}
}

// agentPolicy is whose key may do what; the keys are read from the files of l.
func (c *config) agentPolicy(l layout) (*agent.Policy, error) {
	keyring, err := readKeyring(l)
	if err != nil {
		return nil, withHint(err, "pinseal signer add NAME FILE puts a public key there")
	}
	if keyring, err = c.withoutDenied(keyring); err != nil {
		return nil, err
	}
	p := &agent.Policy{Keyring: keyring, MaxAge: time.Duration(c.Agent.MaxAge), Rate: float64(c.Agent.Rate), Burst: int(c.Agent.Burst)}
	for _, permit := range c.Permits {
		p.Permits = append(p.Permits, agent.Permit{
			Signer: string(permit.Signer), Output: string(permit.Output), Actions: actions(permit.Actions), MaxOn: time.Duration(permit.MaxOn),
		})
	}
	for _, rule := range c.Telemetry {
		p.Telemetry = append(p.Telemetry, rule.expand(keyring)...)
	}
	for _, old := range c.Legacy {
		if c.denies(string(old.Signer)) {
			continue // it has no key any more, and that is no mistake
		}
		key, err := legacyKey(keyring, string(old.Signer))
		if err != nil {
			return nil, err
		}
		p.Legacy = append(p.Legacy, agent.LegacyKey{
			Signer: string(old.Signer), Topic: string(old.Topic), Hash: boxtec.Hash(old.Hash), Key: key,
		})
	}
	return p, c.addEncryption(p, l.encryption())
}

// legacyKey is the one secp256k1 key of a signer: the legacy format has no key id to choose by.
func legacyKey(keyring *signing.Keyring, signer string) (*signing.PublicKey, error) {
	var found []*signing.PublicKey
	for _, s := range keyring.Signers() {
		if s.Name == signer && s.Key.Algorithm() == signing.ES256K {
			found = append(found, s.Key)
		}
	}
	if len(found) != 1 {
		return nil, withHint(fmt.Errorf("the legacy signer %s has %d secp256k1 keys, it needs exactly one", signer, len(found)),
			"openssl ecparam -genkey -name secp256k1 makes one; pinseal signer add %s FILE trusts it", signer)
	}
	return found[0], nil
}

// expand makes one rule a signer of one for "*", with the signer's name in the place of %u.
func (r telemetryRule) expand(keyring *signing.Keyring) []agent.TelemetryRule {
	var rules []agent.TelemetryRule
	seen := map[string]bool{}
	for _, s := range keyring.Signers() {
		if r.Signer != "*" && string(r.Signer) != s.Name || seen[s.Name] {
			continue
		}
		seen[s.Name] = true
		rules = append(rules, agent.TelemetryRule{
			Signer: s.Name, Filter: strings.ReplaceAll(string(r.Topic), "%u", s.Name), MaxAge: time.Duration(r.MaxAge),
		})
	}
	return rules
}

func actions(words []action) []actuator.Action {
	var actions []actuator.Action
	for _, word := range words {
		actions = append(actions, actuator.Action(word))
	}
	return actions
}

func strs[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
