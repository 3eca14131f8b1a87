package pki_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"pinseal/pki"
)

// fixture is a folder with everything a refusal needs.
type fixture struct {
	dir            string
	server, client pki.Files
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	dir, authority := t.TempDir(), newAuthority(t)
	f := fixture{dir, issueServer(t, authority, dir, now), issueClient(t, authority, dir, "sensor-1", now)}
	write(t, dir, "empty", nil)
	write(t, dir, "text", []byte("hello"))
	write(t, dir, "der", parseOne(t, read(t, f.server.Certificate)).Raw)
	cert := read(t, f.server.Certificate)
	write(t, dir, "cut", cert[:len(cert)/2])
	write(t, dir, "folder-file", nil)
	return f
}

func (f fixture) path(name string) string { return filepath.Join(f.dir, name) }

func TestLoadServerRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	end := parseOne(t, read(t, f.server.Certificate)).NotAfter
	tests := []struct {
		name   string
		change func(*pki.Files)
		now    time.Time
		file   string
		want   []string
	}{
		{"certificate missing", func(s *pki.Files) { s.Certificate = f.path("none") }, now, "none", []string{"none: no such file"}},
		{"key missing", func(s *pki.Files) { s.Key = f.path("none") }, now, "none", []string{"none: no such file"}},
		{"CA missing", func(s *pki.Files) { s.CA = f.path("none") }, now, "none", []string{"none: no such file"}},
		{"certificate is text", func(s *pki.Files) { s.Certificate = f.path("text") }, now, "text", []string{"not a PEM file"}},
		{"certificate is DER", func(s *pki.Files) { s.Certificate = f.path("der") }, now, "der", []string{"not a PEM file"}},
		{"certificate is cut", func(s *pki.Files) { s.Certificate = f.path("cut") }, now, "cut", []string{"damaged PEM block"}},
		{"certificate is a key", func(s *pki.Files) { s.Certificate = s.Key }, now, "server.key", []string{"no CERTIFICATE block"}},
		{"key is a certificate", func(s *pki.Files) { s.Key = s.Certificate }, now, "server.crt", []string{"no PRIVATE KEY block"}},
		{"key is empty", func(s *pki.Files) { s.Key = f.path("empty") }, now, "empty", []string{"not a PEM file"}},
		{"key of another", func(s *pki.Files) { s.Key = f.client.Key }, now, "sensor-1.key", []string{"does not belong", f.server.Certificate, "raspiflow"}},
		{"client certificate", func(s *pki.Files) { s.Certificate, s.Key = f.client.Certificate, f.client.Key }, now, "sensor-1.crt", []string{"not for a TLS server", "serverAuth"}},
		{"CA is a leaf", func(s *pki.Files) { s.CA = s.Certificate }, now, "server.crt", []string{"not an authority", "CA:TRUE"}},
		{"CA is empty", func(s *pki.Files) { s.CA = f.path("empty") }, now, "empty", []string{"not a PEM file"}},
		{"no CA", func(s *pki.Files) { s.CA = "" }, now, "", []string{"no such file"}},
		{"certificate expired", func(*pki.Files) {}, end.Add(time.Second), "server.crt", []string{"raspiflow", "expired on 2033-08-07 07:08 UTC"}},
		{"authority expired", func(s *pki.Files) { s.CA = oldAuthority(t, f.dir) }, now, "old-ca", []string{"old authority", "expired on 2021-05-05"}},
		{"a folder", func(s *pki.Files) { s.Key = f.dir }, now, ".", []string{"is a directory"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := f.server
			tt.change(&files)
			server, err := pki.LoadServer(files, 0, at(tt.now))
			want := f.path(tt.file)
			if tt.file == "" {
				want = ""
			}
			wantFileError(t, err, want, tt.want...)
			if server != nil {
				t.Error("a server beside the error")
			}
		})
	}
}

