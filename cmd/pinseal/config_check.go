package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Defaults of the configuration.
const (
	defaultMaxAge          = 30 * time.Second
	maxMaxAge              = 60 * time.Second
	defaultTelemetryMaxAge = 5 * time.Minute
	defaultListen          = ":8883"
)

func defaultConfig() *config {
	return &config{
		GPIO:  gpioConfig{Chip: "auto"},
		Clock: clockConfig{Trust: "auto"},
		Agent: agentConfig{MaxAge: commandMaxAge(defaultMaxAge)},
		Enrol: defaultEnrolConfig(),
		Log:   logConfig{Format: "text"},
		// Whoever changes a password does not think of a reload.
		Reload: reloadConfig{OnChange: true},
	}
}

// fillIn gives the defaults that depend on what was written.
func (c *config) fillIn() {
	if len(c.Listeners) == 0 && c.Agent.Broker == "" && c.Agent.Bundle == "" {
		c.Listeners = []listenerConfig{{Address: defaultListen}}
	}
	c.fillInInputs()
	c.fillInBatches()
	for i := range c.Telemetry {
		if c.Telemetry[i].MaxAge == 0 {
			c.Telemetry[i].MaxAge = positiveLength(defaultTelemetryMaxAge)
		}
	}
}

// check holds the rules that reach over more than one value.
func (c *config) check(data []byte) error {
	if c.Node == "" && c.Agent.Bundle == "" {
		return at(data, place{key: "node"}, `node is missing; write node = "NAME" at the top`)
	}
	if c.Clock.From != "" && c.Clock.Trust == "never" {
		return at(data, place{table: "clock", key: "from"}, `with trust = "never" no time is trusted, whoever tells it`)
	}
	if c.Clock.From != "" && c.Clock.From == c.Node {
		return at(data, place{table: "clock", key: "from"}, "the node cannot tell itself the time")
	}
	if c.Agent.Broker != "" && len(c.Listeners) > 0 {
		return at(data, place{table: "agent", key: "broker"}, "an agent with a broker elsewhere has no listener of its own: remove either")
	}
	if a := c.Agent; a.Broker != "" && (a.Certificate == "" || a.Key == "") {
		return at(data, place{table: "agent", key: "broker"}, "a broker elsewhere needs a client certificate and key for this node")
	}
	if err := c.checkEnrol(data); err != nil {
		return err
	}
	if err := c.checkListeners(data); err != nil {
		return err
	}
	if err := c.Auth.Token.check(data); err != nil {
		return err
	}
	if err := c.Monitor.check(data); err != nil {
		return err
	}
	if err := c.Persistence.check(data); err != nil {
		return err
	}
	if err := c.checkOutputs(data); err != nil {
		return err
	}
	if err := c.checkOutbox(data); err != nil {
		return err
	}
	if err := c.checkInputs(data); err != nil {
		return err
	}
	if err := c.checkSensors(data); err != nil {
		return err
	}
	return c.checkRules(data)
}

// checkListeners wants a way in at every listener.
func (c *config) checkListeners(data []byte) error {
	for i, l := range c.Listeners {
		switch {
		case !l.tls() && !l.Address.local() && !l.AllowPlain:
			return at(data, place{"listener", i, "tls"}, "%s is not a loopback address, and without TLS anybody on the way can read and change everything: write allow_plain = true if it shall be so", l.Address)
		case !l.tls() && l.RequireCertificate != nil && *l.RequireCertificate:
			return at(data, place{"listener", i, "require_certificate"}, "without TLS there are no certificates")
		case len(l.Origins) > 0 && !l.WebSocket:
			return at(data, place{"listener", i, "origins"}, "origins are those of web pages, which need websocket = true")
		case l.requiresCertificate() && l.AllowAnonymous && l.certificateIsName():
			return at(data, place{"listener", i, "allow_anonymous"}, "who must have a certificate is not anonymous: remove either, or set use_identity_as_username = false")
		case !l.AllowAnonymous && !c.takesLogins() && !l.certificateIsName():
			return at(data, place{"listener", i, "use_identity_as_username"}, "nobody could log in: set password_file in [auth], or [auth.token]")
		case !l.AllowAnonymous && !c.takesLogins() && !l.requiresCertificate():
			return at(data, place{"listener", i, "require_certificate"}, "nobody could log in without a certificate: set password_file in [auth], or [auth.token]")
		}
	}
	return nil
}

