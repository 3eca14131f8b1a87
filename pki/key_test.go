package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/pki"
)

func TestParseKeyMadeByOpenSSL(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		script [][]string // openssl commands; the last writes key.pem
	}{
		{"P-256 SEC 1 with parameters", [][]string{{"ecparam", "-genkey", "-name", "prime256v1", "-out", "key.pem"}}},
		{"P-256 SEC 1 alone", [][]string{{"ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", "key.pem"}}},
		{"P-384 PKCS 8", [][]string{{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "key.pem"}}},
		{"P-521 PKCS 8", [][]string{{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", "key.pem"}}},
		{"Ed25519 PKCS 8", [][]string{{"genpkey", "-algorithm", "ed25519", "-out", "key.pem"}}},
		{"RSA PKCS 8", [][]string{{"genrsa", "-out", "key.pem", "2048"}}},
		{"RSA PKCS 1", [][]string{{"genrsa", "-traditional", "-out", "key.pem", "2048"}}},
		{"RSA with text around", [][]string{{"genrsa", "-out", "rsa.pem", "2048"}, {"rsa", "-in", "rsa.pem", "-text", "-out", "key.pem"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, command := range tt.script {
				openssl(t, dir, command...)
			}
			key, err := pki.ParseKey(read(t, filepath.Join(dir, "key.pem")))
			if err != nil {
				t.Fatal(err)
			}
			// What openssl derives from the same file is the same public key,
			// and what we write it reads.
			written, err := pki.MarshalKey(key)
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "ours.pem", written)
			want := openssl(t, dir, "pkey", "-in", "key.pem", "-pubout")
			if got := openssl(t, dir, "pkey", "-in", "ours.pem", "-pubout"); got != want {
				t.Errorf("public key changed:\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestParseKeyRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, command := range [][]string{
		{"ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", "good"},
		{"ec", "-in", "good", "-aes128", "-passout", "pass:x", "-out", "encrypted-sec1"},
		{"pkcs8", "-topk8", "-in", "good", "-passout", "pass:x", "-out", "encrypted-pkcs8"},
		{"pkey", "-in", "good", "-pubout", "-out", "public"},
		{"pkey", "-in", "good", "-outform", "DER", "-out", "der"},
		{"ecparam", "-genkey", "-noout", "-name", "secp224r1", "-out", "p224"},
		{"ecparam", "-genkey", "-noout", "-name", "secp256k1", "-out", "secp256k1"},
		{"genrsa", "-out", "rsa1024", "1024"},
		{"genpkey", "-algorithm", "x25519", "-out", "x25519"},
		{"req", "-x509", "-key", "good", "-subj", "/CN=a", "-out", "certificate"},
	} {
		openssl(t, dir, command...)
	}
	good := read(t, filepath.Join(dir, "good"))
	write(t, dir, "two", bytes.Repeat(good, 2))
	write(t, dir, "cut", good[:len(good)-20])
	write(t, dir, "cut-beside", append(read(t, filepath.Join(dir, "certificate")), good[:len(good)-20]...))
	write(t, dir, "no-base64", []byte(strings.Replace(string(good), "M", "!", 1)))
	write(t, dir, "empty", nil)
	write(t, dir, "wrong-content", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	tests := []struct{ file, want string }{
		{"encrypted-sec1", "encrypted"},
		{"encrypted-pkcs8", "encrypted"},
		{"public", "no PRIVATE KEY block, only PUBLIC KEY"},
		{"certificate", "no PRIVATE KEY block, only CERTIFICATE"},
		{"der", "not a PEM file"},
		{"empty", "not a PEM file"},
		{"p224", "P-224"},
		{"secp256k1", "unknown elliptic curve"},
		{"rsa1024", "1024 bits"},
		{"x25519", "cannot sign"},
		{"two", "more than one private key"},
		{"cut", "damaged"},
		{"cut-beside", "damaged"},
		{"no-base64", "damaged"},
		{"wrong-content", "parsing private key"},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			key, err := pki.ParseKey(read(t, filepath.Join(dir, tt.file)))
			wantError(t, err, tt.want)
			if key != nil {
				t.Error("a key beside the error")
			}
		})
	}
}

func TestGenerateKey(t *testing.T) {
	t.Parallel()
	one, two := newKey(t), newKey(t)
	key, ok := one.(*ecdsa.PrivateKey)
	if !ok || key.Curve.Params().Name != "P-256" {
		t.Errorf("made a %T, want ECDSA on P-256", one)
	}
	if key.Equal(two) {
		t.Error("two keys are the same")
	}
}
