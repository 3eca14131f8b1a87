package token_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/broker/token"

	"github.com/go-jose/go-jose/v4"
)

// now is when these tests take place, where they have no clock of their own.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const (
	issuer   = "https://id.example/realms/home"
	audience = "mqtt"
)

// key is one of the issuer's.
type key struct {
	algorithm jose.SignatureAlgorithm
	id        string
	private   crypto.Signer
}

func newKey(tb testing.TB, algorithm jose.SignatureAlgorithm, id string) key {
	tb.Helper()
	k := key{algorithm, id, nil}
	var err error
	switch algorithm {
	case jose.ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		k.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		k.private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jose.EdDSA:
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// sign makes a token of claims, with header members beside alg and kid.
func (k key) sign(tb testing.TB, claims map[string]any, header map[jose.HeaderKey]any) string {
	tb.Helper()
	options := &jose.SignerOptions{ExtraHeaders: header}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.algorithm, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}, options)
	if err != nil {
		tb.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	return k.signBytes(tb, signer, payload)
}

func (key) signBytes(tb testing.TB, signer jose.Signer, payload []byte) string {
	tb.Helper()
	signed, err := signer.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// document is a key set as the issuer publishes it.
func document(tb testing.TB, keys ...key) []byte {
	tb.Helper()
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func keySet(tb testing.TB, keys ...key) *token.KeySet {
	tb.Helper()
	set, err := token.ParseKeySet(document(tb, keys...))
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// good are the claims of a token that would do for an hour.
func good(change map[string]any) map[string]any {
	claims := map[string]any{"iss": issuer, "aud": audience, "sub": "alice", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix()}
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func verifier(c *token.Config) *token.Verifier {
	v := token.New(token.Options{Now: func() (time.Time, bool) { return now, true }, Log: slog.New(slog.DiscardHandler)})
	v.Set(c)
	return v
}

func TestEveryAlgorithm(t *testing.T) {
	keys := map[string]key{"rsa": newKey(t, jose.RS256, "rsa")}
	for _, a := range []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA} {
		keys[string(a)] = newKey(t, a, string(a))
	}
	var all []key
	for _, k := range keys {
		all = append(all, k)
	}
	v := verifier(&token.Config{Issuer: issuer, Audience: audience, Keys: keySet(t, all...)})
	for _, name := range token.Algorithms() {
		k, found := keys[name]
		if !found {
			k = keys["rsa"]
			k.algorithm = jose.SignatureAlgorithm(name)
		}
		text := k.sign(t, good(nil), nil)
		if !token.Plausible([]byte(text)) {
			t.Errorf("%s: not taken for a token", name)
		}
		grant, err := v.Check(t.Context(), "alice", text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if grant.Identity != "alice" || !grant.Expires.Equal(now.Add(time.Hour)) || grant.Valid() != nil || grant.Watched() {
			t.Errorf("%s: granted %+v, %v", name, grant, grant.Valid())
		}
	}
}

func TestClaims(t *testing.T) {
	k := newKey(t, jose.ES256, "k")
	thief := newKey(t, jose.ES256, "k")
	config := token.Config{Issuer: issuer, Audience: audience, Keys: keySet(t, k)}
	device := config
	device.IdentityClaim = "device"
	onlyRSA := config
	onlyRSA.Algorithms = []string{"RS256"}
	for _, tc := range []struct {
		name     string
		config   token.Config
		key      key
		username string
		change   map[string]any
		header   map[jose.HeaderKey]any
		want     string // "": good
	}{
		{"as it should be", config, k, "alice", nil, nil, ""},
		{"no user name", config, k, "", nil, nil, ""},
		{"another's user name", config, k, "bob", nil, nil, `token is of alice, the user name is "bob"`},
		{"one of several audiences", config, k, "", map[string]any{"aud": []string{"x", audience}}, nil, ""},
		{"another audience", config, k, "", map[string]any{"aud": "other"}, nil, `token is for "other"`},
		{"an audience that begins alike", config, k, "", map[string]any{"aud": audience + "x"}, nil, "token is for"},
		{"audiences in one string", config, k, "", map[string]any{"aud": "x " + audience}, nil, "token is for"},
		{"no audience", config, k, "", map[string]any{"aud": nil}, nil, "token is for"},
		{"audience is a number", config, k, "", map[string]any{"aud": 1}, nil, "malformed"},
		{"another issuer", config, k, "", map[string]any{"iss": issuer + "/"}, nil, "token is from the issuer"},
		{"no issuer", config, k, "", map[string]any{"iss": nil}, nil, "token is from the issuer"},
		{"just expired", config, k, "", map[string]any{"exp": now.Unix()}, nil, "expired"},
		{"a moment left", config, k, "", map[string]any{"exp": float64(now.Unix()) + 0.5}, nil, ""},
		{"never expires", config, k, "", map[string]any{"exp": nil}, nil, "never expires"},
		{"expires null", config, k, "", map[string]any{"exp": json.RawMessage("null")}, nil, "never expires"},
		{"expires in milliseconds", config, k, "", map[string]any{"exp": now.UnixMilli()}, nil, "malformed"},
		{"expires after all time", config, k, "", map[string]any{"exp": 1e300}, nil, "malformed"},
		{"expires before all time", config, k, "", map[string]any{"exp": -1}, nil, "malformed"},
		{"expires as text", config, k, "", map[string]any{"exp": "4102444800"}, nil, "malformed"},
		{"begins soon", config, k, "", map[string]any{"nbf": now.Unix() + 5}, nil, ""},
		{"begins later", config, k, "", map[string]any{"nbf": now.Unix() + 6}, nil, "not valid yet"},
		{"no name", config, k, "", map[string]any{"sub": nil}, nil, "claim sub names no client"},
		{"a name no client can have", config, k, "", map[string]any{"sub": "a:b"}, nil, "claim sub names no client"},
		{"a name with a wildcard", config, k, "", map[string]any{"sub": "+"}, nil, "claim sub names no client"},
		{"a name that is a list", config, k, "", map[string]any{"sub": []string{"alice"}}, nil, "claim sub names no client"},
		{"a name that is empty", config, k, "", map[string]any{"sub": ""}, nil, "claim sub names no client"},
		{"named by another claim", device, k, "alice", map[string]any{"sub": "x|y", "device": "alice"}, nil, ""},
		{"named by a claim that is not there", device, k, "", nil, nil, "claim device names no client"},
		{"a thief's key of the same name", config, thief, "", nil, nil, "wrong signature"},
		{"an unknown key", config, key{k.algorithm, "other", k.private}, "", nil, nil, "unknown key"},
		{"no key named where there is one", config, key{k.algorithm, "", k.private}, "", nil, nil, ""},
		{"key name is a path", config, key{k.algorithm, "../../../dev/null", k.private}, "", nil, nil, "unknown key"},
		{"key name is a query", config, key{k.algorithm, "x' UNION SELECT 'k", k.private}, "", nil, nil, "unknown key"},
		{"algorithm that is not allowed", onlyRSA, k, "", nil, nil, "algorithm that is not allowed"},
		{"an access token", config, k, "", nil, map[jose.HeaderKey]any{"typ": "at+jwt"}, ""},
		{"a sealed message", config, k, "", nil, map[jose.HeaderKey]any{"typ": "pinseal+jwt"}, "another type"},
		{"type is a number", config, k, "", nil, map[jose.HeaderKey]any{"typ": 1}, "another type"},
		{"demands", config, k, "", nil, map[jose.HeaderKey]any{"crit": []string{"exp"}}, "demands in its header"},
		{"keys elsewhere", config, thief, "", nil, map[jose.HeaderKey]any{"jku": "https://thief.example/jwks"}, "wrong signature"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := tc.key.sign(t, good(tc.change), tc.header)
			_, err := verifier(&tc.config).Check(t.Context(), tc.username, text)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), text[len(text)-20:]) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

// segment encodes a part of a token.
func segment(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// Tokens that nobody's library makes.
func TestForged(t *testing.T) {
	k := newKey(t, jose.RS256, "k")
	config := &token.Config{Issuer: issuer, Audience: audience, Keys: keySet(t, k)}
	honest := k.sign(t, good(nil), nil)
	parts := strings.Split(honest, ".")
	claims, err := json.Marshal(good(nil))
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	hmac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: k.private, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	thief := newKey(t, jose.RS256, "k")
	embedding, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: thief.private}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":                 "",
		"two parts":             parts[0] + "." + parts[1],
		"no signature":          parts[0] + "." + parts[1] + ".",
		"alg none":              segment(`{"alg":"none"}`) + "." + parts[1] + ".",
		"alg None":              segment(`{"alg":"None","kid":"k"}`) + "." + parts[1] + "." + parts[2],
		"alg missing":           segment(`{"kid":"k"}`) + "." + parts[1] + "." + parts[2],
		"public key as secret":  k.signBytes(t, hmac, claims),
		"its own key":           k.signBytes(t, embedding, claims),
		"alg twice":             segment(`{"alg":"none","alg":"RS256","kid":"k"}`) + "." + parts[1] + "." + parts[2],
		"another algorithm":     segment(`{"alg":"PS256","kid":"k"}`) + "." + parts[1] + "." + parts[2],
		"a claim twice":         k.signBytes(t, signer, []byte(`{"sub":"eve",`+string(claims[1:]))),
		"claims in capitals":    k.signBytes(t, signer, []byte(strings.ReplaceAll(string(claims), `"exp"`, `"EXP"`))),
		"claims are a list":     k.signBytes(t, signer, []byte(`[]`)),
		"claims are a number":   k.signBytes(t, signer, []byte(`1`)),
		"claims are empty":      k.signBytes(t, signer, nil),
		"other claims":          parts[0] + "." + segment(strings.ReplaceAll(string(claims), "alice", "admin")) + "." + parts[2],
		"line feed":             honest + "\n",
		"space":                 " " + honest,
		"padding":               honest + "=",
		"four parts":            honest + ".x",
		"encrypted":             segment(`{"alg":"dir","enc":"A128GCM"}`) + "..a.b.c",
		"huge":                  k.sign(t, good(map[string]any{"x": strings.Repeat("x", 16<<10)}), nil),
		"deep":                  k.signBytes(t, signer, []byte(`{"x":`+strings.Repeat("[", 10000)+strings.Repeat("]", 10000)+"}"))[:12000] + ".x",
		"JSON serialisation":    `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"unencoded payload":     segment(`{"alg":"RS256","kid":"k","b64":false,"crit":["b64"]}`) + "." + parts[1] + "." + parts[2],
		"zero bytes as a token": "eyJ\x00.\x00.\x00",
	} {
		if _, err := verifier(config).Check(t.Context(), "", text); err == nil {
			t.Errorf("%s: was let in", name)
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	if _, err := verifier(config).Check(t.Context(), "", honest); err != nil {
		t.Errorf("the honest one: %v", err)
	}
}

// Every byte of a token matters.
func TestEveryByte(t *testing.T) {
	k := newKey(t, jose.ES256, "k")
	v := verifier(&token.Config{Issuer: issuer, Audience: audience, Keys: keySet(t, k)})
	honest := k.sign(t, good(nil), nil)
	for i := range honest {
		changed := []byte(honest)
		changed[i] ^= 4 // stays printable, and changes bits that count
		if _, err := v.Check(t.Context(), "", string(changed)); err == nil {
			t.Fatalf("byte %d changed from %q to %q, and was let in", i, honest[i], changed[i])
		}
		if _, err := v.Check(t.Context(), "", honest[:i]); err == nil {
			t.Fatalf("cut at byte %d, and was let in", i)
		}
	}
}

func TestKeySets(t *testing.T) {
	k := newKey(t, jose.ES256, "k")
	encryption := jose.JSONWebKey{Key: k.private.Public(), KeyID: "k", Use: "enc"}
	private := jose.JSONWebKey{Key: k.private, KeyID: "k"}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	list := func(keys ...any) string {
		text, err := json.Marshal(map[string]any{"keys": keys})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	public := jose.JSONWebKey{Key: k.private.Public(), KeyID: "k"}
	unknown := map[string]any{"kty": "XYZ", "kid": "new"}
	many := make([]any, 65)
	for i := range many {
		many[i] = public
	}
	for _, tc := range []struct{ name, text, want string }{
		{"one key", list(public), ""},
		{"one of a kind nobody knows", list(unknown, public), ""},
		{"one that is no object", list(7, public), ""},
		{"not JSON", "-----BEGIN PUBLIC KEY-----", "not a JSON Web Key Set"},
		{"empty", `{}`, "no key in it"},
		{"no keys", list(), "no key in it"},
		{"for encryption", list(encryption), "no key in it"},
		{"symmetric", list(jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef")}), "no key in it"},
		{"for an algorithm that it cannot do", list(jose.JSONWebKey{Key: k.private.Public(), Algorithm: "RS256"}), "no key in it"},
		{"small", list(jose.JSONWebKey{Key: small.Public()}), "no key in it"},
		{"private", list(public, private), "key 2 is a private one"},
		{"keys twice", `{"keys":[],"keys":[]}`, "not a JSON Web Key Set"},
		{"too many", list(many...), "more than 64"},
	} {
		_, err := token.ParseKeySet([]byte(tc.text))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// A key that is for one algorithm verifies no other, and without a name a token may have been signed by any of two.
func TestKeyChoice(t *testing.T) {
	a, b := newKey(t, jose.RS256, "k"), newKey(t, jose.ES256, "k")
	both := verifier(&token.Config{Issuer: issuer, Audience: audience, Keys: keySet(t, a, b)})
	for _, k := range []key{a, b} {
		if _, err := both.Check(t.Context(), "", k.sign(t, good(nil), nil)); err != nil {
			t.Errorf("%s beside another key of the same name: %v", k.algorithm, err)
		}
		k.id = ""
		if _, err := both.Check(t.Context(), "", k.sign(t, good(nil), nil)); err == nil {
			t.Errorf("%s without a name where there are two: was let in", k.algorithm)
		}
	}
}

// What is good may change while its bearer is connected.
func TestSet(t *testing.T) {
	k, other := newKey(t, jose.ES256, "k"), newKey(t, jose.ES256, "other")
	config := token.Config{Issuer: issuer, Audience: audience, Keys: keySet(t, k)}
	changed := func(change func(*token.Config)) *token.Config {
		c := config
		change(&c)
		return &c
	}
	v := verifier(&config)
	grant, err := v.Check(t.Context(), "", k.sign(t, good(map[string]any{"device": "sensor"}), nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		config *token.Config
		valid  bool
	}{
		{"the same", &config, true},
		{"one key more", changed(func(c *token.Config) { c.Keys = keySet(t, other, k) }), true},
		{"other keys", changed(func(c *token.Config) { c.Keys = keySet(t, other) }), false},
		{"another audience", changed(func(c *token.Config) { c.Audience = "x" }), false},
		{"another issuer", changed(func(c *token.Config) { c.Issuer = "x" }), false},
		{"another claim for the name", changed(func(c *token.Config) { c.IdentityClaim = "device" }), false},
		{"introspection", changed(func(c *token.Config) { c.Introspection = &token.Introspection{} }), false},
		{"no tokens", nil, false},
		{"the same again", &config, true},
	} {
		v.Set(tc.config)
		if err := grant.Valid(); (err == nil) != tc.valid {
			t.Errorf("%s: %v, want valid %v", tc.name, err, tc.valid)
		}
	}
	v.Set(nil)
	if _, err := v.Check(context.Background(), "", "x"); err == nil {
		t.Error("let in where no tokens are taken")
	}
}

func TestUntrustedClock(t *testing.T) {
	k := newKey(t, jose.ES256, "k")
	trusted := false
	v := token.New(token.Options{Now: func() (time.Time, bool) { return now, trusted }})
	v.Set(&token.Config{Issuer: issuer, Audience: audience, Keys: keySet(t, k)})
	if _, err := v.Check(t.Context(), "", k.sign(t, good(nil), nil)); err == nil || !strings.Contains(err.Error(), "clock is not trusted") {
		t.Errorf("got %v", err)
	}
	trusted = true
	grant, err := v.Check(t.Context(), "", k.sign(t, good(nil), nil))
	if err != nil {
		t.Fatal(err)
	}
	trusted = false
	if err := grant.Valid(); err != nil {
		t.Errorf("the clock is doubted again, and the session ends: %v", err)
	}
}

func TestPlausible(t *testing.T) {
	for text, want := range map[string]bool{
		"eyJhbGciOiJFUzI1NiJ9.e30.x": true, "eyJ..": true, "": false, "eyJ": false, "secret": false, "a.b.c": false, "eyJ.a.b.c": false,
	} {
		if token.Plausible([]byte(text)) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for text, good := range map[string]bool{
		"https://id.example/jwks": true, "https://192.0.2.1:8443/x?y=z": true, "http://127.0.0.1:8080/jwks": true, "http://[::1]/jwks": true,
		"http://localhost/jwks": true, "http://id.example/jwks": false, "http://192.0.2.1/jwks": false, "http://127.0.0.1.example/jwks": false,
		"http://localhost.example/": false, "ftp://127.0.0.1/": false, "https://": false, "https://user:secret@id.example/": false, "": false,
		"https://id.example/#x": false,
	} {
		if err := token.CheckURL(text); (err == nil) != good {
			t.Errorf("%s: %v, want good %v", text, err, good)
		}
	}
}
