package signing_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
	"pinseal/signing/internal/vectors"
)

// commandWindow is the window of the format's vectors: the default for commands.
var commandWindow = signing.Window{MaxAge: 30 * time.Second, MaxAhead: 5 * time.Second}

// vector is one file of testdata/vectors: lines "name: value", an empty line,
// the message to the end of the file.
type vector struct {
	name    string
	fields  map[string]string
	message []byte
}

func readVectors(tb testing.TB) []vector {
	tb.Helper()
	files, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil {
		tb.Fatal(err)
	}
	out := make([]vector, 0, len(files))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		head, message, ok := bytes.Cut(data, []byte("\n\n"))
		if !ok {
			tb.Fatalf("%s: no empty line before the message", file)
		}
		v := vector{strings.TrimSuffix(filepath.Base(file), ".txt"), map[string]string{}, message}
		for line := range strings.Lines(string(head)) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if !ok || v.fields[name] != "" {
				tb.Fatalf("%s: line %q", file, line)
			}
			v.fields[name] = value
		}
		out = append(out, v)
	}
	return out
}

func testRing(tb testing.TB) *signing.Keyring {
	tb.Helper()
	ring, err := signing.ReadKeyring("testdata/signers")
	if err != nil {
		tb.Fatal(err)
	}
	return ring
}

// micros reads "1763787390.25".
func micros(t *testing.T, s string) time.Time {
	t.Helper()
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole+(fraction + "000000")[:6], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMicro(n)
}

// outcome is what a receiver without policy and state makes of a message.
func outcome(t *testing.T, message []byte, topic string, now time.Time, ring *signing.Keyring) (*signing.Message, signing.Signer, string) {
	t.Helper()
	m, signer, err := signing.Open(message, topic, ring)
	if err == nil {
		err = m.CheckFresh(now, commandWindow)
	}
	if err == nil {
		return m, signer, "ok"
	}
	refused, ok := errors.AsType[*signing.RefusedError](err)
	if !ok {
		t.Fatalf("error %v is no RefusedError", err)
	}
	return nil, signer, string(refused.Reason)
}

func TestVectors(t *testing.T) {
	ring := testRing(t)
	count := map[string]int{}
	for _, v := range readVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			m, signer, got := outcome(t, v.message, v.fields["topic"], micros(t, v.fields["now"]), ring)
			if got != v.fields["expect"] {
				t.Fatalf("outcome %s, want %s (%s)", got, v.fields["expect"], v.fields["rule"])
			}
			count[got]++
			if m == nil {
				return
			}
			digest := m.Digest()
			for field, value := range map[string]string{
				"signer": signer.Name, "seq": strconv.FormatUint(m.Sequence(), 10),
				"msg": string(m.JSON()), "digest": hex.EncodeToString(digest[:]),
			} {
				if value != v.fields[field] {
					t.Errorf("%s %.60q, want %.60q", field, value, v.fields[field])
				}
			}
		})
	}
	refused := 0
	for outcome, n := range count {
		if outcome != "ok" {
			refused += n
		}
	}
	if refused < 60 || refused <= count["ok"] {
		t.Errorf("%d vectors are refused and %d accepted: want 60 or more, and most, refused", refused, count["ok"])
	}
	t.Logf("outcomes: %v", count)
}

// TestVectorsAreGenerated keeps the committed files and their generator one.
func TestVectorsAreGenerated(t *testing.T) {
	want, err := vectors.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"signers", "vectors"} {
		err := fs.WalkDir(os.DirFS("testdata"), folder, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			got, err := os.ReadFile(filepath.Join("testdata", name))
			if !bytes.Equal(got, want[name]) {
				t.Errorf("testdata/%s is not what the generator makes: run go generate ./signing", name)
			}
			delete(want, name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range want {
		t.Errorf("testdata/%s is missing: run go generate ./signing", name)
	}
}
