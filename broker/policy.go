package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pinseal/pki"
)

// Policy says who may do what. Everything is denied that no rule and no line of the ACL file allows.
type Policy struct {
	Rules []Rule
	// ACLFile is asked beside the rules; nil for none. What one of its lines denies, no rule allows.
	ACLFile *ACLFile
	// Reserved lists the filters that only Config.Node may publish to, whatever the rules say.
	Reserved []string
	// NoRetain lists the filters on which a retained publish is refused, whoever sends it.
	NoRetain []string
	// Denied lists identities that may do nothing, whatever the rules say: they are not let in, however they log in, and
	// what they have here ends. See [Broker.SetPolicy].
	Denied []string
}

// Rule allows one identity to publish and subscribe.
type Rule struct {
	// Identity is a name, or "*" for every identity. No rule is for clients without a name.
	Identity string
	// Publish and Subscribe are MQTT topic filters; %u stands for the identity. A subscription is allowed if every topic
	// it could match is covered by one of the filters in Subscribe. Topics that begin with $ are only matched by
	// filters that begin with the same level, and no client may publish to $SYS or $share.
	Publish, Subscribe []string
	// MaxQoS is the highest quality of service: a publish above it is refused, a subscription is granted it instead of
	// what it asked for. nil is no limit. Where several rules allow the same, the highest counts.
	MaxQoS *byte
	// Source says where the rule is written, for Decision.
	Source string
}

// Request is what a client may ask for.
type Request struct {
	Identity, ClientID string
	// Topic is a topic name, or with Subscribe a filter.
	Topic     string
	Subscribe bool
	QoS       byte
	Retain    bool
}

// Decision is what a policy answers to a Request.
type Decision struct {
	// Reason is why it is denied, "" if it is allowed.
	Reason Reason
	// MaxQoS is the highest quality of service, where it is allowed.
	MaxQoS byte
	// Source is what decided: where the rule is written, or what holds whatever the rules say. It is "" where no rule
	// allows it.
	Source string
}

// Explain says how a broker of that node would decide under the policy. The error is about the policy.
func Explain(p *Policy, node string, r Request) (Decision, error) {
	compiled, err := compile(p, node)
	if err != nil {
		return Decision{}, err
	}
	g := compiled.grants(r.Identity, r.ClientID)
	if r.Subscribe {
		return g.subscription(r.Topic), nil
	}
	return g.publication(r.Topic, r.QoS, r.Retain), nil
}

// policy is a Policy made ready for use. It is immutable.
type policy struct {
	node     string
	rules    []Rule
	file     *ACLFile
	reserved []string
	noRetain []string
	denied   map[string]bool
}

// grants is what one client may do under one policy.
type grants struct {
	policy    *policy
	isNode    bool
	publish   []grant
	subscribe []grant
	lines     []aclLine
}

// grant is one filter of a rule.
type grant struct {
	filter string
	maxQoS byte
	source string
}

const highestQoS = 2

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
		if rule.MaxQoS != nil && *rule.MaxQoS > highestQoS {
			return nil, fmt.Errorf("policy rule %d (%s): there is no quality of service %d", i+1, rule.Identity, *rule.MaxQoS)
		}
	}
	if err := checkFilters(slices.Concat(p.Reserved, p.NoRetain)); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	denied := map[string]bool{}
	for _, identity := range p.Denied {
		if identity == node {
			return nil, errors.New("policy: the node itself cannot be denied")
		}
		denied[identity] = true
	}
	return &policy{
		node:     node,
		rules:    slices.Clone(p.Rules),
		file:     p.ACLFile,
		reserved: slices.Clone(p.Reserved),
		noRetain: slices.Clone(p.NoRetain),
		denied:   denied,
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

func (p *policy) grants(identity, clientID string) *grants {
	g := &grants{policy: p, isNode: identity == p.node}
	if p.denied[identity] {
		return g
	}
	if g.isNode {
		own := Rule{Source: "the node itself"}
		g.publish, g.subscribe = expand(p.reserved, own, ""), expand([]string{"#"}, own, "")
	} else {
		g.lines = p.file.lines(identity, clientID)
	}
	for _, rule := range p.rules {
		if identity != "" && (rule.Identity == "*" || rule.Identity == identity) {
			g.publish = append(g.publish, expand(rule.Publish, rule, identity)...)
			g.subscribe = append(g.subscribe, expand(rule.Subscribe, rule, identity)...)
		}
	}
	return g
}

func expand(filters []string, rule Rule, identity string) []grant {
	out := make([]grant, len(filters))
	for i, f := range filters {
		out[i] = grant{strings.ReplaceAll(f, "%u", identity), highestQoS, rule.Source}
		if rule.MaxQoS != nil {
			out[i].maxQoS = *rule.MaxQoS
		}
	}
	return out
}

// decide asks the ACL file and the rules; denied is the reason if they do not allow it.
func (g *grants) decide(rules []grant, wanted string, as access, denied Reason) Decision {
	line := judge(g.lines, wanted, as)
	switch {
	case line != nil && line.access == accessDeny:
		return Decision{Reason: denied, Source: line.source}
	case line != nil:
		return Decision{MaxQoS: highestQoS, Source: line.source}
	}
	d := Decision{Reason: denied}
	for i := range rules {
		r := &rules[i]
		if (d.Reason != "" || r.maxQoS > d.MaxQoS) && covers(r.filter, wanted) {
			d = Decision{MaxQoS: r.maxQoS, Source: r.source}
		}
	}
	return d
}

func (g *grants) publication(topic string, qos byte, retain bool) Decision {
	if !publishable(topic) {
		return Decision{Reason: ReasonPublish, Source: "no client publishes to $SYS or $share"}
	}
	d := g.decide(g.publish, topic, accessWrite, ReasonPublish)
	switch {
	case d.Reason != "":
	case !g.isNode && anyCovers(g.policy.reserved, topic):
		return Decision{Reason: ReasonReserved, Source: "only the node publishes there"}
	case retain && anyCovers(g.policy.noRetain, topic):
		return Decision{Reason: ReasonRetained, Source: "nothing is retained there"}
	case qos > d.MaxQoS:
		d.Reason = ReasonQoS
	}
	return d
}

// mayPublish returns why a publish is refused, or "".
func (g *grants) mayPublish(topic string, qos byte, retain bool) Reason {
	return g.publication(topic, qos, retain).Reason
}

// subscription judges a subscription's filter or a single topic.
func (g *grants) subscription(filterOrTopic string) Decision {
	return g.decide(g.subscribe, unshared(filterOrTopic), accessRead, ReasonSubscribe)
}

func (g *grants) mayReceive(filterOrTopic string) bool {
	return g.subscription(filterOrTopic).Reason == ""
}
