//go:build pivm

package pivm_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/pki"
	"pinseal/signing"
)

const node = "raspiflow"

// operator commands the LED from outside, and keeps every byte and every answer.
type operator struct {
	key     *signing.PrivateKey
	trusted *signing.Keyring // the node
	mqtt    *mqtt.Client

	mu       sync.Mutex
	sent     []*command // in the order of sending
	sequence uint64
	answered chan struct{} // has room for one: something was answered
}

// command is a sealed command, as a thief would have it.
type command struct {
	sequence uint64
	raw      []byte
	reason   signing.Reason // of the last verdict; empty while there is none
}

// connect is a new connection of the bundle's owner to a port of this host.
func connect(t *testing.T, bundle string, port string) *operator {
	t.Helper()
	o := &operator{answered: make(chan struct{}, 1)}
	pem, err := os.ReadFile(filepath.Join(bundle, "sign.key"))
	if err != nil {
		t.Fatal(err)
	}
	if o.key, err = signing.ParsePrivateKey(pem); err != nil {
		t.Fatal(err)
	}
	if o.trusted, err = signing.ReadKeyring(filepath.Join(bundle, "signers")); err != nil {
		t.Fatal(err)
	}
	config, err := pki.ClientConfig(pki.Files{
		Certificate: filepath.Join(bundle, "client.crt"), Key: filepath.Join(bundle, "client.key"), CA: filepath.Join(bundle, "ca.crt"),
	}, "127.0.0.1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // QEMU accepts long before the guest does
		defer cancel()
		dialer := tls.Dialer{Config: config}
		return dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	}
	settings := mqtt.Config{
		Dial: dial, CleanSession: true, OnMessage: o.hear,
		Subscriptions: []mqtt.Subscription{{Filter: agent.VerdictTopic(node, "operator"), QoS: 1}},
	}
	await(t, bootTimeout, "the node to let the operator in", func() bool {
		o.mqtt, err = mqtt.Connect(t.Context(), settings)
		return err == nil
	})
	return o
}

// hear takes the node's verdicts; what is not sealed by the node counts for nothing.
func (o *operator) hear(m mqtt.Message, ack func()) {
	defer ack()
	sealed, signer, err := signing.Open(m.Payload, m.Topic, o.trusted)
	if err != nil || signer.Name != node {
		return
	}
	v, err := agent.ParseVerdict(sealed.JSON())
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range slices.Backward(o.sent) {
		if c.sequence == v.Sequence {
			c.reason = v.Reason
			break
		}
	}
	select {
	case o.answered <- struct{}{}:
	default:
	}
}

// toggle seals one more command and sends it.
func (o *operator) toggle(t *testing.T) {
	t.Helper()
	now := time.Now()
	o.mu.Lock()
	o.sequence = max(o.sequence+1, uint64(now.UnixMicro()))
	sequence := o.sequence
	o.mu.Unlock()
	raw, err := signing.Seal(o.key, signing.Claims{Topic: "ledStatus", IssuedAt: now, Sequence: sequence, Message: []byte(`"toggle"`)})
	if err != nil {
		t.Fatal(err)
	}
	o.send(&command{sequence: sequence, raw: raw})
}

func (o *operator) send(c *command) {
	o.mu.Lock()
	o.sent = append(o.sent, c)
	o.mu.Unlock()
	o.mqtt.PublishAsync(mqtt.Message{Topic: "ledStatus", Payload: c.raw, QoS: 1}, nil) // the verdict says whether it arrived
}

// answers counts the commands sent that have a verdict, and those of them with this one.
func (o *operator) answers(reason signing.Reason) (answered, so int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.sent {
		if c.reason != "" {
			answered++
		}
		if c.reason == reason {
			so++
		}
	}
	return answered, so
}

// toggleUntil streams commands, few enough on their way that the node never has to refuse any, until so many were applied.
func (o *operator) toggleUntil(t *testing.T, applied int) {
	t.Helper()
	const underWay = 16
	patience := time.NewTimer(eventTimeout)
	defer patience.Stop()
	for {
		answered, done := o.answers(signing.ReasonApplied)
		if done >= applied {
			return
		}
		for range underWay - (len(o.sent) - answered) {
			o.toggle(t)
		}
		select {
		case <-o.answered:
		case <-patience.C:
			t.Fatalf("%d of %d commands answered, %d applied", answered, len(o.sent), done)
		}
	}
}

// replay sends recorded commands again, byte for byte, and waits for all answers.
func (o *operator) replay(t *testing.T, recorded []*command) []*command {
	t.Helper()
	for _, c := range recorded {
		o.send(&command{sequence: c.sequence, raw: c.raw})
	}
	o.await(t)
	return o.sent
}

// await waits until every command has its verdict.
func (o *operator) await(t *testing.T) {
	t.Helper()
	await(t, eventTimeout, "all verdicts", func() bool {
		answered, _ := o.answers("")
		return answered == len(o.sent)
	})
}

func (o *operator) close(t *testing.T) {
	t.Helper()
	if err := o.mqtt.Close(); err != nil {
		t.Errorf("disconnecting: %v", err)
	}
}
