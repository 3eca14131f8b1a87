package signing_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/signing"
)

// FuzzParse holds what must be true of whatever bytes come in: no panic, only
// malformed as a reason, and nothing accepted that the standard library does
// not read as the same JSON, or that has a second encoding.
func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f) {
		if len(v.message) < 4000 {
			f.Add(v.message)
		}
	}
	key := parseKey(f, read(f, "internal/vectors/keys/operator.key"))
	ring := testRing(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		parsed, err := signing.Parse(raw)
		if !bytes.Equal(raw, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if reason := reasonOf(t, err); reason != signing.ReasonMalformed || parsed != nil {
				t.Fatalf("%v with %v", err, parsed)
			}
			return
		}
		if len(parsed.KeyID()) != 43 || bytes.ContainsAny(raw, "\r\n=+/ ") || bytes.Count(raw, []byte(".")) != 2 {
			t.Fatalf("parsed %q", raw)
		}
		m, _, err := signing.Open(raw, "", ring)
		if err != nil {
			return
		}
		if !signing.ValidTopic(m.Topic()) || m.Sequence() > signing.MaxSequence || !json.Valid(m.JSON()) {
			t.Fatalf("accepted topic %q, seq %d, msg %q", m.Topic(), m.Sequence(), m.JSON())
		}
		// What can be read can be sealed.
		expires, _ := m.Expires()
		seal(t, key, signing.Claims{
			Topic: m.Topic(), IssuedAt: m.IssuedAt(), Sequence: m.Sequence(), Message: m.JSON(), Expires: expires, Nonce: m.Nonce(),
		})
	})
}

// FuzzClaims lets the fuzzer write the claims and signs them, which it could
// not do itself.
func FuzzClaims(f *testing.F) {
	f.Add(`{"aud":"ledStatus","iat":1763787388.25,"seq":1,"msg":"on"}`)
	f.Add(`{"aud":"a","iat":0,"seq":0,"exp":1.5,"nonce":"n","msg":[{"a":"\ud83d\udca1"}]}`)
	key := parseKey(f, read(f, "internal/vectors/keys/operator.key"))
	ring := testRing(f)
	header := `{"alg":"ES256","kid":"` + key.Public().ID() + `","typ":"pinseal+jwt"}`
	f.Fuzz(func(t *testing.T, claims string) {
		m, _, err := signing.Open(signedParts(t, key, header, claims), "", ring)
		if err != nil {
			reasonOf(t, err)
			return
		}
		var std struct {
			Aud   string
			Seq   uint64
			Nonce string
			Msg   json.RawMessage
		}
		if err := json.Unmarshal([]byte(claims), &std); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v: %q", err, claims)
		}
		if std.Aud != m.Topic() || std.Seq != m.Sequence() || std.Nonce != m.Nonce() || !bytes.Equal(std.Msg, m.JSON()) {
			t.Fatalf("read %q, %d, %q, %q of %q", m.Topic(), m.Sequence(), m.Nonce(), m.JSON(), claims)
		}
	})
}

// FuzzKeys: what parses is written and parsed again as the same key.
func FuzzKeys(f *testing.F) {
	for _, name := range []string{"operator", "sensor"} {
		f.Add(read(f, "internal/vectors/keys/"+name+".key"))
		f.Add(read(f, "testdata/signers/"+name+".pem"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := signing.ParsePrivateKey(data); err == nil {
			again := parseKey(t, key.PEM())
			if again.Public().ID() != key.Public().ID() || !bytes.Equal(again.PEM(), key.PEM()) {
				t.Fatal("another key when written and read")
			}
		}
		keys, err := signing.ParsePublicKeys(data)
		if err != nil {
			return
		}
		for _, key := range keys {
			again, err := signing.ParsePublicKeys(key.PEM())
			if err != nil || len(again) != 1 || again[0].ID() != key.ID() || again[0].Algorithm() != key.Algorithm() {
				t.Fatal("another key when written and read")
			}
		}
	})
}

// TestFuzzSeeds fails when a fuzz target has lost its seeds, which go test
// would not mind.
func TestFuzzSeeds(t *testing.T) {
	for line := range strings.Lines(string(read(t, "fuzz_test.go"))) {
		target, ok := strings.CutPrefix(line, "func Fuzz")
		if !ok {
			continue
		}
		target, _, _ = strings.Cut(target, "(")
		seeds, err := filepath.Glob("testdata/fuzz/Fuzz" + target + "/*")
		if err != nil || len(seeds) < 3 {
			t.Errorf("Fuzz%s has %d seeds in testdata/fuzz, want 3 or more", target, len(seeds))
		}
	}
}
