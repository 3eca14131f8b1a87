package signing_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
)

// TestEveryBitFlip changes each bit of sealed messages in turn. What still
// parses must not verify: the only other valid message of this header and these
// claims is the twin signature, many bits away.
func TestEveryBitFlip(t *testing.T) {
	for _, curve := range curves {
		t.Run(curve.name, func(t *testing.T) {
			key := newKey(t, curve.algorithm)
			ring := ringOf(t, key)
			sealed := seal(t, key, ordinaryClaims())
			for i := range sealed {
				for bit := range 8 {
					changed := bytes.Clone(sealed)
					changed[i] ^= 1 << bit
					if _, _, err := signing.Open(changed, "", ring); reasonOf(t, err) == "" {
						t.Fatalf("accepted with bit %d of byte %d changed", bit, i)
					}
				}
			}
		})
	}
}

func TestEveryTruncation(t *testing.T) {
	key := newKey(t, signing.ES256)
	ring := ringOf(t, key)
	sealed := seal(t, key, ordinaryClaims())
	for i := range sealed {
		if _, _, err := signing.Open(sealed[:i], "", ring); reasonOf(t, err) != signing.ReasonMalformed {
			t.Errorf("cut at %d: %v, want malformed", i, err)
		}
		if _, _, err := signing.Open(sealed[i:], "", ring); i > 0 && reasonOf(t, err) == "" {
			t.Errorf("accepted without the first %d bytes", i)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	deep := strings.Repeat("[", 16) + strings.Repeat("]", 16)
	for _, curve := range curves {
		key := newKey(t, curve.algorithm)
		ring := ringOf(t, key)
		for _, claims := range []signing.Claims{
			ordinaryClaims(),
			{Topic: "a/b", IssuedAt: time.Unix(0, 0), Message: []byte(`0`)},
			{Topic: "ü \"quoted\" \\", IssuedAt: time.UnixMicro(1), Sequence: signing.MaxSequence, Message: []byte(` { "a" : 1 } `)},
			{Topic: strings.Repeat("t", 256), IssuedAt: issued, Expires: issued.Add(time.Microsecond), Nonce: "n", Message: []byte(deep)},
			{Topic: "t", IssuedAt: issued.Add(999 * time.Nanosecond), Nonce: "\u2028<>&", Message: []byte(`"` + strings.Repeat("x", 48000) + `"`)},
		} {
			t.Run(fmt.Sprintf("%s %.20q", curve.name, claims.Topic), func(t *testing.T) {
				sealed := seal(t, key, claims)
				m, signer, err := signing.Open(sealed, claims.Topic, ring)
				if err != nil {
					t.Fatal(err)
				}
				expires, _ := m.Expires()
				got := signing.Claims{
					Topic: m.Topic(), IssuedAt: m.IssuedAt(), Sequence: m.Sequence(),
					Message: m.JSON(), Expires: expires, Nonce: m.Nonce(),
				}
				if !got.IssuedAt.Equal(claims.IssuedAt.Truncate(time.Microsecond)) || !got.Expires.Equal(claims.Expires) ||
					!bytes.Equal(got.Message, bytes.TrimSpace(claims.Message)) || signer.Key.ID() != m.KeyID() {
					t.Errorf("read %+v, sealed %+v", got, claims)
				}
				// What was read and sealed again are the same bytes, but for
				// white space around msg.
				claims.Message = bytes.TrimSpace(claims.Message)
				if again := seal(t, key, got); !bytes.Equal(again, seal(t, key, claims)) {
					t.Errorf("sealed again\n%s\nnot\n%s", again, sealed)
				}
			})
		}
	}
}

func TestSealRefuses(t *testing.T) {
	key := newKey(t, signing.ES256)
	for _, test := range []struct {
		name   string
		change func(*signing.Claims)
	}{
		{"no topic", func(c *signing.Claims) { c.Topic = "" }},
		{"wildcard", func(c *signing.Claims) { c.Topic = "a/#" }},
		{"topic not UTF-8", func(c *signing.Claims) { c.Topic = "\xff" }},
		{"long topic", func(c *signing.Claims) { c.Topic = strings.Repeat("t", 257) }},
		{"no time", func(c *signing.Claims) { c.IssuedAt = time.Time{} }},
		{"before 1970", func(c *signing.Claims) { c.IssuedAt = time.Unix(-1, 500_000_000) }},
		{"sequence too high", func(c *signing.Claims) { c.Sequence = signing.MaxSequence + 1 }},
		{"no message", func(c *signing.Claims) { c.Message = nil }},
		{"null", func(c *signing.Claims) { c.Message = []byte("null") }},
		{"not JSON", func(c *signing.Claims) { c.Message = []byte("on") }},
		{"two values", func(c *signing.Claims) { c.Message = []byte("1 2") }},
		{"smuggled member", func(c *signing.Claims) { c.Message = []byte(`1,"nonce":"x"`) }},
		{"duplicate names", func(c *signing.Claims) { c.Message = []byte(`{"a":1,"a":2}`) }},
		{"lone surrogate", func(c *signing.Claims) { c.Message = []byte(`"\ud800"`) }},
		{"message not UTF-8", func(c *signing.Claims) { c.Message = []byte("\"\xff\"") }},
		{"too deep", func(c *signing.Claims) { c.Message = []byte(strings.Repeat("[", 17) + strings.Repeat("]", 17)) }},
		{"too long", func(c *signing.Claims) { c.Message = []byte(`"` + strings.Repeat("x", 50000) + `"`) }},
		{"expires at once", func(c *signing.Claims) { c.Expires = c.IssuedAt }},
		{"expires before", func(c *signing.Claims) { c.Expires = c.IssuedAt.Add(-time.Second) }},
		{"long nonce", func(c *signing.Claims) { c.Nonce = strings.Repeat("n", 65) }},
		{"nonce not UTF-8", func(c *signing.Claims) { c.Nonce = "\xff" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			claims := ordinaryClaims()
			test.change(&claims)
			if sealed, err := signing.Seal(key, claims); err == nil {
				t.Errorf("sealed %s", sealed)
			}
		})
	}
}

// TestVerifyWithAnotherKey shows that Verify itself checks what Lookup usually
// has: that the key is the one the message names.
func TestVerifyWithAnotherKey(t *testing.T) {
	key := newKey(t, signing.ES256)
	for _, other := range []*signing.PrivateKey{newKey(t, signing.ES256), newKey(t, signing.ES256K)} {
		parsed, err := signing.Parse(seal(t, key, ordinaryClaims()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsed.Verify(other.Public()); reasonOf(t, err) != signing.ReasonBadSignature {
			t.Errorf("with a key for %s: %v, want bad-signature", other.Public().Algorithm(), err)
		}
	}
}

// TestVerifyWithTheKeyUnderAnotherName: what Verify returns says which key
// signed, so a message by the key that names another one is refused too.
func TestVerifyWithTheKeyUnderAnotherName(t *testing.T) {
	key := newKey(t, signing.ES256)
	header := `{"alg":"ES256","kid":"` + newKey(t, signing.ES256).Public().ID() + `","typ":"pinseal+jwt"}`
	parsed, err := signing.Parse(signedParts(t, key, header, `{"aud":"a","iat":0,"seq":0,"msg":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsed.Verify(key.Public()); reasonOf(t, err) != signing.ReasonBadSignature {
		t.Errorf("%v, want bad-signature", err)
	}
}

// TestDigestNamesTheMessage: the twin has the digest of the first, another
// message has not.
func TestDigestNamesTheMessage(t *testing.T) {
	ring := testRing(t)
	digests := map[string][32]byte{}
	for _, v := range readVectors(t) {
		if v.fields["expect"] == "ok" {
			m, _, err := signing.Open(v.message, "", ring)
			if err != nil {
				t.Fatal(err)
			}
			digests[v.name] = m.Digest()
		}
	}
	if digests["ok-es256"] != digests["ok-twin-es256"] || digests["ok-es256k"] != digests["ok-twin-es256k"] {
		t.Error("a twin has another digest")
	}
	if digests["ok-es256"] == digests["ok-white-space"] {
		t.Error("other bytes have the same digest")
	}
}

func TestCheckFreshWindows(t *testing.T) {
	key := newKey(t, signing.ES256)
	claims := ordinaryClaims()
	m, _, err := signing.Open(seal(t, key, claims), "", ringOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	hour := signing.Window{MaxAge: time.Hour, MaxAhead: time.Minute}
	for _, test := range []struct {
		name   string
		after  time.Duration
		window signing.Window
		want   string
	}{
		{"at once", 0, signing.Window{}, ""},
		{"edge of age", time.Hour, hour, ""},
		{"beyond age", time.Hour + time.Second, hour, "stale: sealed 3601 s before now, at most 3600 s allowed"},
		{"edge of ahead", -time.Minute, hour, ""},
		{"beyond ahead", -time.Minute - 250*time.Millisecond, hour, "future: sealed 60.25 s ahead of now, at most 60 s allowed"},
		{"zero window", time.Microsecond, signing.Window{}, "stale: sealed 0 s before now, at most 0 s allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if err := m.CheckFresh(claims.IssuedAt.Add(test.after), test.window); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// TestCheckFreshFarApart: a difference beyond what a duration holds must not
// wrap into the window.
func TestCheckFreshFarApart(t *testing.T) {
	key := newKey(t, signing.ES256)
	m, _, err := signing.Open(seal(t, key, ordinaryClaims()), "", ringOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	for year, want := range map[int]signing.Reason{1: signing.ReasonFuture, 1677: signing.ReasonFuture, 2400: signing.ReasonStale, 9999: signing.ReasonStale} {
		if err := m.CheckFresh(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), commandWindow); reasonOf(t, err) != want {
			t.Errorf("in the year %d: %v, want %s", year, err, want)
		}
	}
}

// TestSecondsAreWordedShortly: no rounding of a fraction shows.
func TestSecondsAreWordedShortly(t *testing.T) {
	key := newKey(t, signing.ES256)
	m, _, err := signing.Open(seal(t, key, ordinaryClaims()), "", ringOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	err = m.CheckFresh(m.IssuedAt().Add(1118*time.Millisecond), signing.Window{MaxAge: time.Second})
	if err == nil || !strings.Contains(err.Error(), "sealed 1.118 s before now, at most 1 s allowed") {
		t.Errorf("got %v", err)
	}
}

func TestValidTopic(t *testing.T) {
	for topic, want := range map[string]bool{
		"a": true, "/": true, "a/b/c": true, "$SYS/x": true, " ": true, "ü": true, strings.Repeat("t", 256): true,
		"": false, "+": false, "#": false, "a/+": false, "a+b": false, "a\x00": false, "a\n": false, "a\x7f": false, "a\u0080": false,
		"\xff": false, "\xed\xa0\x80": false, strings.Repeat("t", 257): false,
	} {
		if got := signing.ValidTopic(topic); got != want {
			t.Errorf("%q: %v, want %v", topic, got, want)
		}
	}
}

func TestReasons(t *testing.T) {
	reasons := signing.Reasons()
	want := strings.Fields("malformed unknown-key bad-signature wrong-topic not-permitted stale future clock-unsynchronised " +
		"bad-command replay duplicate equivocation retained rate-limited hardware applied")
	if len(reasons) != len(want) || !slices.EqualFunc(reasons, want, func(r signing.Reason, s string) bool { return string(r) == s }) {
		t.Errorf("reasons %v, want %v", reasons, want)
	}
	err := signing.Refuse(signing.ReasonStale, "sealed %d s before now", 93)
	if err.Error() != "stale: sealed 93 s before now" {
		t.Errorf("error %q", err)
	}
	if bare := (&signing.RefusedError{Reason: signing.ReasonReplay}); bare.Error() != "replay" {
		t.Errorf("error %q", bare)
	}
	if _, ok := errors.AsType[*signing.RefusedError](fmt.Errorf("opening: %w", err)); !ok {
		t.Error("a wrapped refusal is not found")
	}
}

// TestRefusalsHoldNoPayload feeds every vector and looks for pieces of the
// content in the error, which goes to logs.
func TestRefusalsHoldNoPayload(t *testing.T) {
	ring := testRing(t)
	for _, v := range readVectors(t) {
		m, _, err := signing.Open(v.message, v.fields["topic"], ring)
		if err == nil {
			err = m.CheckFresh(micros(t, v.fields["now"]), commandWindow)
		}
		if err == nil {
			continue
		}
		for _, piece := range []string{"ledStatus", `"on"`, "eyJ", "state", "HS256", "x5c"} {
			if strings.Contains(err.Error(), piece) {
				t.Errorf("%s: the error %q holds %q of the message", v.name, err, piece)
			}
		}
	}
}

// TestRefusingIsCheap bounds what an attacker's message costs before any
// curve operation.
func TestRefusingIsCheap(t *testing.T) {
	ring := testRing(t)
	for _, v := range readVectors(t) {
		if v.fields["expect"] != "malformed" && v.fields["expect"] != "unknown-key" || len(v.message) > 4000 {
			continue
		}
		if n := testing.AllocsPerRun(10, func() { _, _, _ = signing.Open(v.message, "", ring) }); n > 48 {
			t.Errorf("%s: %v allocations", v.name, n)
		}
	}
}
