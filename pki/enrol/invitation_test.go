package enrol_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/pki"
	"pinseal/pki/enrol"
)

const line = "raspiflow.local:8443/sensor-7/ABCDEFGHIJKLMNOPQRSTUVWXYZ/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestInvitation(t *testing.T) {
	t.Parallel()
	for _, text := range []string{line, " " + line + "\n", strings.Replace(line, "ABC", "abc", 1), strings.Replace(line, "abcdef", "ABCDEF", 2)} {
		i, err := enrol.ParseInvitation(text)
		if err != nil || i.String() != line {
			t.Errorf("%q: %s, %v", text, i, err)
		}
	}
	if i, err := enrol.ParseInvitation(strings.Replace(line, "raspiflow.local", "[fe80::1]", 1)); err != nil || i.Host != "fe80::1" || i.Port != 8443 {
		t.Errorf("%+v, %v", i, err)
	}
	for what, text := range map[string]string{
		"nothing": "", "three parts": "a:1/b/c", "five parts": line + "/x", "no port": strings.Replace(line, ":8443", "", 1),
		"port 0": strings.Replace(line, "8443", "0", 1), "port too high": strings.Replace(line, "8443", "65536", 1), "no host": strings.Replace(line, "raspiflow.local", "", 1),
		"bad name": strings.Replace(line, "sensor-7", "sensor 7", 1), "short code": strings.Replace(line, "ABC", "AB", 1), "bad code": strings.Replace(line, "ABC", "AB1", 1),
		"short fingerprint": line[:len(line)-1], "bad fingerprint": line[:len(line)-1] + "g", "host with a space": strings.Replace(line, "raspi", "raspi ", 1),
	} {
		if _, err := enrol.ParseInvitation(text); err == nil {
			t.Errorf("%s: no error", what)
		} else if strings.Contains(err.Error(), "DEFGHIJ") {
			t.Errorf("%s: the code is in the error: %v", what, err)
		}
	}
}

// A line that was understood is printed as it was meant, and names no file or host that it should not.
func FuzzParseInvitation(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		i, err := enrol.ParseInvitation(text)
		if err != nil {
			return
		}
		if !pki.ValidName(i.Name) || i.Port == 0 || i.Host == "" {
			t.Fatalf("%+v", i)
		}
		if again, err := enrol.ParseInvitation(i.String()); err != nil || again != i {
			t.Fatalf("%q became %+v (%v)", i, again, err)
		}
	})
}

func TestFuzzTargetsHaveSeeds(t *testing.T) {
	t.Parallel()
	for target, atLeast := range map[string]int{"FuzzParseInvitation": 4, "FuzzSign": 4} {
		seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", target))
		if err != nil || len(seeds) < atLeast {
			t.Errorf("%s has %d seeds, want at least %d (%v)", target, len(seeds), atLeast, err)
		}
	}
}
