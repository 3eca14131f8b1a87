package signing_test

import (
	"bytes"
	"testing"

	"pinseal/signing"
)

func parse(tb testing.TB, raw []byte) *signing.Sealed {
	tb.Helper()
	s, err := signing.Parse(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestRecentSaysWhatVerifySays(t *testing.T) {
	for _, curve := range curves {
		t.Run(curve.name, func(t *testing.T) {
			key, stranger := newKey(t, curve.algorithm), newKey(t, curve.algorithm)
			good := seal(t, key, ordinaryClaims())
			again := seal(t, key, ordinaryClaims()) // the same, but for the signature
			bad := bytes.Clone(good)
			copy(bad[len(bad)-86:], again[len(again)-86:len(again)-43]) // half of either signature
			other := ordinaryClaims()
			other.Sequence++
			moved := seal(t, key, other)
			copy(moved[len(moved)-86:], good[len(good)-86:]) // a good signature, of another message
			var recent signing.Recent
			for range 3 { // before and after it knows them
				for _, raw := range [][]byte{good, again, bad, moved} {
					for _, k := range []*signing.PublicKey{key.Public(), stranger.Public()} {
						want, wantErr := parse(t, raw).Verify(k)
						got, err := recent.Verify(parse(t, raw), k)
						if reasonOf(t, err) != reasonOf(t, wantErr) {
							t.Fatalf("got %v, want %v", err, wantErr)
						}
						if err == nil && (got.Digest() != want.Digest() || got.Topic() != want.Topic() || got.KeyID() != want.KeyID()) {
							t.Errorf("got %v, want %v", got, want)
						}
					}
				}
			}
		})
	}
}

// TestRecentDoesNotVerifyCopies counts allocations: a curve operation has many.
func TestRecentDoesNotVerifyCopies(t *testing.T) {
	key := newKey(t, signing.ES256K)
	s, public := parse(t, seal(t, key, ordinaryClaims())), key.Public()
	var recent signing.Recent
	verify := func() {
		if _, err := recent.Verify(s, public); err != nil {
			t.Fatal(err)
		}
	}
	verify()
	if copied := testing.AllocsPerRun(100, verify); copied > 1 {
		t.Errorf("%v allocations for a copy, at most that of the message wanted", copied)
	}
}

// TestRecentForgets: what comes after it is full is verified, and takes the place of something.
func TestRecentForgets(t *testing.T) {
	key := newKey(t, signing.ES256)
	var recent signing.Recent
	claims := ordinaryClaims()
	for range 3 * signing.RecentSignatures {
		claims.Sequence++
		if _, err := recent.Verify(parse(t, seal(t, key, claims)), key.Public()); err != nil {
			t.Fatal(err)
		}
	}
	if n := recent.Len(); n != signing.RecentSignatures {
		t.Errorf("it remembers %d, at most %d wanted", n, signing.RecentSignatures)
	}
}
