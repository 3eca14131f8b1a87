package encryption

import (
	"crypto/ecdh"
	"io"
)

// EncryptWith is Encrypt with a source of random bytes, for vectors.
func EncryptWith(random io.Reader, to []Recipient, b Binding, value []byte) ([]byte, error) {
	return encrypt(random, to, b, value)
}

// WrapKey and UnwrapKey are RFC 3394's.
func WrapKey(key, plain []byte) []byte              { return wrapKey(key, plain) }
func UnwrapKey(key, wrapped []byte) ([]byte, error) { return unwrapKey(key, wrapped) }

// EncryptAny encrypts what Encrypt refuses, as a careless or malicious signer might.
func EncryptAny(random io.Reader, to []Recipient, header, content []byte) ([]byte, error) {
	return encryptAny(random, to, header, content)
}

// LowOrder is the recipient of what an attacker would send if the secret zero were taken: its ephemeral key is a point
// of low order, and everybody knows the key that is made of zero.
type LowOrder struct{ KID, Point string }

// ID implements Recipient.
func (l LowOrder) ID() string { return l.KID }

func (l LowOrder) wrap(_ io.Reader, contentKey []byte) (entry, error) {
	point, err := ecdh.X25519().NewPublicKey([]byte(l.Point))
	return entry{algorithmPublic, l.KID, point, wrapKey(agreedKey(make([]byte, 32)), contentKey)}, err
}

// Steps are what k computes from a message with one recipient: the agreed secret, the key made of it, the content key.
func Steps(k *PrivateKey, msg []byte) (secret, agreed, content []byte, err error) {
	e, err := parseEnvelope(msg)
	if err != nil {
		return nil, nil, nil, err
	}
	if secret, err = k.key.ECDH(e.recipients[0].ephemeral); err != nil {
		return nil, nil, nil, err
	}
	agreed = agreedKey(secret)
	content, err = unwrapKey(agreed, e.recipients[0].wrapped)
	return secret, agreed, content, err
}
