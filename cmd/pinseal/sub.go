package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

type subCmd struct {
	connectFlags
	Topics  []string `short:"t" sep:"none" help:"Topic or filter; may be repeated." placeholder:"TOPIC"`
	QoS     byte     `short:"q" name:"qos" help:"Quality of service: 0, 1 or 2." default:"1" enum:"0,1,2"`
	Count   int      `short:"C" help:"End after this many messages." placeholder:"N"`
	Wait    float64  `short:"W" help:"End with exit code 3 after this many seconds." placeholder:"SECONDS"`
	Verbose bool     `short:"v" help:"Also print the topic." xor:"form"`
	JSON    bool     `name:"json" help:"For scripts: an object a line, with topic, signer, time, number and message." xor:"form"`

	TopicArgs []string `arg:"" optional:"" name:"topic" help:"Topics, instead of -t."`
}

// Run prints messages until the count, the time or a signal ends it. Every line begins with who
// vouches for it: [signer] for a verified message, [plain] for one that is not sealed. What claims to
// be sealed and is not genuine goes to standard error, without its content.
func (c *subCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	if err := checkSeconds(c.Wait); err != nil {
		return err
	}
	if c.Count < 0 {
		return usagef("--count is a number of messages")
	}
	settings, err := c.client(std)
	if err != nil {
		return err
	}
	var subscriptions []mqtt.Subscription
	for _, filter := range append(c.Topics, c.TopicArgs...) {
		if err := checkFilter(filter); err != nil {
			return usageError(fmt.Errorf("%q is not a topic filter: %w", filter, err))
		}
		subscriptions = append(subscriptions, mqtt.Subscription{Filter: filter, QoS: c.QoS})
	}
	if len(subscriptions) == 0 {
		return usageError(withHint(errors.New("no topic"), "pinseal sub ledStatus, for example; -t may be repeated"))
	}
	keyring, err := signing.NewKeyring() // without one, plain messages can still be read
	if settings.Signers != "" {
		keyring, err = settings.readSigners()
	}
	if err != nil {
		return err
	}
	secrets, err := newCryptor(settings.secrets, nil, nil)
	if err != nil {
		return err
	}
	settings.keepRenewed(ctx)
	return c.print(ctx, settings, subscriptions, c.viewer(std, keyring, secrets))
}

func (c *subCmd) print(ctx context.Context, settings *client, subscriptions []mqtt.Subscription, show *viewer) (err error) {
	arrived := make(chan mqtt.Message, 256)
	connection, err := settings.connect(ctx, mqtt.Config{
		CleanSession:  true,
		Subscriptions: subscriptions,
		OnMessage: func(m mqtt.Message, ack func()) {
			select {
			case arrived <- m:
				ack()
			case <-ctx.Done():
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	var timeout <-chan time.Time
	if c.Wait > 0 {
		timeout = time.After(seconds(c.Wait))
	}
	for shown := 0; c.Count == 0 || shown < c.Count; {
		select {
		case m := <-arrived:
			printed, err := show.message(m)
			if err != nil {
				return err
			}
			if printed {
				shown++
			}
		case <-timeout:
			return withCode(exitNoAnswer, errors.New("time is up"))
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (c *subCmd) viewer(std streams, keyring *signing.Keyring, secrets *cryptor) *viewer {
	show := newViewer(std, keyring, secrets, c.Verbose)
	show.json = c.JSON
	return show
}

// viewedMessage is a message as scripts read it. A plain one has no signer, and its text for a message.
type viewedMessage struct {
	Topic    string `json:"topic"`
	Signer   string `json:"signer,omitempty"`
	Sealed   string `json:"sealed,omitempty"` // when, RFC 3339
	Seq      uint64 `json:"seq,omitempty"`
	Retained bool   `json:"retained,omitempty"`
	Message  any    `json:"msg"` // the sealed value, or the plain text
}

// viewer prints messages with who vouches for them.
type viewer struct {
	json     bool
	out, err io.Writer
	keyring  *signing.Keyring
	secrets  *cryptor
	topics   bool
	seen     recent
}

func newViewer(std streams, keyring *signing.Keyring, secrets *cryptor, topics bool) *viewer {
	return &viewer{out: std.out, err: std.err, keyring: keyring, secrets: secrets, topics: topics, seen: recent{index: map[[32]byte]bool{}}}
}

// message prints m unless it is a repetition of a sealed message or not genuine.
func (v *viewer) message(m mqtt.Message) (bool, error) {
	who, text := "plain", string(m.Payload)
	seen := viewedMessage{Topic: m.Topic, Retained: m.Retained, Message: text}
	if looksSealed(m.Payload) {
		sealed, signer, err := signing.Open(m.Payload, m.Topic, v.keyring)
		if err != nil {
			fmt.Fprintf(v.err, "pinseal: on %s: not genuine: %v\n", printableTopic(m.Topic), err)
			return false, nil
		}
		if !v.seen.add(sealed.Digest()) {
			return false, nil // QoS 1 delivered it again
		}
		value, err := v.secrets.value(sealed)
		if err != nil {
			fmt.Fprintf(v.err, "pinseal: on %s: of %s: %v\n", printableTopic(m.Topic), signer.Name, err)
			return false, nil
		}
		who, text = signer.Name, plainText(value)
		seen.Signer, seen.Sealed, seen.Seq = signer.Name, sealed.IssuedAt().UTC().Format(time.RFC3339Nano), sealed.Sequence()
		seen.Message = json.RawMessage(value)
	}
	if v.json {
		return true, writeJSON(v.out, seen)
	}
	line := fmt.Sprintf("[%s] %s\n", who, printable(text))
	if v.topics {
		line = printableTopic(m.Topic) + " " + line
	}
	_, err := io.WriteString(v.out, line)
	return true, err
}

// looksSealed tells a sealed message from a plain one: three parts of a JWS whose header begins with {".
func looksSealed(payload []byte) bool {
	text := string(payload)
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

// plainText is a JSON string without its quotes, and any other value as it is.
func plainText(value []byte) string {
	if text, err := strconv.Unquote(string(value)); err == nil && value[0] == '"' {
		return text
	}
	return string(value)
}

// recentLimit is how many messages back a repetition is noticed.
const recentLimit = 4096

// recent remembers the last messages seen.
type recent struct {
	index map[[32]byte]bool
	order [][32]byte
}

// add reports whether the digest is new.
func (r *recent) add(digest [32]byte) bool {
	if r.index[digest] {
		return false
	}
	if len(r.order) == recentLimit {
		delete(r.index, r.order[0])
		r.order = r.order[1:]
	}
	r.index[digest] = true
	r.order = append(r.order, digest)
	return true
}
