package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/pki"
	"pinseal/signing"
)

// clientChecks follows a client's way to the node: files, name, port, TLS, login, verdict.
type clientChecks struct {
	client    *client
	topic     string
	commander *commander
	heard     string
}

func newClientChecks(c *client, topic string) *clientChecks {
	if topic == "" && len(c.topics) > 0 {
		topic = string(c.topics[0])
	}
	return &clientChecks{client: c, topic: topic}
}

func (c *clientChecks) list() []check {
	return []check{
		{"bundle", c.bundle},
		{"certificate", c.certificate},
		{"name", c.resolve},
		{"port", c.reach},
		{"TLS", c.handshake},
		{"login", c.login},
		{"verdict", c.verdict},
	}
}

func (c *clientChecks) close() error {
	if c.commander == nil {
		return nil
	}
	return c.commander.Close()
}

func (c *clientChecks) bundle(context.Context) (string, error) {
	if c.client.Bundle == "" {
		return "", usageError(withHint(errors.New("no bundle: with whose keys?"), "--bundle FOLDER or PINSEAL_BUNDLE=FOLDER"))
	}
	for _, path := range []string{c.client.Key, c.client.SignKey} {
		if err := checkPrivate(path); err != nil {
			return "", err
		}
	}
	if _, err := readSignKey(c.client.SignKey); err != nil {
		return "", err
	}
	if _, err := c.client.readSigners(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s at node %s", c.client.Bundle, c.client.Name, c.client.Node), nil
}

func (c *clientChecks) certificate(context.Context) (string, error) {
	if current, err := readCertificate(c.client.Cert); err == nil && c.client.now().After(current.NotAfter) {
		return "", withHint(fmt.Errorf("%s expired on %s", c.client.Cert, current.NotAfter.Format(time.DateOnly)), "%s", c.client.renewalCure())
	}
	if _, err := pki.ClientConfig(c.client.files, c.client.Host, c.client.now); err != nil {
		return "", explainTLS(err)
	}
	return validity(c.client.Cert, c.client.now(), c.client.renewalCure())
}

func (c *clientChecks) resolve(ctx context.Context) (string, error) {
	addresses, err := net.DefaultResolver.LookupHost(ctx, lookupLocal(ctx, c.client.Host)[0])
	own, nameErr := os.Hostname()
	switch {
	case err == nil:
		return fmt.Sprintf("%s is %s", c.client.Host, addresses[0]), nil
	case nameErr == nil && c.client.Host == localName(own):
		return c.client.Host + " is this machine", nil
	default:
		return "", withHint(fmt.Errorf("%s has no address: %w", c.client.Host, err), "give the node's address: pinseal doctor ADDRESS, pinseal pub -h ADDRESS; names ending in .local need avahi and libnss-mdns")
	}
}

func (c *clientChecks) address() string {
	return net.JoinHostPort(c.client.Host, strconv.Itoa(int(c.client.Port)))
}

func (c *clientChecks) reach(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dialTCP(ctx, c.address())
	if err != nil {
		return "", withHint(fmt.Errorf("reaching %s: %w", c.address(), err), "is the node running, and does a firewall let the port through? On the node: pinseal doctor")
	}
	return c.address() + " accepts", conn.Close()
}

func (c *clientChecks) handshake(ctx context.Context) (string, error) {
	dial, err := c.client.dialer()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return "", c.client.explain(err)
	}
	found := "verified"
	if secured, ok := conn.(*tls.Conn); ok {
		found = tls.VersionName(secured.ConnectionState().Version) + ", the node's certificate is for " + c.client.Host
	}
	return found, conn.Close()
}

func (c *clientChecks) login(ctx context.Context) (string, error) {
	commander, err := newCommander(ctx, c.client, func(agent.Verdict, bool) {})
	if err != nil {
		return "", err
	}
	c.commander = commander
	return "as " + c.client.Name, nil
}

// verdict has the node judge a command that is none: whoever may command hears bad-command, and nothing
// is switched.
func (c *clientChecks) verdict(ctx context.Context) (string, error) {
	if c.topic == "" {
		return "", noticef("%s commands nothing; -t TOPIC asks about a topic", c.client.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	asked := c.client.now()
	v, err := c.commander.Command(ctx, mqtt.Message{Topic: c.topic, Payload: []byte(`"doctor"`), QoS: 1})
	if err != nil {
		return "", err
	}
	if v.Reason != signing.ReasonBadCommand {
		return "", withHint(fmt.Errorf("the node says to %s on %s: %s", c.client.Name, c.topic, verdictText(v)), "%s", verdictHint(v, c.client))
	}
	apart := v.Time.Sub(asked).Round(time.Second).Abs()
	c.heard = fmt.Sprintf("%s may command on %s; the clocks are %s apart", c.client.Name, c.topic, apart)
	return c.heard, nil
}
