package signing_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"

	"pinseal/signing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k256ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// BenchmarkOpen is everything that a receiver does with a genuine message
// before policy and state; compare it with BenchmarkBare.
func BenchmarkOpen(b *testing.B) {
	for _, curve := range curves {
		b.Run(curve.name, func(b *testing.B) {
			key := newKey(b, curve.algorithm)
			ring, sealed := ringOf(b, key), seal(b, key, ordinaryClaims())
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := signing.Open(sealed, "ledStatus", ring); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCopy is the verification of what was verified before.
func BenchmarkCopy(b *testing.B) {
	key := newKey(b, signing.ES256)
	sealed := parse(b, seal(b, key, ordinaryClaims()))
	var recent signing.Recent
	b.ReportAllocs()
	for b.Loop() {
		if _, err := recent.Verify(sealed, key.Public()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBare is the curve operation alone, by the library underneath.
func BenchmarkBare(b *testing.B) {
	digest := sha256.Sum256([]byte("x"))
	b.Run("P-256", func(b *testing.B) {
		key := newKey(b, signing.ES256)
		block, _ := pem.Decode(key.Public().PEM())
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			b.Fatal(err)
		}
		public, ok := parsed.(*ecdsa.PublicKey)
		if !ok {
			b.Fatalf("parsed %T", parsed)
		}
		r, s := signature(b, key, digest)
		der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if !ecdsa.VerifyASN1(public, digest[:], der) {
				b.Fatal("does not verify")
			}
		}
	})
	b.Run("secp256k1", func(b *testing.B) {
		key := newKey(b, signing.ES256K)
		block, _ := pem.Decode(key.Public().PEM())
		public, err := secp256k1.ParsePubKey(block.Bytes[len(block.Bytes)-65:])
		if err != nil {
			b.Fatal(err)
		}
		rBytes, sBytes := signature(b, key, digest)
		var r, s secp256k1.ModNScalar
		r.SetByteSlice(rBytes)
		s.SetByteSlice(sBytes)
		bare := k256ecdsa.NewSignature(&r, &s)
		for b.Loop() {
			if !bare.Verify(digest[:], public) {
				b.Fatal("does not verify")
			}
		}
	})
}

func signature(b *testing.B, key *signing.PrivateKey, digest [32]byte) (r, s []byte) {
	b.Helper()
	rs, err := key.SignDigest(digest[:])
	if err != nil {
		b.Fatal(err)
	}
	return rs[:32], rs[32:]
}

// BenchmarkRefuse is what a forger's message costs.
func BenchmarkRefuse(b *testing.B) {
	ring := testRing(b)
	for _, v := range readVectors(b) {
		if v.name != "plain-1" && v.name != "unknown-key" && v.name != "json-twice-seq" {
			continue
		}
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := signing.Open(v.message, "ledStatus", ring); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, curve := range curves {
		b.Run(curve.name, func(b *testing.B) {
			key := newKey(b, curve.algorithm)
			for b.Loop() {
				seal(b, key, ordinaryClaims())
			}
		})
	}
}
