package boxtec_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
	"pinseal/signing/boxtec"
)

var sentAt = time.Unix(1763787388, 0)

func newKey(t *testing.T, alg signing.Algorithm) *signing.PrivateKey {
	t.Helper()
	key, err := signing.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func seal(t *testing.T, key *signing.PrivateKey, h boxtec.Hash, text string) []byte {
	t.Helper()
	sealed, err := boxtec.Seal(key, h, sentAt, text)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func reasonOf(t *testing.T, err error) signing.Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	refused, ok := errors.AsType[*signing.RefusedError](err)
	if !ok {
		t.Fatalf("error %v is no RefusedError", err)
	}
	return refused.Reason
}

func run(t *testing.T, stdin, tool string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", tool, err, stderr.String())
	}
	return string(out)
}

// TestPythonECDSA sends with the very lines of a legacy sender, and lets
// python-ecdsa check what we send.
func TestPythonECDSA(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.pem")
	run(t, "", "openssl", "ecparam", "-genkey", "-name", "secp256k1", "-out", file)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signing.ParsePrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(public, key.Public().PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		hash boxtec.Hash
		args []string
	}{{"default hash", boxtec.SHA1, nil}, {"SHA-256", boxtec.SHA256, []string{"sha256"}}} {
		t.Run(test.name, func(t *testing.T) {
			sent := run(t, "", "/usr/bin/python3", append([]string{"testdata/send.py", file, "on"}, test.args...)...)
			m, err := boxtec.Open([]byte(sent), key.Public(), test.hash)
			if err != nil {
				t.Fatalf("%v: %s", err, sent)
			}
			if m.Text() != "on" || !strings.HasPrefix(sent, strconv.FormatInt(m.Second(), 10)+"on:") {
				t.Errorf("text %q at %d of %s", m.Text(), m.Second(), sent)
			}
			if err := m.CheckFresh(time.Unix(m.Second(), 0)); err != nil {
				t.Error(err)
			}
		})
	}
	if text := run(t, string(seal(t, key, boxtec.SHA1, "a:b")), "/usr/bin/python3", "testdata/verify.py", public); text != "a:b" {
		t.Errorf("python-ecdsa reads %q", text)
	}
}

func TestRoundTrip(t *testing.T) {
	key := newKey(t, signing.ES256K)
	for _, text := range []string{"on", "", "a:b:c", "ü", ":", "0123456789", "on\n"} {
		for _, hash := range []boxtec.Hash{boxtec.SHA1, boxtec.SHA256} {
			t.Run(text+" "+string(hash), func(t *testing.T) {
				sealed := seal(t, key, hash, text)
				for _, raw := range [][]byte{sealed, append(bytes.Clone(sealed), '\n')} {
					m, err := boxtec.Open(raw, key.Public(), hash)
					if err != nil {
						t.Fatal(err)
					}
					if m.Text() != text || m.Second() != sentAt.Unix() || m.Digest() != sha256.Sum256([]byte("1763787388"+text)) {
						t.Errorf("text %q, second %d", m.Text(), m.Second())
					}
				}
			})
		}
	}
}

