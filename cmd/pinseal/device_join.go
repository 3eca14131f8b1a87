package main

import (
	"bufio"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"

	"github.com/pelletier/go-toml/v2"
)

type deviceJoinCmd struct {
	Line string `arg:"" optional:"" help:"The line that pinseal device add printed on the node; without it, it is read from standard input."`
	Out  string `help:"Folder for the device's keys and certificate; default: its name, here." type:"path" placeholder:"FOLDER"`
}

// joinTimeout is how long the node may take to answer.
const joinTimeout = 30 * time.Second

// Run makes the device's keys, has them certified and trusted, and ends with a message that the node has verified. The folder
// is there whole or not at all.
func (c *deviceJoinCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	line, err := c.line(interruptible(ctx, std.in))
	if err != nil {
		return err
	}
	if line == "" {
		return usageError(withHint(errors.New("no line to join with"), "pinseal device join LINE, with the line that pinseal device add NAME printed on the node"))
	}
	invitation, err := enrol.ParseInvitation(line)
	if err != nil {
		return usageError(withHint(fmt.Errorf("that is no line to join with: %w", err), "copy the whole line that pinseal device add %s printed on the node", "NAME"))
	}
	folder, err := filepath.Abs(orDefault(c.Out, invitation.Name))
	if err != nil {
		return err
	}
	if exists(folder) {
		return withHint(fmt.Errorf("%s exists already, nothing was changed", folder), "move it away first, or choose another with --out")
	}
	if err := join(ctx, invitation, folder, std.clock()()); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s has joined; its keys were made here: %s\n", invitation.Name, folder)
	return c.prove(ctx, std, invitation.Name, folder)
}

func (c *deviceJoinCmd) line(in io.Reader) (string, error) {
	if c.Line != "" && c.Line != "-" {
		return c.Line, nil
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the line: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// join writes everything into a folder beside the one that is wanted, the keys before anything is sent, and renames it.
func join(ctx context.Context, invitation enrol.Invitation, folder string, now time.Time) (err error) {
	staging, err := os.MkdirTemp(filepath.Dir(folder), "."+filepath.Base(folder)+".joining-")
	if err != nil {
		return withHint(fmt.Errorf("making a folder for the keys: %w", err), "choose another with --out FOLDER")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(staging))
		}
	}()
	b := bundle{dir: staging}
	keys, err := b.makeKeys()
	if err != nil {
		return err
	}
	if keys.Greeting, err = b.greet(invitation.Name); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	joined, err := invitation.Join(patience, keys, dialForJoin, now)
	if err != nil {
		return explainJoin(err, invitation)
	}
	if err := b.writeJoined(invitation, joined, keys.Signing); err != nil {
		return err
	}
	// Rename takes the place of an empty folder only.
	if err := os.Rename(staging, folder); err != nil {
		return fmt.Errorf("writing %s: %w", folder, err)
	}
	return atomicfile.SyncFolder(filepath.Dir(folder))
}

// makeKeys makes and writes both keys.
func (b bundle) makeKeys() (enrol.Keys, error) {
	var keys enrol.Keys
	for path, key := range map[string]*crypto.Signer{b.clientKey(): &keys.TLS, b.signKey(): &keys.Signing} {
		made, err := pki.GenerateKey()
		if err != nil {
			return keys, err
		}
		text, err := pki.MarshalKey(made)
		if err != nil {
			return keys, err
		}
		if err := atomicfile.Create(path, text, 0o600); err != nil {
			return keys, err
		}
		*key = made
	}
	return keys, nil
}

