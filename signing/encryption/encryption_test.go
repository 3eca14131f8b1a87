package encryption_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"pinseal/signing/encryption"
)

func TestRoundTrip(t *testing.T) {
	p := testParties(t)
	values := []string{`"on"`, `1`, `{"state":"ON"}`, `[1,2]`, `"` + strings.Repeat("x", 1000) + `"`}
	for name, to := range map[string][]encryption.Recipient{
		"public":          {p.operator[1].Public()},
		"old public key":  {p.operator[0].Public()},
		"shared":          {p.group[0]},
		"both":            p.to(),
		"among strangers": {p.stranger.Public(), p.operator[1].Public()},
	} {
		t.Run(name, func(t *testing.T) {
			for _, value := range values {
				msg := encrypt(t, to, ordinary(), value)
				if !encryption.Encrypted(msg) || !json.Valid(msg) {
					t.Errorf("made %.200s", msg)
				}
				got, err := p.keys().Decrypt(msg, ordinary())
				if err != nil || string(got) != value {
					t.Errorf("%s comes back as %s, %v", value, got, err)
				}
			}
		})
	}
}

func TestOnAndOffLookAlike(t *testing.T) {
	p := testParties(t)
	on, off := encrypt(t, p.to(), ordinary(), `"on"`), encrypt(t, p.to(), ordinary(), `{"state":"OFF"}`)
	if len(on) != len(off) {
		t.Errorf("%d and %d bytes", len(on), len(off))
	}
}

func TestStrangerCannotOpen(t *testing.T) {
	p := testParties(t)
	msg := encrypt(t, p.to(), ordinary(), `"on"`)
	if _, err := encryption.NewKeys([]*encryption.PrivateKey{p.stranger}, nil).Decrypt(msg, ordinary()); !errors.Is(err, encryption.ErrNotForUs) {
		t.Errorf("a stranger gets %v", err)
	}
	if err := encryption.Check(msg, ordinary()); err != nil {
		t.Errorf("without keys: %v", err)
	}
}

// TestLifted: a ciphertext is of no use in any other message.
func TestLifted(t *testing.T) {
	p := testParties(t)
	msg := encrypt(t, p.to(), ordinary(), `"on"`)
	for name, change := range map[string]func(*encryption.Binding){
		"topic":  func(b *encryption.Binding) { b.Topic = "gate" },
		"signer": func(b *encryption.Binding) { b.KeyID = strings.Repeat("A", 43) },
		"number": func(b *encryption.Binding) { b.Sequence++ },
	} {
		other := ordinary()
		change(&other)
		if _, err := p.keys().Decrypt(msg, other); err == nil {
			t.Errorf("another %s is accepted", name)
		}
		if err := encryption.Check(msg, other); err == nil {
			t.Errorf("another %s is accepted by who cannot open it", name)
		}
	}
	// And a protected header written anew for the other message does not belong to the ciphertext.
	other := ordinary()
	other.Topic = "gate"
	var a, b map[string]json.RawMessage
	unmarshal(t, msg, &a)
	unmarshal(t, encrypt(t, p.to(), other, `"on"`), &b)
	a["protected"] = b["protected"]
	lifted, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.keys().Decrypt(lifted, other); err == nil {
		t.Error("a ciphertext with another header is accepted")
	}
}

func unmarshal(t *testing.T, data []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatal(err)
	}
}

func TestEveryByteCounts(t *testing.T) {
	p := testParties(t)
	for name, to := range map[string][]encryption.Recipient{"one": p.to()[:1], "X25519": {p.curve.Public()}, "shared": p.to()[1:]} {
		msg := encrypt(t, to, ordinary(), `"on"`)
		for i := range msg {
			for _, bit := range []byte{1, 4, 32} {
				changed := bytes.Clone(msg)
				changed[i] ^= bit
				if got, err := p.keys().Decrypt(changed, ordinary()); err == nil {
					t.Fatalf("%s: byte %d changed, read as %s: %s", name, i, got, changed)
				}
			}
			if _, err := p.keys().Decrypt(msg[:i], ordinary()); err == nil {
				t.Fatalf("%s: accepted cut at %d", name, i)
			}
		}
	}
}

// TestFirstOfOursDecides: an entry that we cannot open ends it, whatever follows.
func TestFirstOfOursDecides(t *testing.T) {
	p := testParties(t)
	var msg, other struct {
		Protected  string            `json:"protected"`
		Recipients []json.RawMessage `json:"recipients"`
		IV         string            `json:"iv"`
		Ciphertext string            `json:"ciphertext"`
		Tag        string            `json:"tag"`
	}
	unmarshal(t, encrypt(t, p.to(), ordinary(), `"on"`), &msg)
	unmarshal(t, encrypt(t, p.to(), ordinary(), `"on"`), &other)
	msg.Recipients[0] = other.Recipients[0] // of another content key
	mixed, err := json.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.keys().Decrypt(mixed, ordinary()); err == nil {
		t.Error("opened with the second entry")
	}
	if _, err := encryption.NewKeys(nil, p.group).Decrypt(mixed, ordinary()); err != nil {
		t.Errorf("the group cannot open its entry: %v", err)
	}
}

