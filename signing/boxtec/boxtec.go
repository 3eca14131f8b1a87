// Package boxtec makes and checks the legacy format that sealed messages
// replace: ten digits of Unix seconds, the text, a colon, and base64 of a raw
// 64-byte r‖s secp256k1 signature over everything before that colon.
//
//	1763787388on:MEUC…==
//
// It exists for senders that cannot be changed, such as
//
//	message = str(int(time.time())) + text
//	message + ":" + base64.b64encode(key.sign(message.encode())).decode()
//
// with python-ecdsa, whose default hash is SHA-1. A message names neither its
// key nor its topic and has no sequence number: trust a key with it for one
// topic only, and remember the last second and the digests seen in it.
package boxtec

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // G505: what the legacy senders sign with
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"pinseal/signing"
)

// Hash is the digest a sender signs. The receiver is told which; a message
// does not say.
type Hash string

// The hashes of the legacy senders.
const (
	SHA1   Hash = "sha1" // python-ecdsa's default
	SHA256 Hash = "sha256"
)

const (
	maxAge         = 30 * time.Second
	maxAhead       = 5 * time.Second
	timeDigits     = 10
	maxSecond      = 9_999_999_999
	signatureChars = 88 // base64 of 64 bytes, padded
)

// Message is a legacy message whose signature has been verified.
type Message struct {
	second int64
	text   string
	digest [sha256.Size]byte
}

// Seal makes a legacy message. key must be an ES256K key; at is used to the
// second.
func Seal(key *signing.PrivateKey, h Hash, at time.Time, text string) ([]byte, error) {
	second := at.Unix()
	if second < 0 || second > maxSecond {
		return nil, errors.New("sealing: the time does not fit ten digits")
	}
	signed := fmt.Appendf(nil, "%0*d%s", timeDigits, second, text)
	digest, err := h.sum(signed)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if key.Public().Algorithm() != signing.ES256K {
		return nil, errors.New("sealing: the legacy format needs a secp256k1 key")
	}
	signature, err := key.SignDigest(digest)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	sealed := base64.StdEncoding.AppendEncode(append(signed, ':'), signature)
	if len(sealed) > signing.MaxSealedBytes {
		return nil, errors.New("sealing: the text is too long")
	}
	return sealed, nil
}

// Open verifies a legacy message and only then reads its time. One line feed at
// the end is tolerated. Every error is a *[signing.RefusedError] with
// [signing.ReasonMalformed] or [signing.ReasonBadSignature].
func Open(raw []byte, key *signing.PublicKey, h Hash) (*Message, error) {
	if len(raw) > signing.MaxSealedBytes {
		return nil, malformed("longer than 65536 bytes")
	}
	raw = bytes.TrimSuffix(raw, []byte("\n"))
	colon := bytes.LastIndexByte(raw, ':') // the text may contain colons
	if colon < 0 {
		return nil, malformed("no colon before the signature")
	}
	signed := raw[:colon]
	signature, err := decodeSignature(raw[colon+1:])
	if err != nil {
		return nil, err
	}
	digest, err := h.sum(signed)
	if err != nil || key.Algorithm() != signing.ES256K || !key.VerifyDigest(digest, signature) {
		return nil, signing.Refuse(signing.ReasonBadSignature, "the key did not make this signature with %s", string(h))
	}
	if len(signed) < timeDigits {
		return nil, malformed("does not begin with ten digits")
	}
	second, err := strconv.ParseUint(string(signed[:timeDigits]), 10, 63)
	if err != nil {
		return nil, malformed("does not begin with ten digits")
	}
	return &Message{
		second: int64(second),
		text:   string(signed[timeDigits:]),
		digest: sha256.Sum256(signed),
	}, nil
}

func decodeSignature(b []byte) ([]byte, error) {
	// encoding/base64 passes over line breaks.
	if len(b) != signatureChars || bytes.ContainsAny(b, "\r\n") {
		return nil, malformed("the signature is not base64 of 64 bytes")
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(string(b))
	if err != nil || len(signature) != 64 {
		return nil, malformed("the signature is not base64 of 64 bytes")
	}
	return signature, nil
}

func malformed(detail string) error {
	return signing.Refuse(signing.ReasonMalformed, "%s", detail)
}

func (h Hash) sum(b []byte) ([]byte, error) {
	switch h {
	case SHA1:
		sum := sha1.Sum(b) //nolint:gosec // G401: what the legacy senders sign with
		return sum[:], nil
	case SHA256:
		sum := sha256.Sum256(b)
		return sum[:], nil
	default:
		return nil, fmt.Errorf("no hash %q: want %s or %s", string(h), SHA1, SHA256)
	}
}

// Text returns the message without its time.
func (m *Message) Text() string { return m.text }

// Second returns the sender's time in whole seconds since 1970, ten digits.
func (m *Message) Second() int64 { return m.second }

// Digest returns the SHA-256 of the signed bytes, whatever hash was signed.
func (m *Message) Digest() [32]byte { return m.digest }

// CheckFresh refuses a message more than 30 s old with [signing.ReasonStale]
// and one more than 5 s ahead of now with [signing.ReasonFuture].
func (m *Message) CheckFresh(now time.Time) error {
	at := time.Unix(m.second, 0)
	if age := now.Sub(at); age > maxAge {
		return signing.Refuse(signing.ReasonStale, "sealed %s before now, at most %s allowed", age.Round(time.Millisecond), maxAge)
	}
	if ahead := at.Sub(now); ahead > maxAhead {
		return signing.Refuse(signing.ReasonFuture, "sealed %s ahead of now, at most %s allowed", ahead.Round(time.Millisecond), maxAhead)
	}
	return nil
}
