package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"pinseal/agent"
	"pinseal/pki"
	"pinseal/signing"
)

// party is a client of a node, with the certificate and the signing key of its bundle.
type party struct {
	name    string
	address string
	tls     *tls.Config
	key     *signing.PrivateKey
	last    atomic.Uint64 // number used
}

func (n *node) party(name string) (*party, error) {
	file := func(what string) string { return n.path("bundles", name, what) }
	cfg, err := pki.ClientConfig(pki.Files{
		Certificate: file("client.crt"), Key: file("client.key"), CA: file("ca.crt"),
	}, "127.0.0.1", time.Now)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file("sign.key"))
	if err != nil {
		return nil, err
	}
	key, err := signing.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	p := &party{name: name, address: n.address, tls: cfg, key: key}
	p.last.Store(uint64(time.Now().UnixMicro()))
	return p, nil
}

// command is a sealed message that asks a line to toggle.
type command struct {
	line int
	seq  uint64
	raw  []byte
}

// toggle seals a command now. Only a command to toggle shows that it was acted on twice.
func (p *party) toggle(line int) (*command, error) {
	return p.toggleAt(line, time.Now())
}

func (p *party) toggleAt(line int, at time.Time) (*command, error) {
	seq, raw, err := p.seal(commandTopic(line), `"toggle"`, at)
	return &command{line: line, seq: seq, raw: raw}, err
}

func (p *party) seal(topic, msg string, at time.Time) (seq uint64, raw []byte, err error) {
	seq = p.last.Add(1)
	raw, err = signing.Seal(p.key, signing.Claims{Topic: topic, IssuedAt: at, Sequence: seq, Message: []byte(msg)})
	return seq, raw, err
}

func (p *party) dial(ctx context.Context, hear func(topic string, payload []byte), filters ...string) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return dial(ctx, p.address, p.tls, hear, filters...)
}

// verdictsTo is where the node answers a party.
func verdictsTo(name string) string { return agent.VerdictTopic(nodeName, name) }

// readVerdict reads a verdict without verifying it, as a million of them would take more time than the node: what counts
// is measured at the lines. An error shows as a verdict without a reason.
func readVerdict(sealed []byte) (v agent.Verdict) {
	_, rest, _ := bytes.Cut(sealed, []byte("."))
	claims, _, _ := bytes.Cut(rest, []byte("."))
	text, err := base64.RawURLEncoding.AppendDecode(nil, claims)
	if err != nil {
		return v
	}
	var c struct {
		Message agent.Verdict `json:"msg"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return v
	}
	return c.Message
}

// reasonOf reads only the reason of a verdict, which is 20 times faster.
func reasonOf(sealed []byte) signing.Reason {
	_, rest, _ := bytes.Cut(sealed, []byte("."))
	claims, _, _ := bytes.Cut(rest, []byte("."))
	text, err := base64.RawURLEncoding.AppendDecode(nil, claims)
	if err != nil {
		return ""
	}
	_, rest, _ = bytes.Cut(text, []byte(`"reason":"`))
	reason, _, _ := bytes.Cut(rest, []byte(`"`))
	return signing.Reason(reason)
}

// counts is how often each reason was given.
type counts map[signing.Reason]int

func (c counts) String() string {
	var all []string
	for _, reason := range signing.Reasons() {
		if c[reason] > 0 {
			all = append(all, fmt.Sprintf("%d %s", c[reason], reason))
		}
	}
	return strings.Join(all, ", ")
}

var errUnanswered = fmt.Errorf("the node did not answer within %v", patience)
