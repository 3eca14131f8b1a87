package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/c2sp/wycheproof"

	"pinseal/signing"
)

func TestVectors(t *testing.T) {
	t.Parallel()
	r, err := judge(wycheproof.TestVectors, verifyDigest)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range r.wrong {
		t.Error(line)
	}
	// No file of vectors may fall away in silence.
	if r.vectors < 2393 {
		t.Errorf("only %d vectors", r.vectors)
	}
}

// A verifier with any of the mistakes that the vectors are there for is found out.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	n := curveOf(t, "ecdsa_secp256r1_sha256_p1363_test.json").order
	tests := []struct {
		name   string
		verify verifier
	}{
		{"accepts everything", func(*signing.PublicKey, []byte, []byte) bool { return true }},
		{"accepts nothing", func(*signing.PublicKey, []byte, []byte) bool { return false }},
		{"overflows at 256 bits", func(k *signing.PublicKey, digest, sig []byte) bool {
			if half := len(sig) / 2; half > 32 {
				sig = slices.Concat(sig[half-32:half], sig[len(sig)-32:])
			}
			return k.VerifyDigest(digest, sig)
		}},
		{"fills a short signature up", func(k *signing.PublicKey, digest, sig []byte) bool {
			if half := len(sig) / 2; half < 32 {
				filled := make([]byte, 64)
				copy(filled[32-half:], sig[:half])
				copy(filled[64-half:], sig[half:])
				sig = filled
			}
			return k.VerifyDigest(digest, sig)
		}},
		{"refuses a high s", func(k *signing.PublicKey, digest, sig []byte) bool {
			high := len(sig) == 64 && k.Algorithm() == signing.ES256 && bytes.Compare(sig[32:], twin(sig, n)[32:]) > 0
			return !high && k.VerifyDigest(digest, sig)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := judge(wycheproof.TestVectors, tt.verify)
			if err != nil || len(r.wrong) == 0 {
				t.Errorf("%d wrong, %v", len(r.wrong), err)
			}
		})
	}
}

func curveOf(t *testing.T, file string) curve {
	t.Helper()
	c, ok := ecdsaFiles()[file]
	if !ok {
		t.Fatalf("no file %s", file)
	}
	return c
}

// What newer vectors may bring stops the count rather than be passed over.
func TestUndecided(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]ecdsaVector{
		"flag":   {Flags: []string{"ValidSignature", "NewBug"}, Result: "valid"},
		"result": {Flags: []string{"ValidSignature"}, Result: "acceptable"},
	} {
		if _, err := v.want(); err == nil || !strings.Contains(err.Error(), "no decision about the "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := digestOf("MD5", nil); err == nil {
		t.Error("a digest of MD5")
	}
	short := fstest.MapFS{"file": {Data: []byte(`{"numberOfTests": 2, "testGroups": [{"tests": [{"tcId": 1}]}]}`)}}
	if _, err := read[jwsGroup](short, "file"); err == nil {
		t.Error("a file with fewer vectors than it says")
	}
}

// The exceptions for JWS are about these two vectors and no more.
func TestExceptionsAreUsed(t *testing.T) {
	t.Parallel()
	groups, err := read[jwsGroup](wycheproof.TestVectors, jwsFile)
	if err != nil {
		t.Fatal(err)
	}
	var used []int
	p256 := 0
	for _, g := range groups {
		key, err := parseJWK(g.Private)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Tests {
			if key != nil {
				p256++
			}
			if key != nil && keyDecides(v.Comment) {
				used = append(used, v.ID)
			}
		}
	}
	if !slices.Equal(used, []int{354, 356}) || p256 < 41 {
		t.Errorf("used for %v; %d vectors of P-256", used, p256)
	}
}
