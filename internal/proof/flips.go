package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"pinseal/agent"
	"pinseal/signing"
)

// flips changes every single bit of sealed messages, and cuts them at every byte: nothing of it may be accepted.
func flips(ctx context.Context, l *lab) ([]*row, error) {
	opened := newRow("single-bit flips and truncations of sealed messages, opened in this process: accepted")
	published := newRow("the same of a command, published to the node by another identity: acted on")
	err := errors.Join(flipAndOpen(l, opened, signing.Open), flipAndPublish(ctx, l, published, distort))
	return []*row{opened, published}, err
}

// distort returns everything that one flipped bit or a cut makes of raw.
func distort(raw []byte) [][]byte {
	var all [][]byte
	for i := range raw {
		for bit := range 8 {
			flipped := slices.Clone(raw)
			flipped[i] ^= 1 << bit
			all = append(all, flipped)
		}
		all = append(all, slices.Clone(raw[:i]))
	}
	return all
}

type openFunc func(raw []byte, topic string, keys *signing.Keyring) (*signing.Message, signing.Signer, error)

func flipAndOpen(l *lab, r *row, open openFunc) error {
	begin, sealed := time.Now(), 0
	messages := []signing.Claims{
		{Topic: ledTopic, Message: []byte(`"toggle"`)},
		{Topic: agent.SetTopic(nodeName, "led"), Message: []byte(`{"state":"ON"}`), Expires: begin.Add(time.Minute), Nonce: "AAECAwQFBgcICQoLDA0ODw"},
		{Topic: "telemetry/sensor/load", Message: []byte(`{"load":[0.25,1e3,null],"host":"pi"}`)},
	}
	for sealed < l.flipped {
		for _, alg := range []signing.Algorithm{signing.ES256, signing.ES256K} {
			key, err := signing.GenerateKey(alg)
			if err != nil {
				return err
			}
			keys, err := signing.NewKeyring(signing.Signer{Name: operator, Key: key.Public()})
			if err != nil {
				return err
			}
			claims := messages[sealed/2%len(messages)]
			claims.IssuedAt, claims.Sequence = begin, l.random.Uint64N(signing.MaxSequence)
			raw, err := signing.Seal(key, claims)
			if err != nil {
				return err
			}
			if _, _, err := open(raw, claims.Topic, keys); err != nil {
				return fmt.Errorf("the genuine message: %w", err)
			}
			tryToOpen(r, raw, claims.Topic, keys, open)
			sealed++
		}
	}
	r.note("%d messages, ES256 and ES256K in turns, in %v", sealed, time.Since(begin).Round(time.Second/10))
	return nil
}

func tryToOpen(r *row, raw []byte, topic string, keys *signing.Keyring, open openFunc) {
	forged := distort(raw)
	r.try(len(forged))
	for i, f := range forged {
		if _, _, err := open(f, topic, keys); err == nil {
			r.fail("byte %d changed or cut (%d) and accepted: %s", i/9, i%9, f)
		}
	}
}

// portion is how many forgeries are published before a genuine command.
const portion = 200

// flipAndPublish publishes forgeries in portions, with a genuine command after each: once that was acted on, the
// forgeries before it were judged, because a topic has one order.
func flipAndPublish(ctx context.Context, l *lab, r *row, forge func(raw []byte) [][]byte) (err error) {
	n, err := newNode(ctx, l, filepath.Join(l.dir, "flips"), unchanged)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.start(ctx); err != nil {
		return err
	}
	good, err := n.party(operator)
	if err != nil {
		return err
	}
	bad, err := n.party(thief)
	if err != nil {
		return err
	}
	genuine, err := good.toggle(ledLine)
	if err != nil {
		return err
	}
	before, err := n.lines.snapshot()
	if err != nil {
		return err
	}
	portions, err := publishForgeries(ctx, r, forge(genuine.raw), good, bad)
	if err != nil {
		return err
	}
	after, err := n.lines.snapshot()
	if acted := after[ledLine] - before[ledLine] - portions; acted != 0 {
		r.fail("the line changed %d times more than it was asked to", acted)
	}
	r.note("a command of %d bytes; after each %d forgeries a genuine one, all of which were acted on", len(genuine.raw), portion)
	return err
}

func publishForgeries(ctx context.Context, r *row, forgeries [][]byte, good, bad *party) (portions int, err error) {
	answers := make(chan agent.Verdict, 2*portion)
	c, err := bad.dial(ctx, func(_ string, payload []byte) { answers <- readVerdict(payload) }, verdictsTo(operator))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for some := range slices.Chunk(forgeries, portion) {
		portions++
		r.try(len(some))
		fence, err := good.toggle(ledLine)
		if err != nil {
			return portions, err
		}
		if err := c.Publish(ledTopic, slices.Concat(some, [][]byte{fence.raw})...); err != nil {
			return portions, err
		}
		if err := awaitFence(r, answers, fence.seq); err != nil {
			return portions, err
		}
	}
	return portions, nil
}

// awaitFence waits for the verdict to a genuine command. An answer to a forgery says that it was believed.
func awaitFence(r *row, answers <-chan agent.Verdict, seq uint64) error {
	for {
		select {
		case v := <-answers:
			switch {
			case v.Sequence != seq:
				r.fail("a forgery was taken for genuine and answered with %s", v.Reason)
			case v.Reason != signing.ReasonApplied:
				return fmt.Errorf("a genuine command was refused: %s (%s)", v.Reason, v.Detail)
			default:
				return nil
			}
		case <-time.After(patience):
			return errUnanswered
		}
	}
}
