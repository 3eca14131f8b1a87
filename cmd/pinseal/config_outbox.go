package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"pinseal/agent/outbox"
	"pinseal/internal/metrics"
)

// outboxConfig is [outbox]: what is reported is kept until the node that it is for has acknowledged it.
type outboxConfig struct {
	Node     name           `toml:"node"` // empty: nobody in particular
	MaxBytes limit          `toml:"max_bytes"`
	Flush    positiveLength `toml:"flush"`
	Rate     perSecond      `toml:"rate"`
}

func (l layout) outbox() string        { return filepath.Join(l.state, "outbox.db") }
func (l layout) outboxJournal() string { return filepath.Join(l.run, "outbox.journal") }

// checkOutbox holds the rules of [outbox] and of a bundle.
func (c *config) checkOutbox(data []byte) error {
	a := c.Agent
	switch {
	case a.Bundle != "" && (a.Broker != "" || a.Certificate != "" || a.Key != "" || a.CA != "" || a.SignKey != ""):
		return at(data, place{table: "agent", key: "bundle"}, "a bundle says where the broker is and has every key: remove broker, ca, certificate, key and sign_key")
	case a.Bundle != "" && len(c.Listeners) > 0:
		return at(data, place{table: "agent", key: "bundle"}, "an agent with a broker elsewhere has no listener of its own: remove either")
	case c.Outbox.Node != "" && c.Outbox.Node == c.Node:
		return at(data, place{table: "outbox", key: "node"}, "the telemetry of a node is for another, not for itself")
	}
	return nil
}

// takeBundle fills in what a bundle says.
func (c *config) takeBundle() error {
	if c.Agent.Bundle == "" {
		return nil
	}
	b, err := readBundle(c.Agent.Bundle)
	if err != nil {
		return err
	}
	c.Node = name(orDefault(string(c.Node), string(b.client.Name)))
	c.Agent.Broker = brokerURL("mqtts://" + net.JoinHostPort(b.client.Host, strconv.Itoa(int(b.client.Port))))
	c.Agent.CA, c.Agent.Certificate, c.Agent.Key, c.Agent.SignKey = b.caCert(), b.clientCert(), b.clientKey(), b.signKey()
	c.Outbox.Node = name(orDefault(string(c.Outbox.Node), string(b.client.Node)))
	for _, r := range b.client.Encrypt { // after the configuration's own: the first that covers a topic counts
		r.bundle = b.dir
		c.Encrypt = append(c.Encrypt, r)
	}
	return nil
}

// clientID names the session that the broker keeps while the node is away. One that takes neither commands nor telemetry
// would have the broker store every receipt on its disk for nothing: what was not acknowledged is sent again.
func (c *config) clientID() string {
	if len(c.Outputs)+len(c.Telemetry) == 0 {
		return ""
	}
	return "agent"
}

// place has the signers of the bundle where there are no others.
func (c *config) place(l layout) layout {
	if c.Agent.Bundle != "" && !exists(l.signers) {
		l.signers = bundle{dir: c.Agent.Bundle}.signers()
	}
	return l
}

func (n *node) openOutbox() (err error) {
	cfg := n.config.Outbox
	if cfg.Node == "" {
		return nil
	}
	n.outbox, err = outbox.Open(n.layout.outbox(), outbox.Options{
		Journal: n.layout.outboxJournal(), MaxBytes: int64(cfg.MaxBytes), FlushEvery: time.Duration(cfg.Flush),
		Rate: float64(cfg.Rate), Log: n.log.With("part", "outbox"),
	})
	return err
}

func (n *node) collectOutbox(w *metrics.Writer) {
	if n.outbox == nil {
		return
	}
	const help = "Telemetry messages that wait no more, by what became of them."
	s := n.outbox.Stats()
	w.Gauge("pinseal_outbox_messages", "Telemetry messages that wait for their receiver.", float64(s.Waiting))
	w.Gauge("pinseal_outbox_bytes", "What they take, in memory and on the disk.", float64(s.WaitingBytes))
	w.Counter("pinseal_outbox_total", help, s.Accepted, "outcome", "accepted")
	w.Counter("pinseal_outbox_total", help, s.Refused, "outcome", "refused")
	w.Counter("pinseal_outbox_total", help, s.Dropped, "outcome", "dropped")
}

// outboxStatus is its part of the line of `systemctl status`.
func (n *node) outboxStatus() []string {
	if n.outbox == nil {
		return nil
	}
	s := n.outbox.Stats()
	return []string{fmt.Sprintf("telemetry for %s: %d accepted, %d waiting, %d refused, %d dropped",
		n.config.Outbox.Node, s.Accepted, s.Waiting, s.Refused, s.Dropped)}
}
