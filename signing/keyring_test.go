package signing_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pinseal/signing"
)

func TestReadKeyring(t *testing.T) {
	dir := t.TempDir()
	old, rotated, sensor := newKey(t, signing.ES256), newKey(t, signing.ES256K), newKey(t, signing.ES256)
	write(t, filepath.Join(dir, "operator.pem"), slices.Concat(old.Public().PEM(), rotated.Public().PEM()))
	write(t, filepath.Join(dir, "Sensor_1-a.pem"), sensor.Public().PEM())
	write(t, filepath.Join(dir, "README"), []byte("not a key"))
	write(t, filepath.Join(dir, ".operator.pem"), []byte("half written"))
	ring, err := signing.ReadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, s := range ring.Signers() {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, []string{"Sensor_1-a", "operator", "operator"}) {
		t.Errorf("signers %v", names)
	}
	for key, want := range map[*signing.PrivateKey]string{old: "operator", rotated: "operator", sensor: "Sensor_1-a"} {
		if s, ok := ring.Lookup(key.Public().ID()); !ok || s.Name != want || s.Key.ID() != key.Public().ID() {
			t.Errorf("lookup gives %v, %v, want %s", s.Name, ok, want)
		}
	}
	if _, ok := ring.Lookup(newKey(t, signing.ES256).Public().ID()); ok {
		t.Error("an unknown key is found")
	}
	ring.Signers()[0].Name = "changed"
	if ring.Signers()[0].Name == "changed" {
		t.Error("a caller can change the keyring")
	}
}

func TestReadKeyringEmpty(t *testing.T) {
	ring, err := signing.ReadKeyring(t.TempDir())
	if err != nil || len(ring.Signers()) != 0 {
		t.Errorf("%v, %v", ring, err)
	}
}

// A signer that is revoked while the folder is read is not there; a link that leads nowhere is a mistake.
func TestReadKeyringWhileSignersGo(t *testing.T) {
	dir, key := t.TempDir(), filepath.Join(t.TempDir(), "key")
	file := filepath.Join(dir, "a.pem")
	write(t, key, newKey(t, signing.ES256).Public().PEM())
	ended, read := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-ended:
				read <- nil
				return
			default:
			}
			if _, err := signing.ReadKeyring(dir); err != nil {
				read <- err
				return
			}
		}
	}()
	for range 2000 {
		if err := errors.Join(os.Link(key, file), os.Remove(file)); err != nil {
			t.Error(err)
		}
	}
	close(ended)
	if err := <-read; err != nil {
		t.Error(err)
	}
	if err := os.Symlink("nowhere", file); err != nil {
		t.Fatal(err)
	}
	if _, err := signing.ReadKeyring(dir); err == nil {
		t.Error("a link that leads nowhere was not noticed")
	}
}

func TestReadKeyringRefuses(t *testing.T) {
	key := newKey(t, signing.ES256)
	for _, test := range []struct {
		name, says string
		files      map[string][]byte
	}{
		{"bad name", "a b.pem", map[string][]byte{"a b.pem": key.Public().PEM()}},
		{"long name", "signer's name", map[string][]byte{strings.Repeat("a", 65) + ".pem": key.Public().PEM()}},
		{"private key", "secret.pem", map[string][]byte{"secret.pem": key.PEM()}},
		{"empty file", "empty.pem", map[string][]byte{"empty.pem": nil}},
		{"one bad file", "bad.pem", map[string][]byte{"good.pem": key.Public().PEM(), "bad.pem": []byte("x")}},
		{"two names", "for a and for b", map[string][]byte{"a.pem": key.Public().PEM(), "b.pem": key.Public().PEM()}},
		{"twice in a file", "given twice", map[string][]byte{"a.pem": slices.Concat(key.Public().PEM(), key.Public().PEM())}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range test.files {
				write(t, filepath.Join(dir, name), data)
			}
			if _, err := signing.ReadKeyring(dir); err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want one with %q and the folder", err, test.says)
			}
		})
	}
	if _, err := signing.ReadKeyring(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) && err == nil {
		t.Errorf("a missing folder: %v", err)
	}
	if _, err := signing.NewKeyring(signing.Signer{Name: "nobody"}); err == nil {
		t.Error("a signer without a key is accepted")
	}
}
