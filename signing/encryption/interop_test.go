package encryption_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/signing/encryption"
)

// The jose command, in C on OpenSSL, opens what this package makes.
func TestJoseOpens(t *testing.T) {
	p := testParties(t)
	dir := t.TempDir()
	private, shared := filepath.Join(dir, "private.jwk"), filepath.Join(dir, "shared.jwk")
	write(t, private, []byte(joseKey(t, "testdata/keys/operator.key")))
	write(t, shared, []byte(p.group[0].JWK()))
	for _, test := range []struct {
		name, key string
		to        []encryption.Recipient
	}{
		{"public", private, []encryption.Recipient{p.operator[0].Public()}},
		{"shared", shared, []encryption.Recipient{p.group[0]}},
		{"several, public", private, []encryption.Recipient{p.group[0], p.operator[0].Public()}},
		{"several, shared", shared, []encryption.Recipient{p.operator[0].Public(), p.group[0]}},
	} {
		t.Run(test.name, func(t *testing.T) {
			msg := encrypt(t, test.to, ordinary(), `{"state":"ON"}`)
			if out := run(t, string(msg), "jose", "jwe", "dec", "-i", "-", "-k", test.key, "-O", "-"); strings.TrimRight(out, " ") != `{"state":"ON"}` {
				t.Errorf("jose reads %q", out)
			}
		})
	}
}

// TestJoseEncrypts: this package opens what the jose command makes, in both serialisations.
func TestJoseEncrypts(t *testing.T) {
	p := testParties(t)
	dir := t.TempDir()
	public, shared, content := filepath.Join(dir, "public.jwk"), filepath.Join(dir, "shared.jwk"), filepath.Join(dir, "content.json")
	write(t, public, []byte(p.operator[1].Public().JWK()))
	write(t, shared, []byte(p.group[0].JWK()))
	write(t, content, []byte(" {\"state\":\"ON\"}\n"))
	b := ordinary()
	template := `{"protected":{"aud":"ledStatus","enc":"A256GCM","iss":"` + b.KeyID + `","seq":1763787388250000,"typ":"pinseal+jwe"}}`
	toPublic := []string{"-r", `{"header":{"alg":"ECDH-ES+A256KW","kid":"` + p.operator[1].Public().ID() + `"}}`, "-k", public}
	toShared := []string{"-r", `{"header":{"alg":"A256KW","kid":"` + p.group[0].ID() + `"}}`, "-k", shared}
	for name, recipients := range map[string][]string{"public": toPublic, "shared": toShared, "several": append(toPublic, toShared...)} {
		t.Run(name, func(t *testing.T) {
			msg := run(t, "", "jose", append([]string{"jwe", "enc", "-i", template, "-I", content}, recipients...)...)
			if got, err := p.keys().Decrypt([]byte(msg), b); err != nil || string(got) != `{"state":"ON"}` {
				t.Errorf("read as %s, %v: %s", got, err, msg)
			}
		})
	}
}

// TestJoseThumbprints: a kid is what everybody computes.
func TestJoseThumbprints(t *testing.T) {
	p := testParties(t)
	for jwk, want := range map[string]string{p.operator[0].Public().JWK(): p.operator[0].Public().ID(), p.group[0].JWK(): p.group[0].ID()} {
		if got := run(t, jwk, "jose", "jwk", "thp", "-i", "-"); strings.TrimSpace(got) != want {
			t.Errorf("thumbprint %s, want %s", got, want)
		}
	}
}

// TestPython: python3-cryptography's primitives, put together as RFC 7518 says, open a message.
func TestPython(t *testing.T) {
	p := testParties(t)
	for _, test := range []struct {
		name, kind, key string
		to              encryption.Recipient
	}{
		{"P-256", "private", "testdata/keys/operator.key", p.operator[0].Public()},
		{"X25519", "private", "testdata/keys/x25519.key", p.curve.Public()},
		{"shared", "shared", p.group[0].JWK(), p.group[0]},
	} {
		t.Run(test.name, func(t *testing.T) {
			msg := encrypt(t, []encryption.Recipient{test.to}, ordinary(), `"on"`)
			var read struct {
				Header  encryptionHeader
				Content string
			}
			out := run(t, string(msg), "/usr/bin/python3", "testdata/peer.py", test.kind, test.key)
			unmarshal(t, []byte(out), &read)
			if strings.TrimRight(read.Content, " ") != `"on"` || read.Header != (encryptionHeader{"ledStatus", "A256GCM", ordinary().KeyID, ordinary().Sequence, "pinseal+jwe"}) {
				t.Errorf("python reads %s", out)
			}
		})
	}
}

// TestPythonEncrypts: this package opens what python3-cryptography makes for an X25519 key, which the jose command cannot.
func TestPythonEncrypts(t *testing.T) {
	p := testParties(t)
	public := filepath.Join(t.TempDir(), "public.pem")
	write(t, public, p.curve.Public().PEM())
	b := ordinary()
	order, err := json.Marshal(map[string]any{
		"kid": p.curve.Public().ID(), "content": ` {"state":"ON"}`,
		"header": map[string]any{"aud": b.Topic, "enc": "A256GCM", "iss": b.KeyID, "seq": b.Sequence, "typ": "pinseal+jwe"},
	})
	if err != nil {
		t.Fatal(err)
	}
	msg := run(t, string(order), "/usr/bin/python3", "testdata/peer.py", "x25519", public)
	if got, err := p.keys().Decrypt([]byte(msg), b); err != nil || string(got) != `{"state":"ON"}` {
		t.Errorf("read as %s, %v: %s", got, err, msg)
	}
}

type encryptionHeader struct {
	Aud, Enc, Iss string
	Seq           uint64
	Typ           string
}

// joseKey is the first private key of a file as a JWK.
func joseKey(t *testing.T, file string) string {
	t.Helper()
	out := run(t, "", "/usr/bin/python3", "testdata/peer.py", "jwk", file)
	if !json.Valid([]byte(out)) {
		t.Fatalf("peer.py printed %s", out)
	}
	return out
}
