package signing_test

import (
	"bytes"
	"encoding/pem"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pinseal/signing"
)

// TestOpenSSLPrivateKeys reads every form in which openssl writes keys of the
// two curves, and openssl reads ours.
func TestOpenSSLPrivateKeys(t *testing.T) {
	for _, curve := range curves {
		file, key := opensslKey(t, curve.openssl)
		parameters := filepath.Join(t.TempDir(), "ecparam.key")
		run(t, "", "openssl", "ecparam", "-name", curve.openssl, "-genkey", "-out", parameters)
		for _, form := range []struct {
			name string
			args []string
			same bool
		}{
			{"PKCS 8", []string{"pkey", "-in", file}, true},
			{"SEC 1", []string{"ec", "-in", file}, true},
			{"SEC 1 compressed", []string{"ec", "-in", file, "-conv_form", "compressed"}, true},
			{"PKCS 8 compressed", []string{"pkey", "-in", file, "-ec_conv_form", "compressed"}, true},
			{"SEC 1 without public point", []string{"ec", "-in", file, "-no_public"}, true},
			{"ecparam -genkey", []string{"ecparam", "-name", curve.openssl, "-genkey"}, false},
			{"ecparam -genkey -noout", []string{"ecparam", "-name", curve.openssl, "-genkey", "-noout"}, false},
		} {
			t.Run(curve.name+" "+form.name, func(t *testing.T) {
				got := parseKey(t, []byte(run(t, "", "openssl", form.args...)))
				if got.Public().Algorithm() != curve.algorithm {
					t.Errorf("algorithm %s, want %s", got.Public().Algorithm(), curve.algorithm)
				}
				if form.same && got.Public().ID() != key.Public().ID() {
					t.Error("another key")
				}
			})
		}
		t.Run(curve.name+" written", func(t *testing.T) {
			if got := run(t, string(key.PEM()), "openssl", "pkey"); got != string(key.PEM()) {
				t.Errorf("openssl writes\n%swe write\n%s", got, key.PEM())
			}
			if got := run(t, string(key.PEM()), "openssl", "pkey", "-pubout"); got != string(key.Public().PEM()) {
				t.Errorf("openssl writes\n%swe write\n%s", got, key.Public().PEM())
			}
		})
	}
}

func TestOpenSSLPublicKeys(t *testing.T) {
	var all []byte
	var ids []string
	for _, curve := range curves {
		file, key := opensslKey(t, curve.openssl)
		for _, form := range []string{"uncompressed", "compressed"} {
			t.Run(curve.name+" "+form, func(t *testing.T) {
				data := run(t, "", "openssl", "pkey", "-in", file, "-pubout", "-ec_conv_form", form)
				keys, err := signing.ParsePublicKeys([]byte(data))
				if err != nil {
					t.Fatal(err)
				}
				if len(keys) != 1 || keys[0].ID() != key.Public().ID() || keys[0].Algorithm() != curve.algorithm {
					t.Errorf("read %d keys, want the one %s", len(keys), key.Public().ID())
				}
				if !bytes.Equal(keys[0].PEM(), key.Public().PEM()) {
					t.Error("written differently")
				}
			})
		}
		all = append(append(all, key.Public().PEM()...), "\n\r\n "...)
		ids = append(ids, key.Public().ID())
	}
	keys, err := signing.ParsePublicKeys(all)
	if err != nil || len(keys) != 2 || keys[0].ID() != ids[0] || keys[1].ID() != ids[1] {
		t.Errorf("several blocks: %d keys, %v", len(keys), err)
	}
}