func (l listenerConfig) requiresCertificate() bool {
	return l.tls() && (l.RequireCertificate == nil || *l.RequireCertificate)
}

func (l listenerConfig) tls() bool {
	if l.TLS == nil {
		return !l.Address.unix()
	}
	return *l.TLS
}

func (l listenerConfig) certificateIsName() bool {
	return l.CertificateIsName == nil || *l.CertificateIsName
}

// takesLogins reports whether passwords or tokens let clients in.
func (c *config) takesLogins() bool { return c.Auth.PasswordFile != "" || c.Auth.Token.given() }

func (c *config) checkRules(data []byte) error {
	known, topics := map[name]bool{}, map[topicName]bool{}
	for _, o := range c.Outputs {
		known[o.Name], topics[o.Topic] = true, o.Topic != ""
	}
	for i, p := range c.Permits {
		switch {
		case p.Signer == "":
			return at(data, place{"permit", i, "signer"}, "a permit needs a signer")
		case !known[p.Output]:
			return at(data, place{"permit", i, "output"}, "no output is named %q", p.Output)
		case len(p.Actions) == 0:
			return at(data, place{"permit", i, "actions"}, "a permit without actions permits nothing")
		}
		if o, _ := c.output(string(p.Output)); p.MaxOn > 0 && p.MaxOn < o.MinOn {
			return at(data, place{"permit", i, "max_on"}, "shorter than the output's min_on")
		}
	}
	for i, t := range c.Telemetry {
		if t.Signer == "" || t.Topic == "" {
			return at(data, place{"telemetry", i, "topic"}, "a telemetry rule needs a signer (or \"*\") and a topic")
		}
		if !strings.HasPrefix(string(t.Topic), "telemetry/") {
			return at(data, place{"telemetry", i, "topic"}, "%q is not below telemetry/", t.Topic)
		}
	}
	for i, l := range c.Legacy {
		switch {
		case l.Signer == "" || l.Hash == "":
			return at(data, place{"legacy", i, "signer"}, "a legacy key needs a signer and a hash")
		case !topics[l.Topic]:
			return at(data, place{"legacy", i, "topic"}, "no output has the topic %q", l.Topic)
		}
	}
	if err := c.checkEncrypt(data); err != nil {
		return err
	}
	if err := c.checkHomeAssistant(data); err != nil {
		return err
	}
	return c.checkACL(data)
}

func (c *config) checkACL(data []byte) error {
	roles := map[name]bool{}
	for i, r := range c.Roles {
		switch {
		case r.Name == "" || len(r.Members) == 0:
			return at(data, place{"role", i, "name"}, "a role needs a name and members")
		case roles[r.Name]:
			return at(data, place{"role", i, "name"}, "two roles are named %q", r.Name)
		}
		roles[r.Name] = true
	}
	for i, r := range c.ACL {
		switch {
		case r.Identity == "" && r.Role == "":
			return at(data, place{"acl", i, "identity"}, "an acl rule needs an identity, or \"*\" for every one, or a role")
		case r.Identity != "" && r.Role != "":
			return at(data, place{"acl", i, "role"}, "an acl rule is for an identity or for a role, not for both")
		case r.Role != "" && !roles[r.Role]:
			return at(data, place{"acl", i, "role"}, "no role is named %q", r.Role)
		}
	}
	return nil
}

// dotted is a key as it would be written in one line.
func dotted(k toml.Key) string { return strings.Join(k, ".") }

// plainMessage is the decoder's message without its own name for itself.
func plainMessage(err *toml.DecodeError) string {
	message := wordKind(strings.TrimPrefix(err.Error(), "toml: "))
	if key := dotted(err.Key()); key != "" && !strings.Contains(message, key) {
		message = fmt.Sprintf("%s: %s", key, message)
	}
	return message
}
