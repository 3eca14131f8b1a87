package signing_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pinseal/signing"
)

// TestDeterministicSignatures checks RFC 6979: for P-256 with its own vectors
// (appendix A.2.5), for secp256k1, which has none there, with the usual one.
func TestDeterministicSignatures(t *testing.T) {
	const a25 = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
	for _, test := range []struct {
		name, scalar, message, r, s string
		algorithm                   signing.Algorithm
	}{
		{
			"A.2.5 sample", a25, "sample",
			"efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
			"f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8", signing.ES256,
		},
		{
			"A.2.5 test", a25, "test",
			"f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
			"019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083", signing.ES256,
		},
		{
			"secp256k1", strings.Repeat("0", 63) + "1", "Satoshi Nakamoto",
			"934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8",
			"2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5", signing.ES256K,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, err := scalarKey(t, test.algorithm, test.scalar)
			if err != nil {
				t.Fatal(err)
			}
			digest := sha256.Sum256([]byte(test.message))
			signature, err := key.SignDigest(digest[:])
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(signature); got != test.r+test.s {
				t.Errorf("signature %s, want %s", got, test.r+test.s)
			}
			if !key.Public().VerifyDigest(digest[:], signature) {
				t.Error("the signature does not verify")
			}
		})
	}
}

// TestPeerSignsTheSame compares signatures and thumbprints with those that
// python-ecdsa and hashlib make of the same key. decred makes s low, as
// RFC 6979 does not ask.
func TestPeerSignsTheSame(t *testing.T) {
	n, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	for _, curve := range curves {
		t.Run(curve.name, func(t *testing.T) {
			file, key := opensslKey(t, curve.openssl)
			if want := strings.TrimSpace(peer(t, "", "thumbprint", file)); key.Public().ID() != want {
				t.Errorf("ID %s, the peer computes %s", key.Public().ID(), want)
			}
			digest := sha256.Sum256([]byte(curve.name))
			got, err := key.SignDigest(digest[:])
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.TrimSpace(peer(t, "", "deterministic", file, hex.EncodeToString(digest[:]))))
			if err != nil {
				t.Fatal(err)
			}
			if !key.Public().VerifyDigest(digest[:], want) {
				t.Error("the peer's signature does not verify")
			}
			if s := new(big.Int).SetBytes(want[32:]); curve.algorithm == signing.ES256K && new(big.Int).Lsh(s, 1).Cmp(n) > 0 {
				s.Sub(n, s).FillBytes(want[32:])
			}
			if !bytes.Equal(got, want) {
				t.Errorf("signature %x, the peer makes %x", got, want)
			}
		})
	}
}

// TestThumbprintOfRFC7515Key cannot use the RFC's own example, an RSA key. This is
// the P-256 key of RFC 7515 appendix A.3 with a thumbprint computed by hand:
// sha256sum of {"crv":…,"kty":…,"x":…,"y":…}.
func TestThumbprintOfRFC7515Key(t *testing.T) {
	// d of RFC 7515 A.3: jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI
	key, err := scalarKey(t, signing.ES256, "8e9b109e719098bf980487df1f5d77e9cb29606ebed2263b5f57c213df84f4b2")
	if err != nil {
		t.Fatal(err)
	}
	jwk := `{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	out := run(t, jwk, "openssl", "dgst", "-sha256", "-binary")
	if want := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(run(t, out, "base64", "-w0")), "="); key.Public().ID() != want {
		t.Errorf("ID %s, want %s", key.Public().ID(), want)
	}
}

func TestPrivateNumberOutOfRange(t *testing.T) {
	for _, test := range []struct {
		name, scalar string
		algorithm    signing.Algorithm
	}{
		{"P-256 zero", strings.Repeat("0", 64), signing.ES256},
		{"P-256 order", "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", signing.ES256},
		{"secp256k1 zero", strings.Repeat("0", 64), signing.ES256K},
		{"secp256k1 order", "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", signing.ES256K},
		{"secp256k1 beyond", strings.Repeat("f", 64), signing.ES256K},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := scalarKey(t, test.algorithm, test.scalar); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestDigestLengths(t *testing.T) {
	for _, test := range []struct {
		name      string
		algorithm signing.Algorithm
		length    int
		ok        bool
	}{
		{"ES256 SHA-256", signing.ES256, 32, true},
		{"ES256 SHA-1", signing.ES256, 20, false},
		{"ES256K SHA-256", signing.ES256K, 32, true},
		{"ES256K SHA-1", signing.ES256K, 20, true},
		{"ES256K none", signing.ES256K, 0, false},
		{"ES256 SHA-512", signing.ES256, 64, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := newKey(t, test.algorithm)
			digest := bytes.Repeat([]byte{7}, test.length)
			signature, err := key.SignDigest(digest)
			if (err == nil) != test.ok {
				t.Fatalf("signing: %v, want it to work: %v", err, test.ok)
			}
			if key.Public().VerifyDigest(digest, signature) != test.ok {
				t.Errorf("verifying: want %v", test.ok)
			}
		})
	}
}

// TestNumbersBeyondTheOrder: s+n must not pass for s. Only for a tiny s does it
// fit into 32 bytes, so the key is made for a signature with the nonce 1 and
// s = 1: r is the x coordinate of the generator, d = (1-e)/r.
func TestNumbersBeyondTheOrder(t *testing.T) {
	for _, test := range []struct {
		algorithm signing.Algorithm
		order, x  string
	}{
		{
			signing.ES256, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
			"6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
		},
		{
			signing.ES256K, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
			"79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
		},
	} {
		t.Run(string(test.algorithm), func(t *testing.T) {
			digest := sha256.Sum256([]byte("any"))
			n, _ := new(big.Int).SetString(test.order, 16)
			r, _ := new(big.Int).SetString(test.x, 16)
			d := new(big.Int).Sub(big.NewInt(1), new(big.Int).SetBytes(digest[:]))
			d.Mul(d, new(big.Int).ModInverse(r, n)).Mod(d, n)
			key, err := scalarKey(t, test.algorithm, fmt.Sprintf("%064x", d))
			if err != nil {
				t.Fatal(err)
			}
			signature := func(s *big.Int) []byte {
				return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
			}
			if !key.Public().VerifyDigest(digest[:], signature(big.NewInt(1))) {
				t.Error("s = 1 is refused")
			}
			if key.Public().VerifyDigest(digest[:], signature(new(big.Int).Add(n, big.NewInt(1)))) {
				t.Error("s = n+1 is accepted")
			}
		})
	}
}

// TestES256RefusesSHA1 has the standard library sign what ours does not.
func TestES256RefusesSHA1(t *testing.T) {
	key := newKey(t, signing.ES256)
	block, _ := pem.Decode(key.PEM())
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("parsed %T", parsed)
	}
	digest := bytes.Repeat([]byte{7}, 20)
	r, s, err := ecdsa.Sign(rand.Reader, private, digest)
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	if key.Public().VerifyDigest(digest, signature) {
		t.Error("accepted")
	}
}

func TestGenerateKeyOfNoAlgorithm(t *testing.T) {
	if _, err := signing.GenerateKey("ES512"); err == nil {
		t.Error("accepted")
	}
}
