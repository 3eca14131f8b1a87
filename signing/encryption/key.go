package encryption

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"pinseal/signing"
)

// SharedKeyBytes is the size of a shared key.
const SharedKeyBytes = 32

const (
	blockShared     = "PINSEAL SHARED KEY"
	blockParameters = "EC PARAMETERS" // what openssl ecparam -genkey writes first
)

// Recipient is whom a message is encrypted to: a *[PublicKey] or a *[SharedKey].
type Recipient interface {
	// ID is the kid: the key's RFC 7638 thumbprint, 43 base64url characters.
	ID() string
	wrap(random io.Reader, contentKey []byte) (entry, error)
}

// PrivateKey opens what is encrypted to its public key. It does not change and
// is safe for concurrent use.
type PrivateKey struct {
	public *PublicKey
	pem    []byte
	key    *ecdh.PrivateKey
}

// PublicKey is a recipient with a key of its own. It does not change and is safe
// for concurrent use.
type PublicKey struct {
	id  string
	pem []byte
	key *ecdh.PublicKey
}

// SharedKey is a key that all of a group have. It encrypts and opens. It does
// not change and is safe for concurrent use.
type SharedKey struct {
	id  string
	key [SharedKeyBytes]byte
}

// GenerateKey makes a new P-256 key.
func GenerateKey() (*PrivateKey, error) {
	key, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		return nil, err
	}
	return newPrivateKey(key)
}

// GenerateSharedKey makes a new shared key.
func GenerateSharedKey() *SharedKey {
	var key [SharedKeyBytes]byte
	_, _ = rand.Read(key[:]) // never fails
	return newSharedKey(key)
}

// newPrivateKey takes a key that package signing has parsed: its rules for PEM
// and DER are the strict ones, and its thumbprint is that of the same JWK.
func newPrivateKey(from *signing.PrivateKey) (*PrivateKey, error) {
	public, err := newPublicKey(from.Public())
	if err != nil {
		return nil, err
	}
	text := from.PEM()
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a P-256 key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading a P-256 key: it is a %T", parsed)
	}
	exchange, err := key.ECDH()
	if err != nil {
		return nil, fmt.Errorf("reading a P-256 key: %w", err)
	}
	return &PrivateKey{public: public, pem: text, key: exchange}, nil
}

// newPublicKey takes a key that package signing has parsed.
func newPublicKey(from *signing.PublicKey) (*PublicKey, error) {
	if from.Algorithm() != signing.ES256 {
		return nil, errors.New("the key is neither of P-256 nor of X25519, as keys for encryption are")
	}
	text := from.PEM()
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a P-256 key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("reading a P-256 key: it is a %T", parsed)
	}
	exchange, err := key.ECDH()
	if err != nil {
		return nil, fmt.Errorf("reading a P-256 key: %w", err)
	}
	return &PublicKey{id: from.ID(), pem: text, key: exchange}, nil
}

func newSharedKey(key [SharedKeyBytes]byte) *SharedKey {
	s := &SharedKey{key: key}
	// RFC 7638 section 7 warns of thumbprints of short secrets; these are 256 random bits.
	sum := sha256.Sum256([]byte(s.JWK()))
	s.id = base64.RawURLEncoding.EncodeToString(sum[:])
	return s
}

// ParsePrivateKeys reads one or more private keys in PEM: of X25519 in PKCS #8
// (RFC 8410), or of P-256 as signing.ParsePrivateKey reads them.
func ParsePrivateKeys(data []byte) ([]*PrivateKey, error) {
	blocks, err := splitPEM(data)
	if err != nil {
		return nil, err
	}
	var keys []*PrivateKey
	for _, block := range blocks {
		if block.Type == blockParameters {
			continue
		}
		key, err := parsePrivateKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no private key in it")
	}
	return keys, nil
}

func parsePrivateKey(block *pem.Block) (*PrivateKey, error) {
	if exchange := parseX25519(block); exchange != nil {
		return newX25519(exchange)
	}
	parsed, err := signing.ParsePrivateKey(pem.EncodeToMemory(block))
	if err != nil {
		return nil, err
	}
	return newPrivateKey(parsed)
}