func TestEncryptRefuses(t *testing.T) {
	p := testParties(t)
	operator := encryption.Recipient(p.operator[0].Public())
	many := make([]encryption.Recipient, encryption.MaxRecipients+1)
	for i := range many {
		many[i] = encryption.GenerateSharedKey()
	}
	for _, test := range []struct {
		name  string
		to    []encryption.Recipient
		value string
	}{
		{"nobody", nil, `1`},
		{"too many", many, `1`},
		{"one twice", []encryption.Recipient{operator, p.group[0], operator}, `1`},
		{"null", p.to(), `null`},
		{"no JSON", p.to(), `on`},
		{"two values", p.to(), `1 2`},
		{"a name twice", p.to(), `{"a":1,"a":2}`},
		{"too deep", p.to(), strings.Repeat("[", 17) + strings.Repeat("]", 17)},
	} {
		if msg, err := encryption.Encrypt(test.to, ordinary(), []byte(test.value)); err == nil {
			t.Errorf("%s: made %s", test.name, msg)
		}
	}
	if _, err := encryption.Encrypt(many[:encryption.MaxRecipients], ordinary(), []byte(`1`)); err != nil {
		t.Errorf("the highest number of recipients: %v", err)
	}
}

func TestEncrypted(t *testing.T) {
	for msg, want := range map[string]bool{
		`"on"`: false, `{"state":"ON"}`: false, `[]`: false, `{"protected":""}`: false, `{"ciphertext":""}`: false,
		`{"protected":1,"ciphertext":{}}`: true, ` {"ciphertext":"", "protected":"" }`: true,
	} {
		if got := encryption.Encrypted([]byte(msg)); got != want {
			t.Errorf("%s: %v", msg, got)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	p := testParties(t)
	if len(p.operator) != 2 || len(p.group) != 2 {
		t.Fatalf("read %d and %d keys", len(p.operator), len(p.group))
	}
	var private, public, shared []byte
	for _, key := range p.operator {
		private, public = append(private, key.PEM()...), append(public, key.Public().PEM()...)
	}
	for _, key := range p.group {
		shared = append(shared, key.PEM()...)
	}
	again, err := encryption.ParsePrivateKeys(private)
	if err != nil || again[1].Public().ID() != p.operator[1].Public().ID() {
		t.Errorf("private keys written: %v", err)
	}
	published, err := encryption.ParsePublicKeys(public)
	if err != nil || published[1].ID() != p.operator[1].Public().ID() {
		t.Errorf("public keys written: %v", err)
	}
	group, err := encryption.ParseSharedKeys(shared)
	if err != nil || group[1].ID() != p.group[1].ID() {
		t.Errorf("shared keys written: %v", err)
	}
	want := []string{p.curve.Public().ID(), p.operator[0].Public().ID(), p.operator[1].Public().ID(), p.group[0].ID(), p.group[1].ID()}
	slices.Sort(want)
	if !p.keys().Has(want[0]) || p.keys().Has(p.stranger.Public().ID()) || new(encryption.Keys).Has(want[0]) {
		t.Error("does not know which keys it has")
	}
	if got := p.keys().IDs(); !slices.Equal(got, want) {
		t.Errorf("kids %v, want %v", got, want)
	}
}

func TestKeyFilesRefused(t *testing.T) {
	operator, group := string(read(t, "testdata/keys/operator.key")), string(read(t, "testdata/keys/group.key"))
	k256 := run(t, "", "openssl", "ecparam", "-name", "secp256k1", "-genkey", "-noout")
	p384 := run(t, "", "openssl", "ecparam", "-name", "secp384r1", "-genkey", "-noout")
	public := run(t, k256, "openssl", "pkey", "-pubout")
	for name, data := range map[string]string{
		"empty": "", "text": "on", "text before": "x\n" + operator, "text between": strings.Replace(group, "-----\n-----", "-----\nx\n-----", 1),
		"text after": operator + "x", "cut": operator[:len(operator)-20], "first damaged": strings.Replace(operator, "M", "*", 1),
		"secp256k1": k256, "P-384": p384, "public secp256k1": public,
		"short shared key": "-----BEGIN PINSEAL SHARED KEY-----\nAAAA\n-----END PINSEAL SHARED KEY-----\n",
		"parameters alone": run(t, "", "openssl", "ecparam", "-name", "prime256v1"),
	} {
		_, err1 := encryption.ParsePrivateKeys([]byte(data))
		_, err2 := encryption.ParsePublicKeys([]byte(data))
		_, err3 := encryption.ParseSharedKeys([]byte(data))
		if err1 == nil || err2 == nil || err3 == nil {
			t.Errorf("%s: accepted: %v, %v, %v", name, err1, err2, err3)
		}
	}
	if _, err := encryption.ParsePrivateKeys([]byte(run(t, "", "openssl", "ecparam", "-name", "prime256v1", "-genkey"))); err != nil {
		t.Errorf("with EC PARAMETERS, as openssl writes it: %v", err)
	}
}

// Keys of X25519 are written and read as others are; what agrees on zero with everybody, or has a second way to be
// written, is no key.
func TestX25519KeyFiles(t *testing.T) {
	key, err := encryption.GenerateX25519Key()
	if err != nil {
		t.Fatal(err)
	}
	both := string(key.PEM()) + string(read(t, "testdata/keys/stranger.key"))
	private, err := encryption.ParsePrivateKeys([]byte(both))
	if err != nil || len(private) != 2 || !bytes.Equal(private[0].PEM(), key.PEM()) || private[0].Public().ID() != key.Public().ID() {
		t.Errorf("read %d private keys, %v", len(private), err)
	}
	public, err := encryption.ParsePublicKeys(append(key.Public().PEM(), private[1].Public().PEM()...))
	if err != nil || len(public) != 2 || public[0].ID() != key.Public().ID() || public[0].JWK() != key.Public().JWK() {
		t.Errorf("read %d public keys, %v", len(public), err)
	}
	if of := run(t, string(key.PEM()), "openssl", "pkey", "-pubout"); of != string(key.Public().PEM()) {
		t.Errorf("openssl writes %s", of)
	}
	ed25519 := run(t, "", "openssl", "genpkey", "-algorithm", "ED25519")
	x448 := run(t, "", "openssl", "genpkey", "-algorithm", "X448")
	trailing := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(blockOf(t, key.Public().PEM()), 0)})
	for name, data := range map[string]string{
		"Ed25519": ed25519, "X448": x448, "public Ed25519": run(t, ed25519, "openssl", "pkey", "-pubout"), "bytes behind it": string(trailing),
		"a header": strings.Replace(string(key.Public().PEM()), "KEY-----\n", "KEY-----\nA: b\n\n", 1),
	} {
		_, err1 := encryption.ParsePrivateKeys([]byte(data))
		_, err2 := encryption.ParsePublicKeys([]byte(data))
		if err1 == nil || err2 == nil {
			t.Errorf("%s: accepted: %v, %v", name, err1, err2)
		}
	}
	der := blockOf(t, key.Public().PEM())
	for _, point := range lowOrder() {
		copy(der[len(der)-32:], point)
		if _, err := encryption.ParsePublicKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); err == nil {
			t.Errorf("%x is a key", point)
		}
	}
}

