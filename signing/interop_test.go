package signing_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/signing"
)

const peerClaims = `{"aud":"ledStatus","iat":1763787388.25,"seq":7,"msg":{"state":"ON"}}`

func checkPeerMessage(t *testing.T, sealed string, key *signing.PrivateKey) {
	t.Helper()
	m, _, err := signing.Open([]byte(sealed), "ledStatus", ringOf(t, key))
	if err != nil {
		t.Fatalf("%v: %s", err, sealed)
	}
	var msg map[string]string
	if err := json.Unmarshal(m.JSON(), &msg); err != nil || msg["state"] != "ON" || m.Sequence() != 7 || !m.IssuedAt().Equal(issued) {
		t.Errorf("read %s, %d, %s", m.JSON(), m.Sequence(), m.IssuedAt())
	}
}

func TestPyJWT(t *testing.T) {
	for _, curve := range curves {
		t.Run(curve.name, func(t *testing.T) {
			file, key := opensslKey(t, curve.openssl)
			// Not deterministic: several, so that low and high s are among them.
			for range 4 {
				checkPeerMessage(t, peer(t, "", "seal", file, key.Public().ID(), peerClaims), key)
			}
			public := filepath.Join(t.TempDir(), "public.pem")
			write(t, public, key.Public().PEM())
			var claims struct {
				Aud string
				Seq uint64
				Msg string
			}
			out := peer(t, string(seal(t, key, ordinaryClaims())), "verify", public, "ledStatus")
			if err := json.Unmarshal([]byte(out), &claims); err != nil || claims.Aud != "ledStatus" || claims.Msg != "on" || claims.Seq != 1763787388250000 {
				t.Errorf("PyJWT reads %s", out)
			}
		})
	}
}

// TestJose uses the jose command, in C on OpenSSL: an implementation that
// shares nothing with PyJWT but the standard. Its version 11 knows no ES256K,
// though it can compute the thumbprint of such a key.
func TestJose(t *testing.T) {
	file, key := opensslKey(t, "prime256v1")
	dir := t.TempDir()
	jwk, payload := filepath.Join(dir, "key.jwk"), filepath.Join(dir, "claims.json")
	write(t, jwk, []byte(peer(t, "", "jwk", file)))
	write(t, payload, []byte(peerClaims))
	template := fmt.Sprintf(`{"protected":{"alg":"ES256","kid":%q,"typ":"pinseal+jwt"}}`, key.Public().ID())
	// Not deterministic: several, so that low and high s are among them.
	for range 4 {
		checkPeerMessage(t, run(t, "", "jose", "jws", "sig", "-I", payload, "-k", jwk, "-s", template, "-c", "-o", "-"), key)
	}
	sealed := seal(t, key, ordinaryClaims())
	out := run(t, string(sealed), "jose", "jws", "ver", "-i", "-", "-k", jwk, "-O", "-")
	if !strings.Contains(out, `"msg":"on"`) {
		t.Errorf("jose reads %s", out)
	}
}

func TestJoseThumbprint(t *testing.T) {
	for _, curve := range curves {
		t.Run(curve.name, func(t *testing.T) {
			file, key := opensslKey(t, curve.openssl)
			jwk := peer(t, "", "jwk", file)
			if thumbprint := run(t, jwk, "jose", "jwk", "thp", "-i", "-"); strings.TrimSpace(thumbprint) != key.Public().ID() {
				t.Errorf("thumbprint %s, want %s", thumbprint, key.Public().ID())
			}
		})
	}
}
