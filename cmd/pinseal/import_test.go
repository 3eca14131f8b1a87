package main

import (
	"os"
	"path/filepath"
	"testing"

	"pinseal/internal/mosquitto"
)

// FuzzImport: whatever mosquitto.conf says, what is made of it is a configuration, and lets nobody in whom it should not:
// a listener without TLS that others can reach is written out as one, and one without password has said so.
func FuzzImport(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "mosquitto.conf")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		lines, err := mosquitto.Read(path)
		if err != nil {
			return
		}
		i := &imported{Config: mosquitto.Translate(lines), from: path, node: "n", chip: "sim", out: filepath.Join(t.TempDir(), "out.toml")}
		i.resolve(filepath.Dir(path))
		if len(i.Listeners) == 0 {
			return
		}
		cfg, err := parseConfig([]byte(i.text()))
		if err != nil {
			t.Fatalf("%v\n%s", err, i.text())
		}
		for n, l := range cfg.Listeners {
			if from := i.Listeners[n]; l.tls() != from.TLS || l.AllowAnonymous != from.AllowAnonymous || l.requiresCertificate() != from.RequireCertificate {
				t.Errorf("%+v was made of %+v", l, from)
			}
		}
	})
}

// TestImportSeeds: a fuzz target whose seeds are gone tests nothing.
func TestImportSeeds(t *testing.T) {
	if seeds, err := os.ReadDir("testdata/fuzz/FuzzImport"); err != nil || len(seeds) < 4 {
		t.Errorf("%d seeds, %v", len(seeds), err)
	}
}
