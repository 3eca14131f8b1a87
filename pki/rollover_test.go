package pki_test

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
)

// below has a root sign an authority for a new key, and gives its key and what the root answers.
func below(t *testing.T, root *pki.Authority, name string) (authority *pki.Authority, answer []byte) {
	t.Helper()
	key := newKey(t)
	request, err := pki.AuthorityRequest(name, []string{"raspi.local"}, key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := root.SignAuthority(request, now)
	if err != nil {
		t.Fatal(err)
	}
	answer = append(pki.EncodeCertificates(signed), root.CertificatePEM()...)
	if authority, err = pki.NewAuthority(answer, key); err != nil {
		t.Fatal(err)
	}
	return authority, answer
}

func cross(t *testing.T, by, of *pki.Authority) []byte {
	t.Helper()
	cert, err := by.Cross(of, now)
	if err != nil {
		t.Fatal(err)
	}
	return pki.EncodeCertificates(cert)
}

func createRoot(t *testing.T, name string) *pki.Authority {
	t.Helper()
	root, err := pki.CreateRoot(name, now)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Who asks names himself, and is not to be taken for somebody else: by people who read it on a terminal, or by a node that
// trusts the root and would let in an authority that is named as its operator.
func TestAuthorityNames(t *testing.T) {
	t.Parallel()
	root := createRoot(t, "root")
	for name, want := range map[string]string{
		"raspiflow authority":    "",
		"operator":               "could be that of a device",
		"":                       "not 1 to 64 printable",
		"a\x1b[2Jb":              "not 1 to 64 printable",
		strings.Repeat("a ", 33): "not 1 to 64 printable",
	} {
		request, err := pki.AuthorityRequest(name, []string{"raspi.local"}, newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = root.SignAuthority(request, now)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// What an authority below another may not certify would be believed by nobody: it says so instead.
func TestPermittedNames(t *testing.T) {
	t.Parallel()
	root := createRoot(t, "root")
	authority, _ := below(t, root, "node authority") // raspi.local
	for name, want := range map[string]bool{
		"raspi.local": true, "RASPI.local": true, "a.raspi.local": true, "192.0.2.1": true, "fe80::1": true,
		"local": false, "xraspi.local": false, "other.local": false, "localhost": false,
	} {
		if got := authority.Permits(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		if !root.Permits(name) {
			t.Errorf("%s: a root may certify everything", name)
		}
		// By what others make of it, and by what we make of it.
		cert, err := authority.RenewServer("node", []string{name}, newKey(t).Public(), time.Hour, now)
		if (err == nil) != want {
			t.Errorf("%s: certified: %v", name, err)
		}
		if err != nil {
			continue
		}
		options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
		options.Roots.AddCert(root.Certificate())
		options.Intermediates.AddCert(authority.Certificate())
		if _, err := cert.Verify(options); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An authority below another is replaced only by one that is good for who trusts no more than before.
func TestSuccession(t *testing.T) {
	t.Parallel()
	old, fresh, stranger := createRoot(t, "old"), createRoot(t, "new"), createRoot(t, "stranger")
	present, _ := below(t, old, "node authority")
	short, err := pki.CreateAuthority("no room for one in between", now)
	if err != nil {
		t.Fatal(err)
	}
	presentShort, _ := below(t, short, "node authority")
	newWithOld, oldWithNew := cross(t, old, fresh), cross(t, fresh, old)
	tests := []struct {
		name          string
		before, root  *pki.Authority
		crossing      []byte
		cross, former int
		want          string
	}{
		{"the same root", present, old, nil, 0, 0, ""},
		{"another root, each certified by the other", present, fresh, slices.Concat(newWithOld, oldWithNew), 1, 1, ""},
		{"another root, certified by the old one", present, fresh, newWithOld, 1, 0, ""},
		{"what is about others is left out", present, fresh, slices.Concat(newWithOld, oldWithNew, cross(t, stranger, fresh), cross(t, fresh, stranger)), 1, 1, ""},
		{"another root that nobody knows", present, fresh, nil, 0, 0, "unknown authority"},
		{"the wrong way round", present, fresh, oldWithNew, 0, 0, "unknown authority"},
		{"certified by a stranger", present, fresh, cross(t, stranger, fresh), 0, 0, "unknown authority"},
		{"a path that is too long", presentShort, fresh, cross(t, short, fresh), 0, 0, "too many intermediates"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			next, answer := below(t, tt.root, "node authority since")
			s, err := pki.NewSuccession(next, append(answer, tt.crossing...), tt.before.Anchors(), now)
			if tt.want != "" {
				wantError(t, err, tt.want)
				return
			}
			if err != nil || len(s.Cross) != tt.cross || len(s.Former) != tt.former {
				t.Fatalf("%+v, %v", s, err)
			}
			if got := len(next.Anchors()); got != 2 {
				t.Errorf("%d anchors: what is certified of a root is not above it", got)
			}
		})
	}
	if _, err := pki.NewSuccession(fresh, fresh.CertificatePEM(), present.Anchors(), now); err == nil || !strings.Contains(err.Error(), "does not hold the certificate") {
		t.Errorf("a root as the successor of a node's authority: %v", err)
	}
	if _, err := present.Cross(fresh, now); err == nil {
		t.Error("a node's authority certifies a root")
	}
}
