package encryption_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"os/exec"
	"testing"

	"pinseal/signing/encryption"
)

// stream is random bytes that are the same every time.
type stream struct {
	seed string
	n    uint64
	left []byte
}

func (s *stream) Read(p []byte) (int, error) {
	for len(s.left) < len(p) {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(s.seed), s.n))
		s.n++
		s.left = append(s.left, sum[:]...)
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

// parties are the keys of testdata/keys. The operator has changed keys; the new one is the last.
type parties struct {
	operator []*encryption.PrivateKey
	group    []*encryption.SharedKey
	curve    *encryption.PrivateKey // of X25519, the operator's too
	stranger *encryption.PrivateKey
}

func (p parties) keys() *encryption.Keys {
	return encryption.NewKeys(append([]*encryption.PrivateKey{p.curve}, p.operator...), p.group)
}

func (p parties) to() []encryption.Recipient {
	return []encryption.Recipient{p.operator[1].Public(), p.group[0]}
}

func testParties(tb testing.TB) parties {
	tb.Helper()
	operator, err := encryption.ParsePrivateKeys(read(tb, "testdata/keys/operator.key"))
	if err != nil {
		tb.Fatal(err)
	}
	group, err := encryption.ParseSharedKeys(read(tb, "testdata/keys/group.key"))
	if err != nil {
		tb.Fatal(err)
	}
	stranger, err := encryption.ParsePrivateKeys(read(tb, "testdata/keys/stranger.key"))
	if err != nil {
		tb.Fatal(err)
	}
	curve, err := encryption.ParsePrivateKeys(read(tb, "testdata/keys/x25519.key"))
	if err != nil {
		tb.Fatal(err)
	}
	return parties{operator, group, curve[0], stranger[0]}
}

func ordinary() encryption.Binding {
	return encryption.Binding{Topic: "ledStatus", KeyID: "ZGhfudl-ByrnWunnzZ8x1cS32xts8-m6fpKPw4Ma4zs", Sequence: 1763787388250000}
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

func run(tb testing.TB, stdin, name string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewBufferString(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s %v: %v\n%s", name, args, err, stderr.String())
	}
	return string(out)
}

func encrypt(tb testing.TB, to []encryption.Recipient, b encryption.Binding, value string) []byte {
	tb.Helper()
	msg, err := encryption.Encrypt(to, b, []byte(value))
	if err != nil {
		tb.Fatal(err)
	}
	return msg
}
