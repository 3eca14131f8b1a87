package encryption

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"pinseal/signing"

	"github.com/go-json-experiment/json/jsontext"
)

// padding is the multiple of bytes to which a value is filled with spaces, so
// that its length does not tell "on" from "off".
const padding = 64

// Encrypt makes the msg of the sealed message that b describes, for 1 to
// [MaxRecipients] different recipients. value is one strict JSON value as a msg
// may be (signing.ValidMessage).
func Encrypt(to []Recipient, b Binding, value []byte) ([]byte, error) {
	return encrypt(rand.Reader, to, b, value)
}

func encrypt(random io.Reader, to []Recipient, b Binding, value []byte) ([]byte, error) {
	if !signing.ValidMessage(value) {
		return nil, errors.New("encrypting: the message is not one strict JSON value")
	}
	header, err := b.header()
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	msg, err := encryptAny(random, to, header, value)
	if err == nil {
		_, err = parseEnvelope(msg) // refuses a recipient given twice, for example
	}
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return msg, nil
}

// header is the protected header.
func (b Binding) header() ([]byte, error) {
	header, err := jsontext.AppendQuote([]byte(`{"aud":`), b.Topic)
	if err != nil {
		return nil, errors.New("the topic is not UTF-8")
	}
	header = append(header, `,"enc":"`+contentCipher+`","iss":"`+b.KeyID+`","seq":`...)
	header = strconv.AppendUint(header, b.Sequence, 10)
	return append(header, `,"typ":"`+headerType+`"}`...), nil
}

// encryptAny encrypts without asking what.
func encryptAny(random io.Reader, to []Recipient, header, content []byte) ([]byte, error) {
	if len(to) == 0 || len(to) > MaxRecipients {
		return nil, fmt.Errorf("%d recipients, want 1 to %d", len(to), MaxRecipients)
	}
	fresh := make([]byte, keyBytes+ivBytes)
	if _, err := io.ReadFull(random, fresh); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	contentKey := fresh[:keyBytes]
	e := &envelope{iv: fresh[keyBytes:], protected: base64.RawURLEncoding.AppendEncode(nil, header)}
	for _, recipient := range to {
		wrapped, err := recipient.wrap(random, contentKey)
		if err != nil {
			return nil, err
		}
		e.recipients = append(e.recipients, wrapped)
	}
	aead, err := newGCM(contentKey)
	if err != nil {
		return nil, err
	}
	spaces := (padding - len(content)%padding) % padding
	plain := slices.Concat(content, bytes.Repeat([]byte{' '}, spaces))
	sealed := aead.Seal(nil, e.iv, plain, e.protected)
	e.ciphertext, e.tag = sealed[:len(plain)], sealed[len(plain):]
	return e.marshal(), nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

// marshal writes the flattened serialisation for one recipient, the general one
// for several (RFC 7516 sections 7.2.1 and 7.2.2), as other libraries do.
func (e *envelope) marshal() []byte {
	b := append([]byte(`{"protected":"`), e.protected...)
	if len(e.recipients) == 1 {
		b = e.recipients[0].appendMembers(append(b, `",`...))
	} else {
		b = append(b, `","recipients":[`...)
		for i, r := range e.recipients {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(r.appendMembers(append(b, '{')), '}')
		}
		b = append(b, ']')
	}
	b64 := base64.RawURLEncoding
	b = b64.AppendEncode(append(b, `,"iv":"`...), e.iv)
	b = b64.AppendEncode(append(b, `","ciphertext":"`...), e.ciphertext)
	b = b64.AppendEncode(append(b, `","tag":"`...), e.tag)
	return append(b, `"}`...)
}

func (e *entry) appendMembers(b []byte) []byte {
	b = append(b, `"header":{"alg":"`+e.algorithm+`","kid":"`+e.kid+`"`...)
	if e.ephemeral != nil {
		b = append(b, `,"epk":`+publicJWK(e.ephemeral)...)
	}
	b = append(b, `},"encrypted_key":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, e.wrapped)
	return append(b, '"')
}
