package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"

	"github.com/go-json-experiment/json/jsontext"
)

type pubCmd struct {
	connectFlags
	encryptFlag
	Topic   string  `short:"t" help:"Topic." placeholder:"TOPIC"`
	Message *string `short:"m" help:"Message: a JSON value, or any text." placeholder:"TEXT"`
	Lines   bool    `short:"l" help:"One message a line of standard input."`
	File    string  `short:"f" help:"Message from a file." type:"existingfile" placeholder:"FILE"`
	Stdin   bool    `short:"s" help:"Message from the whole of standard input."`
	Null    bool    `short:"n" help:"Empty message (with --plain)."`
	QoS     byte    `short:"q" name:"qos" help:"Quality of service: 0, 1 or 2." default:"1" enum:"0,1,2"`
	Retain  bool    `short:"r" help:"Retain the message. The node refuses retained commands."`
	Plain   bool    `help:"Publish as it is, without sealing and without waiting."`
	NoWait  bool    `help:"Do not wait for the node's answer."`
	Wait    float64 `short:"W" help:"Seconds to wait for the answer." default:"10" placeholder:"SECONDS"`

	TopicArg   string  `arg:"" optional:"" name:"topic" help:"Topic, instead of -t."`
	MessageArg *string `arg:"" optional:"" name:"message" help:"Message, instead of -m."`
}

// Run publishes one message, or one a line.
func (c *pubCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	if err := c.checkFlags(); err != nil {
		return err
	}
	settings, err := c.client(std)
	if err != nil {
		return err
	}
	settings.encryptTo = c.EncryptTo
	in := std.in
	if c.File != "" {
		in = &lateFile{path: c.File}
	}
	source, err := c.source(interruptible(ctx, in))
	if err != nil {
		return err
	}
	p := &publisher{pubCmd: c, std: std, client: settings}
	if c.Lines {
		settings.keepRenewed(ctx)
	} else {
		defer settings.renewDue(ctx)
	}
	if c.Plain {
		return p.plain(ctx, source)
	}
	return p.sealed(ctx, source)
}

func (c *pubCmd) checkFlags() error {
	switch {
	case c.Topic == "":
		c.Topic = c.TopicArg
	case c.MessageArg != nil:
		return usagef("two topics: %s and %s", c.Topic, c.TopicArg)
	case c.TopicArg != "": // after -t TOPIC, the one word is the message
		c.MessageArg = &c.TopicArg
	}
	if c.Plain && len(c.EncryptTo) > 0 {
		return usagef("--plain does not seal, and what is not sealed is not encrypted")
	}
	if err := checkSeconds(c.Wait); err != nil {
		return err
	}
	sources := 0
	for _, given := range []bool{c.Message != nil, c.MessageArg != nil, c.Lines, c.File != "", c.Stdin, c.Null} {
		if given {
			sources++
		}
	}
	if c.Message == nil {
		c.Message = c.MessageArg
	}
	switch {
	case c.Topic == "":
		return usageError(withHint(errors.New("no topic and no message"), "pinseal pub ledStatus on, for example; or -t and -m"))
	case !signing.ValidTopic(c.Topic):
		return notATopic(c.Topic)
	case sources == 0:
		return usageError(withHint(errors.New("no message"), "pinseal pub %s on, for example; or -m, -l, -f, -s", c.Topic))
	case sources > 1:
		return usagef("more than one message: only one of MESSAGE, -m, -l, -f, -s and -n")
	case c.Null && !c.Plain:
		return usagef("an empty message cannot be sealed: add --plain")
	case c.Retain && !c.Plain:
		return usagef("a sealed message is never retained: it would be given again to whoever connects later")
	}
	return nil
}

func notATopic(text string) error {
	return usageError(withHint(fmt.Errorf("%q is not a topic to publish on", text), "1 to 256 bytes, without + and # and control characters"))
}

// source gives one message after the other, io.EOF after the last; an interruption ends lines as their end does. Lines
// come without their line feed.
func (c *pubCmd) source(in io.Reader) (func() ([]byte, error), error) {
	if c.Lines {
		lines := bufio.NewScanner(in)
		lines.Buffer(make([]byte, 0, 4096), signing.MaxSealedBytes)
		return func() ([]byte, error) {
			if lines.Scan() {
				return bytes.Clone(lines.Bytes()), nil
			}
			if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
				return nil, fmt.Errorf("reading lines: one is longer than %d bytes", signing.MaxSealedBytes)
			} else if err != nil && !errors.Is(err, context.Canceled) {
				return nil, fmt.Errorf("reading lines: %w", err)
			}
			return nil, io.EOF
		}, nil
	}
	message, err := c.single(in)
	if err != nil {
		return nil, fmt.Errorf("reading the message: %w", err)
	}
	done := false
	return func() ([]byte, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		return message, nil
	}, nil
}

// maxPlainBytes is the longest packet of MQTT (MQTT 5.0 section 1.5.5); brokers have lower limits.
const maxPlainBytes = 268_435_455

func (c *pubCmd) single(in io.Reader) ([]byte, error) {
	switch {
	case c.Message != nil:
		return []byte(*c.Message), nil
	case c.File != "", c.Stdin:
		limit := int64(signing.MaxSealedBytes)
		if c.Plain {
			limit = maxPlainBytes
		}
		text, err := io.ReadAll(io.LimitReader(in, limit+1))
		if int64(len(text)) > limit {
			return nil, fmt.Errorf("longer than %d bytes", limit)
		}
		return text, err
	default:
		return nil, nil
	}
}