func oldAuthority(t *testing.T, dir string) string {
	t.Helper()
	authority, err := pki.CreateAuthority("old authority", now.AddDate(-30, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, "old-ca", authority.CertificatePEM())
}

func TestMissingFileIsErrNotExist(t *testing.T) {
	t.Parallel()
	if _, err := pki.LoadServer(pki.Files{Certificate: "/none"}, 0, at(now)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

func TestUnreadableFileHasAHint(t *testing.T) {
	t.Parallel()
	// A path through a file is refused for root too, unlike a mode of 0000.
	f := newFixture(t)
	f.server.Key = f.path("folder-file") + "/key"
	_, err := pki.LoadServer(f.server, 0, at(now))
	wantFileError(t, err, f.server.Key, "not a directory")
}

func TestExpiredAuthorityBesideAValidOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bundle := append(read(t, oldAuthority(t, f.dir)), read(t, f.server.CA)...)
	f.server.CA = write(t, f.dir, "bundle", bundle)
	loadServer(t, f.server, now)
}

func TestLoadServerVersions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for version, want := range map[uint16]uint16{0: tls.VersionTLS13, tls.VersionTLS13: tls.VersionTLS13, tls.VersionTLS12: tls.VersionTLS12} {
		server, err := pki.LoadServer(f.server, version, at(now))
		if err != nil {
			t.Fatal(err)
		}
		if got := server.Config().MinVersion; got != want {
			t.Errorf("version %#x: minimum is %#x, want %#x", version, got, want)
		}
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, 1} {
		if _, err := pki.LoadServer(f.server, version, at(now)); err == nil {
			t.Errorf("version %#x: no error", version)
		}
	}
}

func TestClientConfigRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	tests := []struct {
		name   string
		change func(*pki.Files)
		now    time.Time
		file   string
		want   string
	}{
		{"server certificate", func(c *pki.Files) { c.Certificate, c.Key = f.server.Certificate, f.server.Key }, now, "server.crt", "clientAuth"},
		{"expired", func(*pki.Files) {}, now.AddDate(3, 0, 0), "sensor-1.crt", "expired on"},
		{"key of another", func(c *pki.Files) { c.Key = f.server.Key }, now, "server.key", "does not belong"},
		{"CA is a leaf", func(c *pki.Files) { c.CA = c.Certificate }, now, "sensor-1.crt", "not an authority"},
		{"CA missing", func(c *pki.Files) { c.CA = f.path("none") }, now, "none", "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := f.client
			tt.change(&files)
			_, err := pki.ClientConfig(files, "localhost", at(tt.now))
			wantFileError(t, err, f.path(tt.file), tt.want)
		})
	}
	_, err := pki.ClientConfig(f.client, "", at(now))
	wantError(t, err, "server name")
	_, err = pki.ClientConfig(pki.Files{Certificate: f.client.Certificate, CA: f.client.CA}, "localhost", at(now))
	wantError(t, err, "together")
	_, err = pki.ClientConfig(pki.Files{Key: f.client.Key, CA: f.client.CA}, "localhost", at(now))
	wantError(t, err, "together")
}

func TestParseCertificates(t *testing.T) {
	t.Parallel()
	one, two := newAuthority(t).CertificatePEM(), newAuthority(t).CertificatePEM()
	text := []byte("Certificate:\n    Data: as openssl x509 -text writes it\n")
	certs, err := pki.ParseCertificates(bytes.Join([][]byte{text, one, text, two, text}, nil))
	if err != nil || len(certs) != 2 {
		t.Errorf("%d certificates, %v, want 2", len(certs), err)
	}
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"second one cut", append(bytes.Clone(one), two[:len(two)-30]...), "damaged"},
		{"first one cut", append(bytes.Clone(one[:len(one)-30]), two...), "damaged"},
		{"not a certificate inside", []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), "parsing certificate"},
		{"a request", []byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"), "only CERTIFICATE REQUEST"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := pki.ParseCertificates(tt.data)
			wantError(t, err, tt.want)
		})
	}
}
