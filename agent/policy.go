package agent

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"pinseal/agent/actuator"
	"pinseal/signing"
	"pinseal/signing/boxtec"
	"pinseal/signing/encryption"
)

// MaxAhead is how far ahead of the node's clock a message may have been sealed.
const MaxAhead = 5 * time.Second

const (
	defaultMaxAge       = 30 * time.Second
	maxMaxAge           = 60 * time.Second
	defaultTelemetryAge = 5 * time.Minute
	defaultRate         = 1000
	defaultBurst        = 2000
	defaultPlainRate    = 100 // unsigned commands of an output
	defaultPlainBurst   = 200
)

// policy is a Policy made ready for looking things up. It does not change.
type policy struct {
	own        string // kid of the node's own key
	keyring    *signing.Keyring
	permits    map[permitKey]actions
	telemetry  []TelemetryRule
	legacy     map[string]LegacyKey // by topic
	legacyKeys map[string]bool      // by kid
	window     signing.Window
	allowances map[string]*allowance // by kid
	limits     limits

	encryption []EncryptionRule
	keys       *encryption.Keys
	encrypted  map[*output]bool // outputs whose commands must be
}

type permitKey struct{ signer, output string }

// actions is a set of actions, each with how long an output may be on by it; 0 is without a limit.
type actions map[actuator.Action]time.Duration

// allow says for how long a command may have the output on, or which action is missing for it.
func (s actions) allow(c actuator.Command) (maxOn time.Duration, missing actuator.Action) {
	for _, needed := range c.Needs() {
		limit, ok := s[needed]
		if !ok {
			return 0, needed
		}
		if maxOn == 0 || limit > 0 && limit < maxOn {
			maxOn = limit
		}
	}
	return maxOn, ""
}

// add permits actions. What was permitted for longer stays so.
func (s actions) add(maxOn time.Duration, added ...actuator.Action) error {
	for _, a := range added {
		if !slices.Contains(actuator.Actions(), a) {
			return fmt.Errorf("an unknown action %q", a)
		}
		if limit, ok := s[a]; !ok || limit > 0 && (maxOn == 0 || maxOn > limit) {
			s[a] = maxOn
		}
	}
	return nil
}

// limits is what every key is allowed.
type limits struct {
	rate  rate.Limit
	burst int
}

func (l limits) limiter() *rate.Limiter { return rate.NewLimiter(l.rate, l.burst) }

// allowance is what one key may still do. See the package comment for why there are two.
type allowance struct{ accepted, refusals *rate.Limiter }

// compile checks p and makes it ready. Keys that old knows too keep what they have used up.
func (a *Agent) compile(p *Policy, old *policy) (*policy, error) {
	if p == nil || p.Keyring == nil {
		return nil, errors.New("a policy needs a keyring")
	}
	c := &policy{
		own:        a.cfg.Key.Public().ID(),
		keyring:    p.Keyring,
		permits:    make(map[permitKey]actions),
		legacy:     make(map[string]LegacyKey),
		legacyKeys: make(map[string]bool),
		allowances: make(map[string]*allowance),
	}
	for _, step := range []func(*Policy) error{c.setLimits, a.permitsOf(c), c.setTelemetry, a.legacyOf(c), c.setEncryption, a.encryptOutputs(c)} {
		if err := step(p); err != nil {
			return nil, err
		}
	}
	c.setAllowances(old)
	return c, nil
}

func (c *policy) setLimits(p *Policy) error {
	c.window = signing.Window{MaxAge: p.MaxAge, MaxAhead: MaxAhead}
	if p.MaxAge == 0 {
		c.window.MaxAge = defaultMaxAge
	}
	if p.MaxAge < 0 || p.MaxAge > maxMaxAge {
		return fmt.Errorf("the age of commands may be at most %v, not %v", maxMaxAge, p.MaxAge)
	}
	c.limits = limits{rate: rate.Limit(p.Rate), burst: p.Burst}
	if p.Rate == 0 {
		c.limits.rate = defaultRate
	}
	if p.Burst == 0 {
		c.limits.burst = defaultBurst
	}
	if !(c.limits.rate > 0) || c.limits.burst < 0 {
		return errors.New("the rate of a key must be positive")
	}
	return nil
}

