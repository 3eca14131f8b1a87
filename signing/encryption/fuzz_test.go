package encryption_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"pinseal/signing"
	"pinseal/signing/encryption"
)

// FuzzKeyFiles: what is read as keys and written again is read as the same keys.
func FuzzKeyFiles(f *testing.F) {
	files, err := filepath.Glob("testdata/keys/*.key")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds, %v", err)
	}
	for _, file := range files {
		f.Add(read(f, file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		private, err1 := encryption.ParsePrivateKeys(data)
		shared, err2 := encryption.ParseSharedKeys(data)
		if err1 == nil && err2 == nil {
			t.Fatal("private keys that are shared keys")
		}
		var text []byte
		for _, key := range private {
			text = append(text, key.PEM()...)
		}
		for _, key := range shared {
			text = append(text, key.PEM()...)
		}
		again, _ := encryption.ParsePrivateKeys(text)
		sharedAgain, _ := encryption.ParseSharedKeys(text)
		if len(again) != len(private) || len(sharedAgain) != len(shared) {
			t.Fatalf("%q gives other keys the second time", data)
		}
	})
}

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