// writeJoined completes the bundle: what init and device add --out write.
func (b bundle) writeJoined(invitation enrol.Invitation, joined *enrol.Joined, signKey crypto.Signer) error {
	if joined.MQTTPort == 0 {
		return errors.New("the node has no listener that takes certificates")
	}
	client := clientConfig{Node: name(joined.Node), Name: name(invitation.Name), Host: invitation.Host, Port: joined.MQTTPort, EnrolPort: invitation.Port}
	for _, topic := range joined.Topics {
		client.Topics = append(client.Topics, topicName(topic))
	}
	told, err := parseWelcome(joined.Welcome)
	if err != nil {
		return err
	}
	client.Encrypt = told.Encrypt
	text, err := toml.Marshal(client)
	if err != nil {
		return fmt.Errorf("writing client.toml: %w", err)
	}
	key, err := signingKeyOf(signKey)
	if err != nil {
		return err
	}
	return append(told.files(b), fileSet{
		{b.caCert(), pki.EncodeCertificates(joined.Authorities...), 0o644},
		{b.clientCert(), pki.EncodeCertificates(joined.Certificate), 0o644},
		{filepath.Join(b.signers(), joined.Node+".pem"), joined.NodeKey.PEM(), 0o644},
		{filepath.Join(b.signers(), invitation.Name+".pem"), key.Public().PEM(), 0o644},
		{filepath.Join(b.dir, "client.toml"), text, 0o644},
	}...).create()
}

// signingKeyOf is the key as package signing has it.
func signingKeyOf(key crypto.Signer) (*signing.PrivateKey, error) {
	text, err := pki.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	return signing.ParsePrivateKey(text)
}

// prove sends a sealed message and waits until the node has verified it.
func (c *deviceJoinCmd) prove(ctx context.Context, std streams, name, folder string) error {
	message := "1"
	test := pubCmd{connectFlags: connectFlags{Bundle: folder}, Topic: "telemetry/" + name + "/joined", Message: &message, QoS: 1, Wait: 10}
	fmt.Fprintf(std.out, "a sealed message to the node, on %s: ", test.Topic)
	if err := test.Run(ctx, std); err != nil {
		fmt.Fprintln(std.out, "not verified")
		return fmt.Errorf("%s has joined, but its first message was not verified: %w", name, err)
	}
	fmt.Fprintf(std.out, "next: pinseal pub --bundle %s -t telemetry/%s/test -m 1\n", shellWord(folder), name)
	return nil
}

// explainJoin words for a person why it came to nothing.
func explainJoin(err error, invitation enrol.Invitation) error {
	again := "ask for another line: pinseal device add " + invitation.Name + " on the node"
	if refused, ok := errors.AsType[*pki.RefusedError](err); ok {
		switch refused.Reason {
		case enrol.ReasonRateLimited:
			again = "wait a minute, then try again"
		case enrol.ReasonClock:
			again = "wait until it does: timedatectl on the node shows whether its clock is synchronised"
		case enrol.ReasonFailed:
			again = "the node's log says why"
		case enrol.ReasonNotPermitted:
			again = "on the node: pinseal signer list shows who is known, pinseal device revoke " + invitation.Name + " makes the name free again"
		default:
		}
		return withHint(fmt.Errorf("the node refused: %w", refused), "%s", again)
	}
	switch {
	case errors.Is(err, enrol.ErrWrongAuthority):
		return withHint(fmt.Errorf("%s:%d: %w; nothing was sent", invitation.Host, invitation.Port, enrol.ErrWrongAuthority), "is it the right host? somebody may be in between; %s", again)
	case errors.Is(err, context.DeadlineExceeded):
		return withCode(exitNoAnswer, withHint(fmt.Errorf("no answer from %s:%d", invitation.Host, invitation.Port), "is the node running, and the port open? --host of pinseal device add names another way to it"))
	}
	if problem, hint := pki.Explain(err); hint != "" {
		return withHint(fmt.Errorf("connecting to %s:%d: %s", invitation.Host, invitation.Port, problem), "%s", hint)
	}
	if request, ok := errors.AsType[*url.Error](err); ok { // without the URL, which means nothing here
		err = fmt.Errorf("connecting to %s:%d: %w", invitation.Host, invitation.Port, request.Err)
	}
	if _, unknown := errors.AsType[*net.DNSError](err); unknown {
		return withHint(err, "write the node's address in the place of %s in the line; names ending in .local need avahi and libnss-mdns", invitation.Host)
	}
	return withHint(err, "is the node running, and the port open? --host of pinseal device add names another way to it")
}

func dialForJoin(ctx context.Context, _, address string) (net.Conn, error) {
	return dialTCP(ctx, address)
}