// ParsePublicKeys reads one or more public keys in PEM, of P-256 or X25519.
func ParsePublicKeys(data []byte) ([]*PublicKey, error) {
	blocks, err := splitPEM(data)
	if err != nil {
		return nil, err
	}
	keys := make([]*PublicKey, len(blocks))
	for i, block := range blocks {
		if keys[i], err = parsePublicKey(block); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func parsePublicKey(block *pem.Block) (*PublicKey, error) {
	if exchange := parsePublicX25519(block); exchange != nil {
		return newPublicX25519(exchange)
	}
	parsed, err := signing.ParsePublicKeys(pem.EncodeToMemory(block))
	if err != nil {
		return nil, err
	}
	return newPublicKey(parsed[0])
}

// ParseSharedKeys reads one or more shared keys in PEM, blocks PINSEAL SHARED
// KEY of 32 bytes each.
func ParseSharedKeys(data []byte) ([]*SharedKey, error) {
	blocks, err := splitPEM(data)
	if err != nil {
		return nil, err
	}
	keys := make([]*SharedKey, len(blocks))
	for i, block := range blocks {
		if block.Type != blockShared || len(block.Headers) > 0 || len(block.Bytes) != SharedKeyBytes {
			return nil, fmt.Errorf("a PEM block is not a %s of %d bytes", blockShared, SharedKeyBytes)
		}
		keys[i] = newSharedKey([SharedKeyBytes]byte(block.Bytes))
	}
	return keys, nil
}

// splitPEM refuses whatever stands between blocks: one that is damaged must not
// be passed over in silence.
func splitPEM(data []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for rest := bytes.TrimSpace(data); len(rest) > 0 || len(blocks) == 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, errors.New("not PEM, or more than PEM blocks")
		}
		block, after := pem.Decode(rest)
		if block == nil || bytes.Count(rest[:len(rest)-len(after)], []byte("-----BEGIN ")) != 1 { // Decode passes over damage
			return nil, errors.New("a PEM block is damaged")
		}
		blocks, rest = append(blocks, block), after
	}
	return blocks, nil
}

// Public returns the key to encrypt to.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// PEM returns the key as a PRIVATE KEY block. It is secret.
func (k *PrivateKey) PEM() []byte { return bytes.Clone(k.pem) }

// ID is the kid: the key's RFC 7638 thumbprint, 43 base64url characters.
func (k *PublicKey) ID() string { return k.id }

// PEM returns the key as a PUBLIC KEY block.
func (k *PublicKey) PEM() []byte { return bytes.Clone(k.pem) }

// JWK returns the key as a JSON Web Key with the members that RFC 7638 hashes,
// for other implementations.
func (k *PublicKey) JWK() string { return publicJWK(k.key) }

// ID is the kid: the key's RFC 7638 thumbprint, 43 base64url characters.
func (k *SharedKey) ID() string { return k.id }

// PEM returns the key as a PINSEAL SHARED KEY block. It is secret.
func (k *SharedKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockShared, Bytes: k.key[:]})
}

// JWK returns the key as a JSON Web Key (RFC 7518 section 6.4). It is secret.
func (k *SharedKey) JWK() string {
	return `{"k":"` + base64.RawURLEncoding.EncodeToString(k.key[:]) + `","kty":"oct"}`
}

// publicJWK writes a key as RFC 7638 section 3.2 orders it.
func publicJWK(key *ecdh.PublicKey) string {
	point := key.Bytes() // of P-256 uncompressed: 4, x, y
	b64 := base64.RawURLEncoding
	if key.Curve() == ecdh.X25519() {
		return `{"crv":"X25519","kty":"OKP","x":"` + b64.EncodeToString(point) + `"}` // RFC 8037 section 2
	}
	return `{"crv":"P-256","kty":"EC","x":"` + b64.EncodeToString(point[1:1+coordinateBytes]) +
		`","y":"` + b64.EncodeToString(point[1+coordinateBytes:]) + `"}`
}

const coordinateBytes = 32
