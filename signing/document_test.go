package signing_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
)

const document = "../docs/sealed-message-v1.md"

// documentExamples returns the fenced blocks that a comment names.
func documentExamples(t *testing.T) map[string]string {
	t.Helper()
	blocks := regexp.MustCompile("(?s)<!-- example: ([a-z ]+) -->\n```[a-z]*\n(.*?)\n```\n").FindAllStringSubmatch(string(read(t, document)), -1)
	examples := map[string]string{}
	for _, block := range blocks {
		examples[block[1]] = block[2]
	}
	return examples
}

// TestWorkedExample makes every line of the document's example again.
func TestWorkedExample(t *testing.T) {
	examples := documentExamples(t)
	key := parseKey(t, []byte(examples["private key"]+"\n"))
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString([]byte(examples["header"])) + "." + b64.EncodeToString([]byte(examples["claims"]))
	digest := sha256.Sum256([]byte(signed))
	signature, err := key.SignDigest(digest[:])
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := sha256.Sum256([]byte(examples["jwk"]))
	claims := ordinaryClaims()
	for name, want := range map[string]string{
		"public key": strings.TrimSpace(string(key.Public().PEM())),
		"jwk":        jwkOf(t, key),
		"kid":        b64.EncodeToString(thumbprint[:]),
		"header":     `{"alg":"ES256","kid":"` + key.Public().ID() + `","typ":"pinseal+jwt"}`,
		"signed":     signed,
		"digest":     hex.EncodeToString(digest[:]),
		"signature":  hex.EncodeToString(signature[:32]) + "\n" + hex.EncodeToString(signature[32:]),
		"message":    string(seal(t, key, claims)),
	} {
		if examples[name] != want {
			t.Errorf("the document's %s is\n%s\nwant\n%s", name, examples[name], want)
		}
	}
	m, _, err := signing.Open([]byte(examples["message"]), "ledStatus", ringOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	if m.Digest() != digest || string(m.JSON()) != `"on"` {
		t.Errorf("the message reads %s, digest %x", m.JSON(), m.Digest())
	}
	text := string(read(t, document))
	if size := strconv.Itoa(len(examples["message"])); !strings.Contains(text, "The sealed message, "+size+" bytes:") {
		t.Errorf("the message has %s bytes, which the document does not say", size)
	}
	if !strings.Contains(text, "from 2025-11-22T04:56:23.25Z to 04:56:58.25Z") {
		t.Error("the document does not say from when to when the message is accepted")
	}
	for _, edge := range []time.Duration{-commandWindow.MaxAhead, commandWindow.MaxAge} {
		if !strings.Contains(text, claims.IssuedAt.Add(edge).UTC().Format("15:04:05.99Z")) {
			t.Errorf("the document lacks %s", claims.IssuedAt.Add(edge).UTC())
		}
	}
}

// jwkOf builds the JWK from the key's point, the last 64 bytes of its DER.
func jwkOf(t *testing.T, key *signing.PrivateKey) string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(key.Public().PEM())), "\n")
	der, err := base64.StdEncoding.DecodeString(strings.Join(lines[1:len(lines)-1], ""))
	if err != nil {
		t.Fatal(err)
	}
	point := der[len(der)-64:]
	b64 := base64.RawURLEncoding
	return `{"crv":"P-256","kty":"EC","x":"` + b64.EncodeToString(point[:32]) + `","y":"` + b64.EncodeToString(point[32:]) + `"}`
}

// TestDocumentMessages: the examples of msg can be sealed, and every reason is
// in the document.
func TestDocumentMessages(t *testing.T) {
	examples := documentExamples(t)
	key := newKey(t, signing.ES256)
	for _, name := range []string{"verdict", "challenge"} {
		claims := ordinaryClaims()
		claims.Message = []byte(examples[name])
		seal(t, key, claims)
	}
	text := string(read(t, document))
	for _, reason := range signing.Reasons() {
		if !strings.Contains(text, "`"+string(reason)+"`") {
			t.Errorf("the document lacks the reason %s", reason)
		}
	}
}