func blockOf(t *testing.T, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM: %s", text)
	}
	return block.Bytes
}

// TestX25519Vector is RFC 7748 section 6.1, and RFC 8037 appendix A.6, whose thumbprint follows from it.
func TestX25519Vector(t *testing.T) {
	der := blockOf(t, testParties(t).curve.Public().PEM())
	copy(der[len(der)-32:], unhex(t, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")) // Bob's
	public, err := encryption.ParsePublicKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"crv":"X25519","kty":"OKP","x":"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"}`
	if got := public[0].JWK(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	sum := sha256.Sum256([]byte(want))
	if public[0].ID() != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Errorf("kid %s", public[0].ID())
	}
}

// TestKeyWrap has the vectors of RFC 3394 section 4.
func TestKeyWrap(t *testing.T) {
	const kek = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	const data = "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F"
	for _, test := range []struct {
		name, key, data, want string
	}{
		{"4.1", kek[:32], data[:32], "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		{"4.3", kek, data[:32], "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		{"4.6", kek, data, "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, plain, want := unhex(t, test.key), unhex(t, test.data), unhex(t, test.want)
			if got := encryption.WrapKey(key, plain); !bytes.Equal(got, want) {
				t.Errorf("wrapped %X", got)
			}
			if got, err := encryption.UnwrapKey(key, want); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("unwrapped %X, %v", got, err)
			}
			for i := range want {
				want[i] ^= 1
				if _, err := encryption.UnwrapKey(key, want); err == nil {
					t.Errorf("byte %d changed, and nobody notices", i)
				}
				want[i] ^= 1
			}
		})
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