func (a *Agent) permitsOf(c *policy) func(*Policy) error {
	return func(p *Policy) error {
		for _, permit := range p.Permits {
			if _, ok := a.outputs[permit.Output]; !ok {
				return fmt.Errorf("the permit of %s names an output %q that there is not", permit.Signer, permit.Output)
			}
			if len(permit.Actions) == 0 {
				return fmt.Errorf("the permit of %s on %s names no action", permit.Signer, permit.Output)
			}
			if permit.MaxOn < 0 {
				return fmt.Errorf("the permit of %s on %s has a negative max_on", permit.Signer, permit.Output)
			}
			key := permitKey{permit.Signer, permit.Output}
			if c.permits[key] == nil {
				c.permits[key] = make(actions)
			}
			if err := c.permits[key].add(permit.MaxOn, permit.Actions...); err != nil {
				return fmt.Errorf("the permit of %s on %s names %w", permit.Signer, permit.Output, err)
			}
		}
		return nil
	}
}

func (c *policy) setTelemetry(p *Policy) error {
	for _, rule := range p.Telemetry {
		if err := checkFilter(rule.Filter); err != nil {
			return err
		}
		if rule.MaxAge < 0 {
			return fmt.Errorf("the age of telemetry on %s is negative", rule.Filter)
		}
		if rule.MaxAge == 0 {
			rule.MaxAge = defaultTelemetryAge
		}
		c.telemetry = append(c.telemetry, rule)
	}
	return nil
}

func (a *Agent) legacyOf(c *policy) func(*Policy) error {
	return func(p *Policy) error {
		for _, l := range p.Legacy {
			r, ok := a.routes[l.Topic]
			switch {
			case l.Key == nil || l.Key.Algorithm() != signing.ES256K:
				return fmt.Errorf("the legacy key of %s is not a secp256k1 key", l.Signer)
			case l.Hash != boxtec.SHA1 && l.Hash != boxtec.SHA256:
				return fmt.Errorf("the legacy key of %s has an unknown hash %q", l.Signer, l.Hash)
			case !ok || r.plain:
				return fmt.Errorf("the legacy key of %s is for a topic %q that commands no output", l.Signer, l.Topic)
			case c.legacy[l.Topic].Key != nil:
				return fmt.Errorf("the topic %s has two legacy keys, and the format does not say which it was", l.Topic)
			case c.legacyKeys[l.Key.ID()]:
				return fmt.Errorf("the legacy key of %s is for two topics", l.Signer)
			}
			c.legacy[l.Topic] = l
			c.legacyKeys[l.Key.ID()] = true
		}
		return nil
	}
}

func (c *policy) setAllowances(old *policy) {
	keys := make([]string, 0, len(c.legacyKeys))
	for kid := range c.legacyKeys {
		keys = append(keys, kid)
	}
	for _, s := range c.keyring.Signers() {
		keys = append(keys, s.Key.ID())
	}
	for _, kid := range keys {
		if old != nil && old.limits == c.limits && old.allowances[kid] != nil {
			c.allowances[kid] = old.allowances[kid]
			continue
		}
		c.allowances[kid] = &allowance{accepted: c.limits.limiter(), refusals: c.limits.limiter()}
	}
}

// lookup finds the key of a v1 message. Legacy keys are not for v1.
func (c *policy) lookup(kid string) (signing.Signer, error) {
	signer, ok := c.keyring.Lookup(kid)
	switch {
	case !ok:
		return signing.Signer{}, signing.Refuse(signing.ReasonUnknownKey, "no trusted key has this kid")
	case c.legacyKeys[kid]:
		return signing.Signer{}, signing.Refuse(signing.ReasonUnknownKey, "this key is for the legacy format alone")
	}
	return signer, nil
}

// rule finds what lets a signer publish on a telemetry topic, the most lenient where several do.
func (c *policy) rule(signer, topic string) (TelemetryRule, bool) {
	var found TelemetryRule
	ok := false
	for _, rule := range c.telemetry {
		if rule.Signer == signer && matches(rule.Filter, topic) && (!ok || rule.MaxAge > found.MaxAge) {
			found, ok = rule, true
		}
	}
	return found, ok
}

// filters returns the topic filters of the telemetry rules, each once.
func (c *policy) filters() []string {
	var filters []string
	seen := make(map[string]bool)
	for _, rule := range c.telemetry {
		if !seen[rule.Filter] {
			seen[rule.Filter] = true
			filters = append(filters, rule.Filter)
		}
	}
	return filters
}
