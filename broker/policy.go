package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pinseal/pki"
)

// Policy says who may do what. Everything is denied that no rule allows.
type Policy struct {
	Rules []Rule
	// Reserved lists the filters that only Config.Node may publish to, whatever the rules say.
	Reserved []string
	// NoRetain lists the filters on which a retained publish is refused, whoever sends it.
	NoRetain []string
}

// Rule allows one identity to publish and subscribe.
type Rule struct {
	// Identity is a name, or "*" for every identity.
	Identity string
	// Publish and Subscribe are MQTT topic filters; %u stands for the identity. A subscription is allowed if every topic
	// it could match is covered by one of the filters in Subscribe. Topics that begin with $ are only matched by
	// filters that begin with the same level, and no client may publish to $SYS or $share.
	Publish, Subscribe []string
}

// policy is a Policy made ready for use. It is immutable.
type policy struct {
	node     string
	rules    []Rule
	reserved []string
	noRetain []string
}

// grants is what one identity may do under one policy.
type grants struct {
	policy    *policy
	isNode    bool
	publish   []string
	subscribe []string
}

func compile(p *Policy, node string) (*policy, error) {
	if p == nil {
		return nil, errors.New("broker needs a policy, at least an empty one")
	}
	for i, rule := range p.Rules {
		if rule.Identity != "*" && !pki.ValidName(rule.Identity) {
			return nil, fmt.Errorf("policy rule %d: identity %q is neither a name nor *", i+1, rule.Identity)
		}
		if err := checkFilters(slices.Concat(rule.Publish, rule.Subscribe)); err != nil {
			return nil, fmt.Errorf("policy rule %d (%s): %w", i+1, rule.Identity, err)
		}
	}
	if err := checkFilters(slices.Concat(p.Reserved, p.NoRetain)); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return &policy{
		node:     node,
		rules:    slices.Clone(p.Rules),
		reserved: slices.Clone(p.Reserved),
		noRetain: slices.Clone(p.NoRetain),
	}, nil
}

func checkFilters(filters []string) error {
	for _, f := range filters {
		if !checkFilter(f) {
			return fmt.Errorf("%q is not an MQTT topic filter", f)
		}
		if strings.HasPrefix(f, "$share") {
			return fmt.Errorf("%q: shared subscriptions are judged by their inner filter", f)
		}
	}
	return nil
}

func (p *policy) grants(identity string) *grants {
	g := &grants{policy: p, isNode: identity == p.node}
	if g.isNode {
		g.publish, g.subscribe = p.reserved, []string{"#"}
	}
	for _, rule := range p.rules {
		if rule.Identity == "*" || rule.Identity == identity {
			g.publish = append(slices.Clip(g.publish), expand(rule.Publish, identity)...)
			g.subscribe = append(slices.Clip(g.subscribe), expand(rule.Subscribe, identity)...)
		}
	}
	return g
}

func expand(filters []string, identity string) []string {
	out := make([]string, len(filters))
	for i, f := range filters {
		out[i] = strings.ReplaceAll(f, "%u", identity)
	}
	return out
}

// mayPublish returns why a publish is refused, or "".
func (g *grants) mayPublish(topic string, retain bool) Reason {
	switch {
	case !publishable(topic) || !anyCovers(g.publish, topic):
		return ReasonPublish
	case !g.isNode && anyCovers(g.policy.reserved, topic):
		return ReasonReserved
	case retain && anyCovers(g.policy.noRetain, topic):
		return ReasonRetained
	}
	return ""
}

// mayReceive judges a subscription's filter or a single topic.
func (g *grants) mayReceive(filterOrTopic string) bool {
	return anyCovers(g.subscribe, unshared(filterOrTopic))
}
