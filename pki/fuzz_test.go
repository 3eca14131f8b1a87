package pki_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pinseal/pki"
)

// A key that was parsed is written and parsed again as the same key.
func FuzzParseKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := pki.ParseKey(data)
		if err != nil {
			if key != nil {
				t.Fatal("a key beside the error")
			}
			return
		}
		written, err := pki.MarshalKey(key)
		if err != nil {
			t.Fatalf("parsed, but cannot be written: %v", err)
		}
		again, err := pki.ParseKey(written)
		if err != nil {
			t.Fatalf("written, but cannot be parsed: %v", err)
		}
		if same, ok := key.(interface{ Equal(x any) bool }); ok && !same.Equal(again) {
			t.Fatal("key changed")
		}
	})
}

// Every certificate that was parsed has either an identity that is a valid
// name or none, and nothing panics on the way.
func FuzzParseCertificates(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := pki.ParseCertificates(data)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates, error %v", len(certs), err)
		}
		for _, cert := range certs {
			if name, err := pki.Identity(cert); err == nil && !pki.ValidName(name) {
				t.Fatalf("identity %q", name)
			}
		}
	})
}

// A key that comes out of its encryption is one that could be used; whatever else is an error.
func FuzzDecryptKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := pki.DecryptKey(data, []byte("x"))
		if err != nil {
			return
		}
		if _, err := pki.MarshalKey(key); err != nil {
			t.Fatalf("decrypted, but cannot be written: %v", err)
		}
	})
}

// What was understood of a deny list is written and understood again.
func FuzzParseDenyList(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := pki.ParseDenyList(data)
		if err != nil {
			return
		}
		again, err := pki.ParseDenyList(list.Text())
		if err != nil || string(again.Text()) != string(list.Text()) {
			t.Fatalf("%v: read again:\n%swant:\n%s", err, again.Text(), list.Text())
		}
	})
}

// A list that was parsed says until when it is good.
func FuzzParseRevocationLists(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, err := pki.ParseRevocationLists(data)
		if (err == nil) != (len(lists) > 0) {
			t.Fatalf("%d lists, error %v", len(lists), err)
		}
		for _, list := range lists {
			if list.NextUpdate.IsZero() {
				t.Fatal("a list without an end")
			}
		}
	})
}

// What was parsed is issued as the profile has it, or refused with a reason.
func FuzzParseRequest(f *testing.F) {
	authority, err := pki.CreateAuthority("test authority", now)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		request, err := pki.ParseRequest(der)
		if err != nil {
			if refused, ok := errors.AsType[*pki.RefusedError](err); !ok || refused.Reason == "" || request != nil {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		name, err := request.Name()
		if err != nil {
			return
		}
		if !pki.ValidName(name) {
			t.Fatalf("name %q", name)
		}
		cert, err := authority.Sign(request, name, pki.Profile{}, now)
		if err != nil {
			t.Fatal(err)
		}
		checkDevice(t, authority, cert, name)
	})
}

// A journal that was parsed is written again byte by byte, but for a line that a power cut tore.
func FuzzParseJournal(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		history, err := pki.ParseJournal(text)
		if err != nil {
			return
		}
		again, err := pki.NewJournal(history.Entries...)
		if err != nil || !bytes.HasPrefix(text, again) || bytes.IndexByte(text[len(again):], '\n') >= 0 {
			t.Fatalf("%q became %q (%v)", text, again, err)
		}
	})
}

// Without seeds a fuzz target silently tests nothing in an ordinary run.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	t.Parallel()
	for target, atLeast := range map[string]int{
		"FuzzParseKey": 8, "FuzzParseCertificates": 6, "FuzzDecryptKey": 4, "FuzzParseDenyList": 5, "FuzzParseRevocationLists": 4,
		"FuzzParseRequest": 8, "FuzzParseJournal": 4,
	} {
		seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", target))
		if err != nil || len(seeds) < atLeast {
			t.Errorf("%s has %d seeds, want at least %d (%v)", target, len(seeds), atLeast, err)
		}
	}
}