// publisher is one run of pub.
type publisher struct {
	*pubCmd
	std       streams
	client    *client
	commander *commander
	rejected  atomic.Int64
}

func (p *publisher) plain(ctx context.Context, source func() ([]byte, error)) (err error) {
	connection, err := p.client.connect(ctx, mqtt.Config{CleanSession: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	pipe := newPipeline(connection, p.client.log)
	for {
		message, err := source()
		if err != nil {
			return errors.Join(pipe.drain(ctx), unlessEOF(err))
		}
		if err := pipe.send(ctx, p.message(message)); err != nil {
			return err
		}
	}
}

func (p *publisher) message(payload []byte) mqtt.Message {
	return mqtt.Message{Topic: p.Topic, Payload: payload, QoS: p.QoS, Retained: p.Retain}
}

func (p *publisher) sealed(ctx context.Context, source func() ([]byte, error)) (err error) {
	p.commander, err = newCommander(ctx, p.client, p.stray)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.commander.Close()) }()
	if isTelemetry(p.Topic) && !p.NoWait {
		if err := p.commander.followEchoes(ctx, p.Topic); err != nil {
			return err
		}
	}
	switch {
	case p.NoWait:
		return p.unanswered(ctx, source)
	case p.Lines:
		return newStream(p).run(ctx, source)
	default:
		return p.one(ctx, source)
	}
}

func (p *publisher) stray(v agent.Verdict, own bool) {
	if own {
		p.reject(v)
	}
}

// reject tells of a rejected message of many.
func (p *publisher) reject(v agent.Verdict) {
	p.rejected.Add(1)
	fmt.Fprintf(p.std.err, "pinseal: %s\n", verdictText(v))
}

func isTelemetry(topic string) bool {
	_, ok := agent.VerifiedTopic(topic)
	return ok
}

// one publishes one message and tells the answer.
func (p *publisher) one(ctx context.Context, source func() ([]byte, error)) error {
	text, err := source()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	verdict, err := p.commander.Command(ctx, p.message(messageJSON(text)))
	if err != nil {
		return err
	}
	if verdict.Reason != signing.ReasonApplied {
		return withHint(errors.New(verdictText(verdict)), "%s", verdictHint(verdict, p.client))
	}
	_, err = fmt.Fprintln(p.std.out, verdictText(verdict))
	return err
}

// patience is how long nothing may be heard of the node.
func (p *publisher) patience() time.Duration { return seconds(p.Wait) }

// unanswered publishes without waiting for more than the broker's acknowledgements.
func (p *publisher) unanswered(ctx context.Context, source func() ([]byte, error)) error {
	pipe := newPipeline(p.commander.mqtt, p.client.log)
	for {
		text, err := source()
		if err != nil {
			return errors.Join(pipe.drain(ctx), unlessEOF(err))
		}
		raw, _, err := p.commander.seal(p.Topic, messageJSON(text), p.commander.clock.now())
		if err != nil {
			return err
		}
		if err := pipe.send(ctx, p.message(raw)); err != nil {
			return err
		}
	}
}

// messageJSON is the message's value: JSON as it is, anything else, null included, as a string.
func messageJSON(text []byte) []byte {
	if value := jsontext.Value(text); value.IsValid() && value.Kind() != jsontext.KindNull {
		return text
	}
	// Marshalling a string cannot fail.
	quoted, _ := json.Marshal(string(text))
	return quoted
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// verdictText is a verdict in one line: "applied: ON", or "rejected: stale: …".
func verdictText(v agent.Verdict) string {
	parts := []string{"rejected", string(v.Reason), v.Detail}
	if v.Reason == signing.ReasonApplied {
		parts = []string{"applied", v.State, v.Detail}
	}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), ": ")
}

// verdictHint is the likely cure for a rejected command.
func verdictHint(v agent.Verdict, c *client) string {
	switch v.Reason {
	case signing.ReasonStale, signing.ReasonFuture:
		return "set this machine's clock: timedatectl set-ntp true"
	case signing.ReasonNotPermitted:
		switch {
		case strings.HasPrefix(v.Detail, "by "):
			return "a safety rule of the output wins over every command: docs/outputs.md"
		case v.Detail == agent.EncryptedOnly:
			return fmt.Sprintf("--encrypt-to %s, or copy the [[encrypt]] blocks of the node's pinseal.toml to client.toml in the bundle", c.Node)
		}
		return fmt.Sprintf("a [[permit]] in the node's pinseal.toml must give signer %q this output and action, then reload it", c.Name)
	case signing.ReasonReplay:
		return fmt.Sprintf("a newer command of this key was there first: send it again; if that is of no use, on the node: pinseal signer reset %s", c.Name)
	case signing.ReasonBadCommand:
		return `an output takes 0, 1, on, off, toggle, pulse, blink or {"state":"ON"}; docs/outputs.md has the rest`
	case signing.ReasonRateLimited:
		return "send more slowly, or raise rate under [agent] in the node's pinseal.toml"
	case signing.ReasonHardware:
		return "the node's log says more: journalctl -u pinseal"
	default:
		return "docs/sealed-message-v1.md explains every reason"
	}
}
