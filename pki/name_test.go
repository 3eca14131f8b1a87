package pki_test

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pinseal/pki"

	"pgregory.net/rapid"
)

func TestValidName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		input string
		want  bool
	}{
		{"letter", "a", true},
		{"all kinds", "Sensor_1-b", true},
		{"longest", strings.Repeat("x", 64), true},
		{"too long", strings.Repeat("x", 65), false},
		{"empty", "", false},
		{"space", "a b", false},
		{"dot", "a.b", false},
		{"slash", "a/b", false},
		{"wildcard", "+", false},
		{"NUL", "a\x00", false},
		{"line feed at the end", "a\n", false},
		{"umlaut", "jürgen", false},
		{"Cyrillic a", "аdmin", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := pki.ValidName(tt.input); got != tt.want {
				t.Errorf("ValidName(%q) = %v, want %v", tt.input, got, tt.want)
			}
		})
	}
}

// Whatever is asked for, a certificate is issued for exactly the names of the
// pattern, and carries that name and no other.
func TestIssuedNamesMatchThePattern(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(`\A[A-Za-z0-9_-]{1,64}\z`)
	authority, key := newAuthority(t), newKey(t)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(
			rapid.String(),
			rapid.StringMatching(`[A-Za-z0-9_-]{1,66}`),
			rapid.StringMatching(`[A-Za-z0-9_-]{0,5}[^A-Za-z0-9_-][A-Za-z0-9_-]{0,5}`),
		).Draw(t, "name")
		client, clientErr := authority.IssueClient(name, key.Public(), now)
		server, serverErr := authority.IssueServer(name, []string{"localhost"}, key.Public(), now)
		if want := pattern.MatchString(name); (clientErr == nil) != want || (serverErr == nil) != want {
			t.Fatalf("%q: client %v, server %v, want issued %v", name, clientErr, serverErr, want)
		}
		if clientErr != nil {
			if client != nil || server != nil {
				t.Fatalf("%q: an error and a certificate", name)
			}
			return
		}
		certs, err := pki.ParseCertificates(client)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pki.Identity(certs[0]); got != name || err != nil {
			t.Fatalf("Identity = %q, %v, want %q", got, err, name)
		}
	})
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		subject string
		want    string
		refused string
	}{
		{name: "common name alone", subject: "/CN=sensor-1", want: "sensor-1"},
		{name: "among others", subject: "/C=DE/O=Lab/CN=sensor_2/OU=x", want: "sensor_2"},
		{name: "none", subject: "/O=Lab", refused: "no common name"},
		{name: "two", subject: "/CN=operator/CN=sensor-1", refused: "more than one"},
		{name: "the same twice", subject: "/CN=sensor-1/CN=sensor-1", refused: "more than one"},
		{name: "two in one RDN", subject: "/CN=operator+CN=sensor-1", refused: "more than one"},
		{name: "a dot", subject: "/CN=raspi.local", refused: "does not match"},
		{name: "a space at the end", subject: "/CN=sensor-1 ", refused: "does not match"},
		{name: "a wildcard", subject: "/CN=#", refused: "does not match"},
	}
	dir := t.TempDir()
	openssl(t, dir, "ecparam", "-genkey", "-name", "prime256v1", "-out", "key.pem")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out := strings.ReplaceAll(tt.name, " ", "-") + ".pem"
			openssl(t, dir, "req", "-x509", "-key", "key.pem", "-subj", tt.subject, "-multivalue-rdn", "-out", out)
			got, err := pki.Identity(parseOne(t, read(t, dir+"/"+out)))
			if tt.refused != "" {
				wantError(t, err, tt.refused)
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("Identity = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestLocalNames(t *testing.T) {
	t.Parallel()
	names, err := pki.LocalNames()
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	for _, want := range []string{strings.ToLower(host), label + ".local", "localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(names, want) {
			t.Errorf("%q is missing in %q", want, names)
		}
	}
	sorted := slices.Sorted(slices.Values(names))
	if compact := slices.Compact(slices.Clone(sorted)); len(compact) != len(names) {
		t.Errorf("names appear twice: %q", sorted)
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() != "" {
			t.Errorf("%q has a zone", name)
		}
	}
	// What it lists can be issued.
	if _, err := newAuthority(t).IssueServer("raspiflow", names, newKey(t).Public(), now); err != nil {
		t.Error(err)
	}
}