// TestKeysRefused also checks that the error says what to do or what is wrong.
func TestKeysRefused(t *testing.T) {
	file, key := opensslKey(t, "prime256v1")
	other := newKey(t, signing.ES256)
	private, public := string(key.PEM()), string(key.Public().PEM())
	openssl := func(args ...string) string { return run(t, "", "openssl", args...) }
	sec1 := openssl("ec", "-in", file)
	edit := func(text string, change func(der []byte) []byte) string {
		block, _ := pem.Decode([]byte(text))
		block.Bytes = change(block.Bytes)
		return string(pem.EncodeToMemory(block))
	}
	swap := func(text, from, to string) string {
		return edit(text, func(der []byte) []byte { return bytes.Replace(der, []byte(from), []byte(to), 1) })
	}
	block, _ := pem.Decode(other.Public().PEM())
	otherPoint := block.Bytes[len(block.Bytes)-64:]
	tests := []struct{ name, data, says string }{
		{"empty", "", "no PEM"},
		{"text", "hello", "damaged"},
		{"text before", "# a key\n" + private, "text stands around"},
		{"text after", private + "x", "text stands around"},
		{"damaged block first", strings.Replace(public, "M", "!", 1) + public, "damaged"},
		{"cut", public[:100], "damaged"},
		{"headers", strings.Replace(public, "-----\n", "-----\nA: b\n\n", 1), ""},
		{"zero bytes", "\x00\x00" + public, "damaged"},
		{"RSA private", openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"), "elliptic"},
		{"Ed25519 private", openssl("genpkey", "-algorithm", "ed25519"), "elliptic"},
		{"P-384 private", openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"), "neither P-256"},
		{"P-384 SEC 1", openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout"), "neither P-256"},
		{"explicit SEC 1", openssl("ec", "-in", file, "-param_enc", "explicit"), "explicit"},
		{"explicit PKCS 8", openssl("pkcs8", "-topk8", "-nocrypt", "-in", explicitKey(t)), "explicit"},
		{"explicit public", openssl("ec", "-in", file, "-pubout", "-param_enc", "explicit"), "explicit"},
		{"encrypted PKCS 8", openssl("pkey", "-in", file, "-aes128", "-passout", "pass:x"), "encrypted"},
		{"encrypted SEC 1", openssl("ec", "-in", file, "-aes128", "-passout", "pass:x"), "encrypted"},
		{"hybrid public", openssl("pkey", "-in", file, "-pubout", "-ec_conv_form", "hybrid"), "neither uncompressed"},
		{"trailing bytes in private", edit(private, func(d []byte) []byte { return append(d, 0) }), "PKCS 8"},
		{"trailing bytes in SEC 1", edit(sec1, func(d []byte) []byte { return append(d, 0) }), "ECPrivateKey"},
		{"trailing bytes in public", edit(public, func(d []byte) []byte { return append(d, 0) }), "SubjectPublicKeyInfo"},
		{"longer sequence in public", edit(public, func(d []byte) []byte { d[1] += 2; return append(d, 5, 0) }), "DER"},
		{"point of another key", edit(private, func(d []byte) []byte { return append(d[:len(d)-64], otherPoint...) }), "does not belong"},
		{"point off the curve", edit(public, func(d []byte) []byte { d[len(d)-1] ^= 1; return d }), "not on P-256"},
		{"point at infinity", swap(public, "\x03\x42\x00\x04", "\x03\x42\x00\x00"), "neither uncompressed"},
		{"unused bits", swap(evenKey(t), "\x03\x42\x00\x04", "\x03\x42\x01\x04"), "whole bytes"},
		{"version 2 SEC 1", swap(sec1, "\x02\x01\x01", "\x02\x01\x02"), "ECPrivateKey"},
		{"version 1 PKCS 8", swap(private, "\x02\x01\x00", "\x02\x01\x01"), "PKCS 8"},
		{"no parameters", swap(sec1, "\xa0\x0a\x06", "\xa2\x0a\x06"), ""},
		{"two curves", twoCurves(), "two curves"},
		{"certificate", openssl("req", "-x509", "-key", file, "-subj", "/CN=x"), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, errPrivate := signing.ParsePrivateKey([]byte(test.data))
			_, errPublic := signing.ParsePublicKeys([]byte(test.data))
			if errPrivate == nil || errPublic == nil {
				t.Fatalf("accepted: as private %v, as public %v", errPrivate, errPublic)
			}
			if !strings.Contains(errPrivate.Error()+errPublic.Error(), test.says) {
				t.Errorf("errors %q and %q, want one with %q", errPrivate, errPublic, test.says)
			}
		})
	}
	for _, test := range []struct{ name, data, says string }{
		{"private as public", private, "keep it secret"},
		{"SEC 1 as public", sec1, "keep it secret"},
		{"private among public", public + private, "block 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := signing.ParsePublicKeys([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want one with %q", err, test.says)
			}
		})
	}
	for _, test := range []struct{ name, data, says string }{
		{"public as private", public, "public key where a private"},
		{"two private", private + private, "2 PEM blocks"},
		{"key before parameters", private + openssl("ecparam", "-name", "prime256v1"), "2 PEM blocks"},
		{"parameters alone", openssl("ecparam", "-name", "prime256v1"), "no private key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := signing.ParsePrivateKey([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want one with %q", err, test.says)
			}
		})
	}
}

func explicitKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "explicit.key")
	run(t, "", "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-param_enc", "explicit", "-out", file)
	return file
}

// evenKey makes a public key whose last bit is 0, as an unused bit must be.
func evenKey(t *testing.T) string {
	t.Helper()
	for {
		data := newKey(t, signing.ES256).Public().PEM()
		if block, _ := pem.Decode(data); block.Bytes[len(block.Bytes)-1]&1 == 0 {
			return string(data)
		}
	}
}

// twoCurves is a PKCS 8 structure for P-256 around an ECPrivateKey that says
// secp256k1.
func twoCurves() string {
	inner := slices.Concat([]byte("\x30\x2e\x02\x01\x01\x04\x20"), bytes.Repeat([]byte{7}, 32), []byte("\xa0\x07\x06\x05\x2b\x81\x04\x00\x0a"))
	outer := "\x30\x4a\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x30"
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: slices.Concat([]byte(outer), inner)}))
}
