package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k256ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Algorithm is a JWS algorithm name (RFC 7518 section 3.1, RFC 8812). Each
// stands for exactly one curve.
type Algorithm string

// The two algorithms of the format.
const (
	ES256  Algorithm = "ES256"  // P-256 with SHA-256, RFC 7518 section 3.4
	ES256K Algorithm = "ES256K" // secp256k1 with SHA-256, RFC 8812 section 3.2
)

const (
	scalarSize       = 32
	pointSize        = 1 + 2*scalarSize // uncompressed, SEC 1 section 2.3.3
	compressedSize   = 1 + scalarSize
	signatureSize    = 2 * scalarSize
	sha1Size         = 20
	sha256Size       = sha256.Size
	tagUncompressed  = 4
	tagCompressedOdd = 3
	tagCompressed    = 2
)

// PrivateKey signs. It is safe for concurrent use.
type PrivateKey struct {
	public *PublicKey
	der    []byte                // PKCS 8
	p256   *ecdsa.PrivateKey     // for ES256
	k256   *secp256k1.PrivateKey // for ES256K
}

// PublicKey verifies. It is safe for concurrent use.
type PublicKey struct {
	algorithm Algorithm
	id        string
	der       []byte               // SubjectPublicKeyInfo
	p256      *ecdsa.PublicKey     // for ES256
	k256      *secp256k1.PublicKey // for ES256K
}

// GenerateKey makes a new key for the algorithm.
func GenerateKey(alg Algorithm) (*PrivateKey, error) {
	switch alg {
	case ES256:
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generating a P-256 key: %w", err)
		}
		scalar, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("generating a P-256 key: %w", err)
		}
		return newPrivateKey(ES256, scalar)
	case ES256K:
		key, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			return nil, fmt.Errorf("generating a secp256k1 key: %w", err)
		}
		return newPrivateKey(ES256K, key.Serialize())
	default:
		return nil, fmt.Errorf("no algorithm %q: want %s or %s", alg, ES256, ES256K)
	}
}

// newPrivateKey makes a key of its scalar: 32 bytes, big-endian, 1 to n−1.
func newPrivateKey(alg Algorithm, scalar []byte) (*PrivateKey, error) {
	if len(scalar) != scalarSize {
		return nil, fmt.Errorf("the private number has %d bytes, want %d", len(scalar), scalarSize)
	}
	key := new(PrivateKey)
	var point []byte
	if alg == ES256 {
		var err error
		if key.p256, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err != nil {
			return nil, errors.New("the private number is not one of P-256")
		}
		if point, err = key.p256.PublicKey.Bytes(); err != nil {
			return nil, fmt.Errorf("deriving the public key: %w", err)
		}
	} else {
		var s secp256k1.ModNScalar
		if s.SetByteSlice(scalar) || s.IsZero() {
			return nil, errors.New("the private number is not one of secp256k1")
		}
		key.k256 = secp256k1.NewPrivateKey(&s)
		point = key.k256.PubKey().SerializeUncompressed()
	}
	var err error
	if key.public, err = newPublicKey(alg, point); err != nil {
		return nil, err
	}
	key.der, err = marshalPKCS8(alg, scalar, point)
	return key, err
}

