package main

import (
	"fmt"
	"strings"

	"pinseal/broker"
	"pinseal/pki"

	"github.com/alecthomas/kong"
)

type policyCmd struct {
	Explain policyExplainCmd `cmd:"" help:"Say whether a client may publish, subscribe, or command an output, and which rule decides. Exit code 0 is yes, 1 is no."`
}

type policyExplainCmd struct {
	dirFlag
	As       string `help:"Name of the client or the signer; without it, a client that has none, or who does not sign." placeholder:"NAME"`
	ClientID string `name:"client-id" short:"i" help:"Its MQTT client id, where the ACL file says %c." placeholder:"ID"`
	QoS      byte   `name:"qos" short:"q" help:"Quality of service." enum:"0,1,2" default:"0"`
	Retain   bool   `short:"r" help:"Publish a retained message."`
	Action   string `arg:"" help:"pub, sub or command." enum:"pub,sub,command"`
	Topic    string `arg:"" help:"Topic; for sub also a filter, such as a/# or $share/group/a/#; for command the output's name."`
	What     string `arg:"" optional:"" help:"For command: an action, such as on or pulse, or a command in JSON."`
}

// Run decides as the broker would under the configuration as it is now.
func (c *policyExplainCmd) Run(std streams, k *kong.Kong) error {
	if c.As != "" && !pki.ValidName(c.As) {
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.As)
	}
	if (c.Action == "command") != (c.What != "") {
		return usageError(errNoAction)
	}
	if c.Action == "command" {
		return c.runCommand(std, k)
	}
	err := checkFilter(c.Topic)
	if c.Action == "pub" && strings.ContainsAny(c.Topic, "+#") {
		err = fmt.Errorf("%q has a wildcard, and nobody can publish to that", c.Topic)
	}
	if err != nil {
		return usageError(err)
	}
	l, cfg, err := c.read()
	if err != nil {
		return err
	}
	if cfg.Agent.Broker != "" {
		return withHint(fmt.Errorf("the broker at %s is not this node's, and has rules of its own", cfg.Agent.Broker), "what a command may do is the node's to say: policy explain --as SIGNER command OUTPUT ACTION")
	}
	decision, err := c.decide(l, cfg)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(std.out, worded(decision, c.QoS)); err != nil {
		return err
	}
	if decision.Reason != "" {
		k.Exit(exitFailed)
	}
	return nil
}

// read reads what the node would go by.
func (c *policyExplainCmd) read() (layout, *config, error) {
	l := c.layout()
	cfg, err := readConfig(l.config)
	if err != nil {
		return l, nil, err
	}
	cfg.denied, err = readDenied(l)
	return cfg.place(l), cfg, err
}

// decide asks the broker, which lets nobody in who was revoked.
func (c *policyExplainCmd) decide(l layout, cfg *config) (broker.Decision, error) {
	if cfg.denies(c.As) {
		return broker.Decision{Reason: broker.ReasonRevoked, Source: l.revoked(c.As)}, nil
	}
	policy, err := cfg.brokerPolicy()
	if err != nil {
		return broker.Decision{}, err
	}
	return broker.Explain(policy, string(cfg.Node), broker.Request{
		Identity: c.As, ClientID: c.ClientID, Topic: c.Topic, Subscribe: c.Action == "sub", QoS: c.QoS, Retain: c.Retain,
	})
}

func (l layout) revoked(name string) string {
	return fmt.Sprintf("%s was revoked: %s", name, l.denied())
}

func (c *policyExplainCmd) runCommand(std streams, k *kong.Kong) error {
	l, cfg, err := c.read()
	if err != nil {
		return err
	}
	text, allowed, err := c.explainCommand(cfg, l)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(std.out, text); err != nil {
		return err
	}
	if !allowed {
		k.Exit(exitFailed)
	}
	return nil
}

// worded is a decision in one line.
func worded(d broker.Decision, qos byte) string {
	switch {
	case d.Reason == "" && qos > d.MaxQoS:
		return fmt.Sprintf("yes, at quality of service %d: %s", d.MaxQoS, d.Source)
	case d.Reason == "":
		return "yes: " + d.Source
	case d.Reason == broker.ReasonQoS:
		return fmt.Sprintf("no, at most at quality of service %d: %s", d.MaxQoS, d.Source)
	case d.Source == "":
		return "no: no rule allows it"
	}
	return "no: " + d.Source
}
