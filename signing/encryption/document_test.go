package encryption_test

import (
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
	"pinseal/signing/encryption"
)

// TestWorkedExample makes every line of the document's example again.
func TestWorkedExample(t *testing.T) {
	text := string(read(t, "../../docs/encryption.md"))
	examples := map[string]string{}
	for _, block := range regexp.MustCompile("(?s)<!-- example: ([a-z ]+) -->\n```[a-z]*\n(.*?)\n```\n").FindAllStringSubmatch(text, -1) {
		examples[block[1]] = block[2]
	}
	p := testParties(t)
	recipient := p.operator[1]
	msg, err := encryption.EncryptWith(&stream{seed: "vectors"}, []encryption.Recipient{recipient.Public()}, ordinary(), []byte(`"on"`))
	if err != nil {
		t.Fatal(err)
	}
	secret, agreed, content, err := encryption.Steps(recipient, msg)
	if err != nil {
		t.Fatal(err)
	}
	header, err := base64.RawURLEncoding.DecodeString(partOf(string(msg), "protected"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signing.ParsePrivateKey(read(t, "../internal/vectors/keys/operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := signing.Seal(signer, signing.Claims{
		Topic: "ledStatus", IssuedAt: time.UnixMicro(1763787388250000), Sequence: ordinary().Sequence, Message: msg,
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"private key":       strings.TrimSpace(string(recipient.PEM())),
		"kid":               recipient.Public().ID(),
		"shared key":        strings.TrimSpace(string(p.group[0].PEM())),
		"shared kid":        p.group[0].ID(),
		"header":            string(header),
		"secret":            hex.EncodeToString(secret),
		"agreed key":        hex.EncodeToString(agreed),
		"content key":       hex.EncodeToString(content),
		"encrypted message": string(msg),
		"sealed message":    string(sealed),
	} {
		if examples[name] != want {
			t.Errorf("the document's %s is\n%s\nwant\n%s", name, examples[name], want)
		}
	}
	if signer.Public().ID() != ordinary().KeyID {
		t.Error("the example is signed by another key than its header says")
	}
}
