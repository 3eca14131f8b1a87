package pki_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pinseal/pki"
)

// What we encrypt OpenSSL reads, and the other way round.
func TestEncryptedKeys(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), newKey(t)
	ours, err := pki.EncryptKey(key, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ours", ours)
	openssl(t, dir, "pkey", "-in", "ours", "-passin", "pass:correct horse", "-out", "plain")
	for _, args := range [][]string{
		{"-aes256"}, {"-aes128"}, {"-aes-192-cbc"},
	} {
		openssl(t, dir, append([]string{"pkey", "-in", "plain", "-passout", "pass:battery staple", "-out", "theirs"}, args...)...)
		theirs := read(t, filepath.Join(dir, "theirs"))
		if _, err := pki.DecryptKey(theirs, []byte("battery staple")); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if _, err := pki.DecryptKey(theirs, []byte("battery")); !errors.Is(err, pki.ErrPassphrase) {
			t.Errorf("%v: a wrong passphrase: %v", args, err)
		}
		if _, err := pki.ParseKey(theirs); !errors.Is(err, pki.ErrEncrypted) {
			t.Errorf("%v: without a passphrase: %v", args, err)
		}
	}
	openssl(t, dir, "pkcs8", "-topk8", "-in", "plain", "-passout", "pass:x", "-v2", "aes256", "-v2prf", "hmacWithSHA512", "-iter", "1000", "-out", "sha512")
	if got, err := pki.DecryptKey(read(t, filepath.Join(dir, "sha512")), []byte("x")); err != nil {
		t.Error(err)
	} else if cert, err := newAuthority(t).IssueClient("x", got.Public(), now); err != nil || !pki.Belongs(key, parseOne(t, cert)) {
		t.Errorf("another key came out: %v", err)
	}
}

func TestEncryptedKeysAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := pki.EncryptKey(newKey(t), nil); err == nil {
		t.Error("an empty passphrase")
	}
	openssl(t, dir, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "plain")
	openssl(t, dir, "pkcs8", "-topk8", "-in", "plain", "-passout", "pass:x", "-v2", "des3", "-out", "des3")
	openssl(t, dir, "pkcs8", "-topk8", "-in", "plain", "-passout", "pass:x", "-v2", "aes256", "-iter", "10000001", "-out", "slow")
	openssl(t, dir, "pkcs8", "-topk8", "-in", "plain", "-passout", "pass:x", "-scrypt", "-out", "scrypt")
	good, err := pki.EncryptKey(newKey(t), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cut", good[:len(good)/2])
	for name, want := range map[string]string{
		"plain": "not an ENCRYPTED PRIVATE KEY", "des3": "otherwise than by AES-CBC", "slow": "at most 10000000", "scrypt": "otherwise than by PBKDF2", "cut": "not an ENCRYPTED",
	} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pki.DecryptKey(data, []byte("x"))
		wantError(t, err, want)
	}
}
