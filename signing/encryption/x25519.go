package encryption

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// GenerateX25519Key makes a new X25519 key.
func GenerateX25519Key() (*PrivateKey, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an X25519 key: %w", err)
	}
	return newX25519(key)
}

func newX25519(key *ecdh.PrivateKey) (*PrivateKey, error) {
	public, err := newPublicX25519(key.PublicKey())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing an X25519 key: %w", err)
	}
	return &PrivateKey{public: public, pem: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), key: key}, nil
}

func newPublicX25519(key *ecdh.PublicKey) (*PublicKey, error) {
	if err := checkX25519(key); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing an X25519 key: %w", err)
	}
	sum := sha256.Sum256([]byte(publicJWK(key)))
	return &PublicKey{
		id: base64.RawURLEncoding.EncodeToString(sum[:]), pem: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), key: key,
	}, nil
}

// parseX25519 reads a block of PKCS #8 as RFC 8410 section 7 has it, and nothing behind it; nil if it is something else.
func parseX25519(block *pem.Block) *ecdh.PrivateKey {
	if block.Type != "PRIVATE KEY" || len(block.Headers) > 0 {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdh.PrivateKey)
	if err != nil || !ok || key.Curve() != ecdh.X25519() {
		return nil
	}
	if der, err := x509.MarshalPKCS8PrivateKey(key); err != nil || !bytes.Equal(der, block.Bytes) {
		return nil
	}
	return key
}

// parsePublicX25519 is parseX25519 for a public key.
func parsePublicX25519(block *pem.Block) *ecdh.PublicKey {
	if block.Type != "PUBLIC KEY" || len(block.Headers) > 0 {
		return nil
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*ecdh.PublicKey)
	if err != nil || !ok || key.Curve() != ecdh.X25519() {
		return nil
	}
	if der, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(der, block.Bytes) {
		return nil
	}
	return key
}

// errX25519 is the one error about a point.
var errX25519 = errors.New("not an X25519 key: of low order, or written otherwise than RFC 7748 does")

// checkX25519 refuses points that every secret agrees with on zero (RFC 7748 section 6.1), and a second way to write a
// point, which would have another kid.
func checkX25519(key *ecdh.PublicKey) error {
	if !canonicalX25519(key.Bytes()) {
		return errX25519
	}
	one := make([]byte, coordinateBytes)
	one[0] = 1 // any scalar does: clamping makes it a multiple of the cofactor
	probe, err := ecdh.X25519().NewPrivateKey(one)
	if err != nil {
		return errX25519
	}
	if _, err := probe.ECDH(key); err != nil {
		return errX25519
	}
	return nil
}

// canonicalX25519 says whether a point, little-endian, is below 2^255 - 19.
func canonicalX25519(point []byte) bool {
	prime := bytes.Repeat([]byte{0xff}, coordinateBytes)
	prime[0], prime[coordinateBytes-1] = 0xed, 0x7f
	point = slices.Clone(point)
	slices.Reverse(point)
	slices.Reverse(prime)
	return bytes.Compare(point, prime) < 0
}

// parseOKP reads an ephemeral X25519 key (RFC 8037 section 2).
func parseOKP(found object) (*ecdh.PublicKey, error) {
	if err := found.exactly("kty", "crv", "x"); err != nil {
		return nil, fmt.Errorf("epk: %w", err)
	}
	if curve, err := readString(found["crv"]); err != nil || curve != "X25519" {
		return nil, errors.New("epk: crv is not X25519")
	}
	point, err := readBytes(found["x"])
	if err != nil || len(point) != coordinateBytes {
		return nil, fmt.Errorf("epk: x is not %d bytes", coordinateBytes)
	}
	key, err := ecdh.X25519().NewPublicKey(point)
	if err != nil || !canonicalX25519(point) {
		return nil, fmt.Errorf("epk: %w", errX25519)
	}
	return key, nil // of low order it may be: whoever agrees on a key with it notices
}