func TestEveryBitFlipAndTruncation(t *testing.T) {
	key := newKey(t, signing.ES256K)
	sealed := seal(t, key, boxtec.SHA1, "on")
	for i := range sealed {
		if _, err := boxtec.Open(sealed[:i], key.Public(), boxtec.SHA1); reasonOf(t, err) == "" {
			t.Errorf("accepted when cut at %d", i)
		}
		for bit := range 8 {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1 << bit
			if _, err := boxtec.Open(changed, key.Public(), boxtec.SHA1); reasonOf(t, err) == "" {
				t.Errorf("accepted with bit %d of byte %d changed", bit, i)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	key, other := newKey(t, signing.ES256K), newKey(t, signing.ES256K)
	sealed := string(seal(t, key, boxtec.SHA1, "on"))
	signed, signature, _ := strings.Cut(sealed, ":")
	// sign makes a genuine message of any text, with or without a time.
	sign := func(signed string) string {
		digest := sha1.Sum([]byte(signed))
		rs, err := key.SignDigest(digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return signed + ":" + base64.StdEncoding.EncodeToString(rs)
	}
	for _, test := range []struct {
		name, raw string
		key       *signing.PrivateKey
		hash      boxtec.Hash
		want      signing.Reason
	}{
		{"empty", "", key, boxtec.SHA1, signing.ReasonMalformed},
		{"plain 1", "1", key, boxtec.SHA1, signing.ReasonMalformed},
		{"no signature", signed + ":", key, boxtec.SHA1, signing.ReasonMalformed},
		{"two line feeds", sealed + "\n\n", key, boxtec.SHA1, signing.ReasonMalformed},
		{"carriage return", sealed + "\r\n", key, boxtec.SHA1, signing.ReasonMalformed},
		{"no padding", strings.TrimRight(sealed, "="), key, boxtec.SHA1, signing.ReasonMalformed},
		{"line break in signature", signed + ":" + signature[:76] + "\n" + signature[76:], key, boxtec.SHA1, signing.ReasonMalformed},
		{"line break for a character", signed + ":" + signature[:76] + "\n" + signature[77:], key, boxtec.SHA1, signing.ReasonMalformed},
		{"uncanonical", signed + ":" + looseEnd(signature), key, boxtec.SHA1, signing.ReasonMalformed},
		{"too long", sign(strings.Repeat("1", 65536)), key, boxtec.SHA1, signing.ReasonMalformed},
		{"other key", sealed, other, boxtec.SHA1, signing.ReasonBadSignature},
		{"other hash", sealed, key, boxtec.SHA256, signing.ReasonBadSignature},
		{"unknown hash", sealed, key, "md5", signing.ReasonBadSignature},
		{"P-256 key", sealed, newKey(t, signing.ES256), boxtec.SHA1, signing.ReasonBadSignature},
		{"other text", "1763787388off:" + signature, key, boxtec.SHA1, signing.ReasonBadSignature},
		{"verified before the time is read", "x:" + signature, key, boxtec.SHA1, signing.ReasonBadSignature},
		{"nine digits", sign("123456789"), key, boxtec.SHA1, signing.ReasonMalformed},
		{"no digits", sign("hello world"), key, boxtec.SHA1, signing.ReasonMalformed},
		{"plus sign", sign("+763787388on"), key, boxtec.SHA1, signing.ReasonMalformed},
		{"minus sign", sign("-763787388on"), key, boxtec.SHA1, signing.ReasonMalformed},
		{"underscore", sign("1_63787388on"), key, boxtec.SHA1, signing.ReasonMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := boxtec.Open([]byte(test.raw), test.key.Public(), test.hash); reasonOf(t, err) != test.want {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

// looseEnd sets an unused bit of the last character; 64 bytes leave four.
func looseEnd(signature string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	i := strings.IndexByte(alphabet, signature[85])
	return signature[:85] + alphabet[i+1:i+2] + "=="
}

func TestCheckFresh(t *testing.T) {
	key := newKey(t, signing.ES256K)
	m, err := boxtec.Open(seal(t, key, boxtec.SHA1, "on"), key.Public(), boxtec.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		after time.Duration
		want  signing.Reason
	}{
		{"at once", 0, ""},
		{"edge of age", 30 * time.Second, ""},
		{"too old", 30*time.Second + time.Microsecond, signing.ReasonStale},
		{"edge of ahead", -5 * time.Second, ""},
		{"too far ahead", -5*time.Second - time.Microsecond, signing.ReasonFuture},
		{"centuries ago", -1 << 62, signing.ReasonFuture},
		{"centuries later", 1 << 62, signing.ReasonStale},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := m.CheckFresh(sentAt.Add(test.after)); reasonOf(t, err) != test.want {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestSealRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		alg  signing.Algorithm
		hash boxtec.Hash
		at   time.Time
		text string
	}{
		{"P-256 key", signing.ES256, boxtec.SHA256, sentAt, "on"},
		{"unknown hash", signing.ES256K, "md5", sentAt, "on"},
		{"before 1970", signing.ES256K, boxtec.SHA1, time.Unix(-1, 0), "on"},
		{"eleven digits", signing.ES256K, boxtec.SHA1, time.Unix(10_000_000_000, 0), "on"},
		{"too long", signing.ES256K, boxtec.SHA1, sentAt, strings.Repeat("x", 65536)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if sealed, err := boxtec.Seal(newKey(t, test.alg), test.hash, test.at, test.text); err == nil {
				t.Errorf("sealed %.100s", sealed)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	key, err := signing.ParsePrivateKey(mustRead(f, "../internal/vectors/keys/sensor.key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := boxtec.Open(raw, key.Public(), boxtec.SHA1)
		if err != nil {
			if reason := reasonOf(t, err); reason != signing.ReasonMalformed && reason != signing.ReasonBadSignature {
				t.Fatal(err)
			}
			return
		}
		if m.Second() < 0 || !bytes.Contains(raw, []byte(m.Text()+":")) {
			t.Fatalf("read %q at %d of %q", m.Text(), m.Second(), raw)
		}
	})
}

// TestFuzzSeeds fails when the fuzz target has lost its seeds, which go test
// would not mind.
func TestFuzzSeeds(t *testing.T) {
	files, err := filepath.Glob("testdata/fuzz/FuzzOpen/*")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d seeds in testdata/fuzz/FuzzOpen, want 3 or more", len(files))
	}
}

func mustRead(tb testing.TB, file string) []byte {
	tb.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}
