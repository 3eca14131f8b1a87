package encryption

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"pinseal/signing"
)

// Keys is what a party can open messages with. It does not change and is safe
// for concurrent use. The zero value opens nothing.
type Keys struct {
	byKID map[string]opener
}

// opener is a *PrivateKey or a *SharedKey.
type opener interface {
	unwrap(entry) ([]byte, error)
}

// NewKeys makes Keys of all keys, old ones too, in any order.
func NewKeys(private []*PrivateKey, shared []*SharedKey) *Keys {
	k := &Keys{byKID: make(map[string]opener)}
	for _, key := range private {
		k.byKID[key.public.id] = key
	}
	for _, key := range shared {
		k.byKID[key.id] = key
	}
	return k
}

// IDs returns the kid of every key, sorted.
func (k *Keys) IDs() []string { return slices.Sorted(maps.Keys(k.byKID)) }

// Has reports whether the key with this kid is among them.
func (k *Keys) Has(kid string) bool { return k.byKID[kid] != nil }

// Errors of [Keys.Decrypt] that a caller may want to tell apart where no
// stranger hears of it.
var (
	ErrNotForUs = errors.New("encrypted to none of the keys that are here")
	errOpening  = errors.New("the ciphertext is not intact")
)

// Check reads an encrypted message strictly and compares it with the message
// around it, for who need not or cannot open it.
func Check(msg []byte, b Binding) error {
	_, err := check(msg, b)
	return err
}

func check(msg []byte, b Binding) (*envelope, error) {
	e, err := parseEnvelope(msg)
	if err != nil {
		return nil, fmt.Errorf("reading an encrypted message: %w", err)
	}
	if e.binding != b {
		return nil, errors.New("reading an encrypted message: it was encrypted for another message than the one it is in")
	}
	return e, nil
}

// Decrypt returns the value of an encrypted message, which must have been made
// for the message around it, b. The first recipient whose key is among k
// decides: at most one key agreement is computed. No error says what of the
// ciphertext was wrong, but who answers strangers must not tell any apart.
func (k *Keys) Decrypt(msg []byte, b Binding) ([]byte, error) {
	e, err := check(msg, b)
	if err != nil {
		return nil, err
	}
	for _, r := range e.recipients {
		if key, ok := k.byKID[r.kid]; ok {
			return e.open(key, r)
		}
	}
	return nil, ErrNotForUs
}

func (e *envelope) open(key opener, r entry) ([]byte, error) {
	contentKey, err := key.unwrap(r)
	if err != nil {
		return nil, errOpening
	}
	aead, err := newGCM(contentKey)
	if err != nil {
		return nil, errOpening
	}
	plain, err := aead.Open(nil, e.iv, slices.Concat(e.ciphertext, e.tag), e.protected)
	if err != nil {
		return nil, errOpening
	}
	value := bytes.Trim(plain, " \t\r\n")
	if !signing.ValidMessage(value) {
		return nil, errOpening
	}
	return value, nil
}
