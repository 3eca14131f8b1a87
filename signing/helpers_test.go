package signing_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
)

// The curves as openssl calls them.
var curves = []struct {
	name      string
	openssl   string
	algorithm signing.Algorithm
}{
	{"P-256", "prime256v1", signing.ES256},
	{"secp256k1", "secp256k1", signing.ES256K},
}

// issued is the time of sealing in tests that do not care.
var issued = time.UnixMicro(1763787388_250000)

// run runs a tool and returns its standard output. A missing tool fails the
// test.
func run(tb testing.TB, stdin, tool string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), tool, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// peer runs testdata/peer.py with Debian's Python, which has the libraries.
func peer(tb testing.TB, stdin string, args ...string) string {
	tb.Helper()
	return run(tb, stdin, "/usr/bin/python3", append([]string{"testdata/peer.py"}, args...)...)
}

// opensslKey makes a private key with openssl and returns its file and the key.
func opensslKey(tb testing.TB, curve string) (string, *signing.PrivateKey) {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "sign.key")
	run(tb, "", "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:"+curve, "-out", file)
	return file, parseKey(tb, read(tb, file))
}

func parseKey(tb testing.TB, data []byte) *signing.PrivateKey {
	tb.Helper()
	key, err := signing.ParsePrivateKey(data)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// scalarKey makes a key of a private number in hex, in SEC 1 form.
func scalarKey(tb testing.TB, alg signing.Algorithm, scalar string) (*signing.PrivateKey, error) {
	tb.Helper()
	prefix, suffix := "303102010104"+"20", "a00a06082a8648ce3d030107"
	if alg == signing.ES256K {
		prefix, suffix = "302e02010104"+"20", "a00706052b8104000a"
	}
	der, err := hex.DecodeString(prefix + scalar + suffix)
	if err != nil {
		tb.Fatal(err)
	}
	return signing.ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func newKey(tb testing.TB, alg signing.Algorithm) *signing.PrivateKey {
	tb.Helper()
	key, err := signing.GenerateKey(alg)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func ringOf(tb testing.TB, keys ...*signing.PrivateKey) *signing.Keyring {
	tb.Helper()
	signers := make([]signing.Signer, len(keys))
	for i, key := range keys {
		signers[i] = signing.Signer{Name: "operator", Key: key.Public()}
	}
	ring, err := signing.NewKeyring(signers...)
	if err != nil {
		tb.Fatal(err)
	}
	return ring
}

func seal(tb testing.TB, key *signing.PrivateKey, c signing.Claims) []byte {
	tb.Helper()
	sealed, err := signing.Seal(key, c)
	if err != nil {
		tb.Fatal(err)
	}
	return sealed
}

func ordinaryClaims() signing.Claims {
	return signing.Claims{Topic: "ledStatus", IssuedAt: issued, Sequence: 1763787388250000, Message: []byte(`"on"`)}
}

// reasonOf returns the reason of a refusal, "" for none; another error fails
// the test.
func reasonOf(tb testing.TB, err error) signing.Reason {
	tb.Helper()
	if err == nil {
		return ""
	}
	refused, ok := errors.AsType[*signing.RefusedError](err)
	if !ok {
		tb.Fatalf("error %v is no RefusedError", err)
	}
	return refused.Reason
}

func read(tb testing.TB, file string) []byte {
	tb.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func write(tb testing.TB, file string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// signedParts signs any header and claims.
func signedParts(tb testing.TB, key *signing.PrivateKey, header, claims string) []byte {
	tb.Helper()
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(claims))
	digest := sha256.Sum256([]byte(signed))
	signature, err := key.SignDigest(digest[:])
	if err != nil {
		tb.Fatal(err)
	}
	return []byte(signed + "." + b64.EncodeToString(signature))
}
