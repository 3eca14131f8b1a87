package token_test

import (
	"os"
	"testing"
	"time"

	"pinseal/broker/token"

	"github.com/go-jose/go-jose/v4"
)

// FuzzToken: whatever a client sends, without one of the issuer's keys nobody is let in.
func FuzzToken(f *testing.F) {
	v := verifier(&token.Config{Issuer: issuer, Audience: audience, Keys: keySet(f, newKey(f, jose.ES256, "k"), newKey(f, jose.RS256, ""))})
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := v.Check(t.Context(), "", text); err == nil {
			t.Error("was let in")
		}
	})
}

// FuzzKeySet: a set that was read has keys, and is searched without harm.
func FuzzKeySet(f *testing.F) {
	text := newKey(f, jose.ES256, "k").sign(f, good(map[string]any{"exp": time.Now().Add(time.Hour).Unix()}), nil)
	f.Fuzz(func(t *testing.T, document []byte) {
		set, err := token.ParseKeySet(document)
		if err != nil {
			return
		}
		if _, err := verifier(&token.Config{Issuer: issuer, Audience: audience, Keys: set}).Check(t.Context(), "", text); err == nil {
			t.Error("was let in by a key made up")
		}
	})
}

// TestFuzzSeeds: a fuzz target whose seeds are gone tests nothing.
func TestFuzzSeeds(t *testing.T) {
	for _, target := range []string{"FuzzToken", "FuzzKeySet"} {
		if seeds, err := os.ReadDir("testdata/fuzz/" + target); err != nil || len(seeds) < 3 {
			t.Errorf("%s: %d seeds, %v", target, len(seeds), err)
		}
	}
}