// newPublicKey makes a key of a point as SEC 1 section 2.3.3 writes it,
// compressed or not. The hybrid form is refused: RFC 5480 section 2.2 has none.
func newPublicKey(alg Algorithm, point []byte) (*PublicKey, error) {
	plain := len(point) == pointSize && point[0] == tagUncompressed
	short := len(point) == compressedSize && (point[0] == tagCompressed || point[0] == tagCompressedOdd)
	if !plain && !short {
		return nil, errors.New("the public point is neither uncompressed nor compressed")
	}
	key := &PublicKey{algorithm: alg}
	if alg == ES256 {
		if short {
			x, y := elliptic.UnmarshalCompressed(elliptic.P256(), point)
			if x == nil {
				return nil, errors.New("the public point is not on P-256")
			}
			point = make([]byte, pointSize)
			point[0] = tagUncompressed
			x.FillBytes(point[1 : 1+scalarSize])
			y.FillBytes(point[1+scalarSize:])
		}
		var err error
		if key.p256, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err != nil {
			return nil, errors.New("the public point is not on P-256")
		}
	} else {
		var err error
		if key.k256, err = secp256k1.ParsePubKey(point); err != nil {
			return nil, errors.New("the public point is not on secp256k1")
		}
		point = key.k256.SerializeUncompressed()
	}
	key.id = thumbprint(alg, point)
	var err error
	key.der, err = marshalSPKI(alg, point)
	return key, err
}

// thumbprint computes the JWK thumbprint of RFC 7638 section 3: SHA-256 over
// the required members of the JWK in lexical order without white space. The
// point is uncompressed.
func thumbprint(alg Algorithm, point []byte) string {
	curve := "P-256"
	if alg == ES256K {
		curve = "secp256k1"
	}
	b64 := base64.RawURLEncoding
	jwk := `{"crv":"` + curve +
		`","kty":"EC","x":"` + b64.EncodeToString(point[1:1+scalarSize]) +
		`","y":"` + b64.EncodeToString(point[1+scalarSize:]) + `"}`
	sum := sha256.Sum256([]byte(jwk))
	return b64.EncodeToString(sum[:])
}

// Public returns the key that verifies what k signs.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// ID returns the key's kid: its RFC 7638 thumbprint, 43 base64url characters.
func (k *PublicKey) ID() string { return k.id }

// Algorithm returns the one algorithm this key is for.
func (k *PublicKey) Algorithm() Algorithm { return k.algorithm }

// SignDigest signs a SHA-256 digest and returns r‖s, 64 bytes. The same digest
// gives the same signature (RFC 6979). ES256K keys also sign a SHA-1 digest of
// 20 bytes, for the legacy format alone.
func (k *PrivateKey) SignDigest(digest []byte) ([]byte, error) {
	if !k.public.takesDigest(digest) {
		return nil, fmt.Errorf("signing with %s: a digest of %d bytes", k.public.algorithm, len(digest))
	}
	if k.k256 != nil {
		signature := k256ecdsa.Sign(k.k256, digest)
		r, s := signature.R(), signature.S()
		rs := make([]byte, signatureSize)
		r.PutBytesUnchecked(rs[:scalarSize])
		s.PutBytesUnchecked(rs[scalarSize:])
		return rs, nil
	}
	// No random source means RFC 6979 in the standard library.
	der, err := k.p256.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing with ES256: %w", err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, fmt.Errorf("signing with ES256: %w", err)
	}
	out := make([]byte, signatureSize)
	rs.R.FillBytes(out[:scalarSize])
	rs.S.FillBytes(out[scalarSize:])
	return out, nil
}

// VerifyDigest reports whether sig, r‖s of 64 bytes, is k's signature of the
// digest. A high s is as good as a low one: OpenSSL makes both.
func (k *PublicKey) VerifyDigest(digest, sig []byte) bool {
	if len(sig) != signatureSize || !k.takesDigest(digest) {
		return false
	}
	if k.k256 == nil {
		r := new(big.Int).SetBytes(sig[:scalarSize])
		s := new(big.Int).SetBytes(sig[scalarSize:])
		return ecdsa.Verify(k.p256, digest, r, s)
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(sig[:scalarSize]) || s.SetByteSlice(sig[scalarSize:]) {
		return false // n or more; zero is refused by Verify
	}
	return k256ecdsa.NewSignature(&r, &s).Verify(digest, k.k256)
}

func (k *PublicKey) takesDigest(digest []byte) bool {
	return len(digest) == sha256Size || (len(digest) == sha1Size && k.algorithm == ES256K)
}
