package main

import (
	"context"
	"errors"
	"fmt"

	"pinseal/gpio"
	"pinseal/internal/mqtt"
	"pinseal/pki"
)

// What the checks of a node look at where its broker is elsewhere, as on a machine with nothing but sensors.

// brokerElsewhere is the finding of what there is nothing to look at for.
const brokerElsewhere = "the broker is elsewhere"

func (n *nodeChecks) elsewhere() bool { return n.config.Agent.Broker != "" }

func (n *nodeChecks) clientKey() string { return keyForCommands(agentCredential, n.config.Agent.Key) }

// clientFiles are what the node shows the other broker, and judges it by.
func (n *nodeChecks) clientFiles() pki.Files {
	return pki.Files{Certificate: n.config.Agent.Certificate, Key: n.clientKey(), CA: orDefault(n.config.Agent.CA, n.layout.caCert())}
}

// clientCertificate looks whether the other broker could be shown it.
func (n *nodeChecks) clientCertificate() (string, error) {
	host, _ := n.config.Agent.Broker.host()
	files := n.clientFiles()
	if _, err := pki.ClientConfig(files, host, n.now); err != nil {
		return "", explainTLS(err)
	}
	return validity(files.Certificate, n.now(), "pinseal device renew, if it is of a bundle; or whoever issued it renews it")
}

// otherBroker looks whether somebody listens there, and lets the node in.
func (n *nodeChecks) otherBroker(ctx context.Context) (string, error) {
	host, address := n.config.Agent.Broker.host()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dialTCP(ctx, address)
	if err != nil {
		return "", noticef("%s cannot be reached: %v; what is measured waits", n.config.Agent.Broker, err)
	}
	if err := conn.Close(); err != nil {
		return "", err
	}
	config, err := pki.ClientConfig(n.clientFiles(), host, n.now)
	if err != nil {
		return "", explainTLS(err)
	}
	pki.DoubtClock(config, func() bool { return true }) // of the clock another check tells
	connection, err := mqtt.Connect(ctx, mqtt.Config{Dial: dialTLS(address, config), CleanSession: true})
	if err != nil {
		if problem, hint := pki.Explain(err); hint != "" {
			return "", withHint(fmt.Errorf("connecting to %s: %s", n.config.Agent.Broker, problem), "%s", hint)
		}
		// It may want another client id, too.
		return "", noticef("%s listens, but did not let a client with this certificate in: %v", n.config.Agent.Broker, err)
	}
	return fmt.Sprintf("%s listens, and lets the node in", n.config.Agent.Broker), connection.Close()
}

// inputLines looks whether the lines of inputs are there and nobody else's.
func (n *nodeChecks) inputLines(lines []gpio.LineInfo) (held []string, err error) {
	for _, in := range n.config.Inputs {
		line, err := gpio.FindLine(lines, in.Line)
		if err != nil {
			return nil, withHint(fmt.Errorf("input %s: %w", in.Name, err), "pinseal gpio list shows the lines of this machine")
		}
		if line.Used && !n.running {
			return nil, withHint(fmt.Errorf("input %s: line %s is held by %s", in.Name, in.Line, orDefault(line.Consumer, "somebody")), "stop that program, or remove the device-tree overlay behind it")
		}
		held = append(held, fmt.Sprintf("%s on %s", in.Name, line.Name))
	}
	return held, nil
}

// sensors reads each once.
func (n *nodeChecks) sensors(ctx context.Context) (string, error) {
	var failed []error
	for _, cfg := range n.config.Sensors {
		if _, err := cfg.read(ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", cfg.Name, err))
		}
	}
	if len(failed) > 0 {
		return "", noticef("cannot be read: %v", errors.Join(failed...))
	}
	return plural(len(n.config.Sensors), "sensor"), nil
}
