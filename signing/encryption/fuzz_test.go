package encryption_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"pinseal/signing"
	"pinseal/signing/encryption"
)

// FuzzDecrypt holds what must be true of whatever a signer writes: no panic, the input unchanged, and what comes out can
// be the msg of a message. Whoever can open a message can check it.
func FuzzDecrypt(f *testing.F) {
	files, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds, %v", err)
	}
	for _, file := range files {
		_, msg, _ := bytes.Cut(read(f, file), []byte("\n\n"))
		f.Add(msg)
	}
	keys := testParties(f).keys()
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		value, err := keys.Decrypt(msg, ordinary())
		if !bytes.Equal(msg, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		if !signing.ValidMessage(value) || !encryption.Encrypted(msg) || encryption.Check(msg, ordinary()) != nil {
			t.Fatalf("%q is read as %q", msg, value)
		}
	})
}
