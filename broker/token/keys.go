package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// Bounds of a key set: what is beyond has no place in one, and would cost the node's time with every token.
const (
	maxKeys    = 64
	minRSABits = 2048
	maxRSABits = 8192
)

// KeySet is a JSON Web Key Set: the public keys of an issuer. It is immutable.
type KeySet struct {
	keys []signingKey
}

type signingKey struct {
	id         string
	algorithms []jose.SignatureAlgorithm
	public     any
}

// ParseKeySet reads a key set. Keys that are not for signatures or of a kind that it does not know are skipped, as
// RFC 7517 section 5 asks. An error is a set without a usable key, one with a private key, and one with more than 64 keys.
func ParseKeySet(text []byte) (*KeySet, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, errors.New("not a JSON Web Key Set")
	}
	if len(raw.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys are more than %d", len(raw.Keys), maxKeys)
	}
	set := &KeySet{}
	for i, one := range raw.Keys {
		var k jose.JSONWebKey
		if err := json.Unmarshal(one, &k); err != nil || k.Use != "" && k.Use != "sig" {
			continue
		}
		switch k.Key.(type) {
		case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey:
			return nil, fmt.Errorf("key %d is a private one: keep it to yourself, and make another", i+1)
		}
		if fits := usable(k); len(fits) > 0 {
			set.keys = append(set.keys, signingKey{k.KeyID, fits, k.Key})
		}
	}
	if len(set.keys) == 0 {
		return nil, errors.New("no key in it is for signatures of a known kind")
	}
	return set, nil
}

// usable are the algorithms that a key verifies; none if it is to be skipped.
func usable(k jose.JSONWebKey) []jose.SignatureAlgorithm {
	var fits []jose.SignatureAlgorithm
	switch public := k.Key.(type) {
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			fits = []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			fits = []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			fits = []jose.SignatureAlgorithm{jose.ES512}
		}
	case ed25519.PublicKey:
		fits = []jose.SignatureAlgorithm{jose.EdDSA}
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits >= minRSABits && bits <= maxRSABits {
			fits = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
		}
	}
	if k.Algorithm == "" {
		return fits
	}
	return slices.DeleteFunc(fits, func(a jose.SignatureAlgorithm) bool { return string(a) != k.Algorithm })
}

// find returns the keys that a token with this header may have been signed with. A token that names no key is taken if
// there is only one.
func (s *KeySet) find(id string, algorithm jose.SignatureAlgorithm) []signingKey {
	if s == nil || id == "" && len(s.keys) != 1 {
		return nil
	}
	var found []signingKey
	for _, k := range s.keys {
		if (id == "" || k.id == id) && slices.Contains(k.algorithms, algorithm) {
			found = append(found, k)
		}
	}
	return found
}

// knows reports whether a key has this name.
func (s *KeySet) knows(id string) bool {
	return s != nil && (id == "" || slices.ContainsFunc(s.keys, func(k signingKey) bool { return k.id == id }))
}
