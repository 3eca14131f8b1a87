package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
)

const day = 24 * time.Hour

func TestProfiles(t *testing.T) {
	t.Parallel()
	authority, key := newAuthority(t), newKey(t)
	ca := authority.Certificate()
	if !ca.IsCA || ca.MaxPathLen != 1 || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("authority: CA %v, path length %d, key usage %b", ca.IsCA, ca.MaxPathLen, ca.KeyUsage)
	}
	if want := now.Add(-day).AddDate(20, 0, 0); !ca.NotBefore.Equal(now.Add(-day)) || !ca.NotAfter.Equal(want) {
		t.Errorf("authority valid %s to %s", ca.NotBefore, ca.NotAfter)
	}

	serverPEM, err := authority.IssueServer("raspiflow", []string{"raspi.local", "::ffff:10.0.0.1", "::1", "raspi.local"}, key.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	clientPEM, err := authority.IssueClient("sensor-1", key.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	server, client := parseOne(t, serverPEM), parseOne(t, clientPEM)
	if !slices.Equal(server.DNSNames, []string{"raspi.local"}) {
		t.Errorf("server: DNS names %q", server.DNSNames)
	}
	if got := fmt.Sprint(server.IPAddresses); got != "[10.0.0.1 ::1]" {
		t.Errorf("server: addresses %s", got)
	}
	for _, leaf := range []struct {
		cert  *x509.Certificate
		usage x509.ExtKeyUsage
	}{{server, x509.ExtKeyUsageServerAuth}, {client, x509.ExtKeyUsageClientAuth}} {
		cert := leaf.cert
		if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{leaf.usage}) || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("%s: extended key usage %v, key usage %b", cert.Subject, cert.ExtKeyUsage, cert.KeyUsage)
		}
		if cert.IsCA || !cert.BasicConstraintsValid || cert.SignatureAlgorithm != x509.ECDSAWithSHA256 {
			t.Errorf("%s: CA %v, %s", cert.Subject, cert.IsCA, cert.SignatureAlgorithm)
		}
		if !cert.NotBefore.Equal(now.Add(-day)) || cert.NotAfter.Sub(cert.NotBefore) != 825*day {
			t.Errorf("%s: valid %s to %s", cert.Subject, cert.NotBefore, cert.NotAfter)
		}
		if len(cert.SubjectKeyId) == 0 || !bytes.Equal(cert.AuthorityKeyId, ca.SubjectKeyId) {
			t.Errorf("%s: key identifiers %x, %x", cert.Subject, cert.SubjectKeyId, cert.AuthorityKeyId)
		}
		if bits := cert.SerialNumber.BitLen(); bits < 90 || bits > 128 {
			t.Errorf("%s: serial number of %d bits, want 128 at random", cert.Subject, bits)
		}
	}
	if client.SerialNumber.Cmp(server.SerialNumber) == 0 {
		t.Error("two certificates with one serial number")
	}
	if len(client.DNSNames)+len(client.IPAddresses) != 0 {
		t.Error("client certificate has subject alternative names")
	}
}

func TestOpenSSLVerifiesWhatWeIssue(t *testing.T) {
	t.Parallel()
	authority, dir := newAuthority(t), t.TempDir()
	issueServer(t, authority, dir, now)
	issueClient(t, authority, dir, "sensor-1", now)
	write(t, dir, "ca", authority.CertificatePEM())
	write(t, dir, "foreign", newAuthority(t).CertificatePEM())
	tests := []struct {
		name string
		file string
		args []string
		want string // "" = OK
	}{
		{"server as server", "server.crt", []string{"-purpose", "sslserver", "-verify_hostname", "localhost", "-CAfile", "ca"}, ""},
		{"server by address", "server.crt", []string{"-purpose", "sslserver", "-verify_ip", "127.0.0.1", "-CAfile", "ca"}, ""},
		{"client as client", "sensor-1.crt", []string{"-purpose", "sslclient", "-CAfile", "ca"}, ""},
		{"authority", "ca", []string{"-CAfile", "ca", "-check_ss_sig"}, ""},
		{"server as client", "server.crt", []string{"-purpose", "sslclient", "-CAfile", "ca"}, "unsuitable certificate purpose"},
		{"client as server", "sensor-1.crt", []string{"-purpose", "sslserver", "-CAfile", "ca"}, "unsuitable certificate purpose"},
		{"server by another name", "server.crt", []string{"-verify_hostname", "example.org", "-CAfile", "ca"}, "hostname mismatch"},
		{"foreign authority of the same name", "sensor-1.crt", []string{"-CAfile", "foreign"}, "unable to get local issuer certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			args := slices.Concat([]string{"verify", "-x509_strict", "-attime", unix(now)}, tt.args, []string{tt.file})
			out, err := tryOpenSSL(t, dir, args...)
			if tt.want == "" && err != nil {
				t.Errorf("refused: %s", out)
			}
			if tt.want != "" && (err == nil || !strings.Contains(out, tt.want)) {
				t.Errorf("%v: %s\nwant %q", err, out, tt.want)
			}
		})
	}
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func TestAuthorityRoundTrip(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	keyPEM, err := authority.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.ParseAuthority(authority.CertificatePEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Certificate().Equal(authority.Certificate()) {
		t.Error("certificate changed")
	}
	if _, err := again.IssueClient("a", newKey(t).Public(), now); err != nil {
		t.Error(err)
	}
}

func TestParseAuthorityMadeByOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Own CA", "-days", "30", "-keyout", "ca.key", "-out", "ca.crt")
	authority, err := pki.ParseAuthority(read(t, filepath.Join(dir, "ca.crt")), read(t, filepath.Join(dir, "ca.key")))
	if err != nil {
		t.Fatal(err)
	}
	ca := authority.Certificate()
	issued := ca.NotBefore.Add(time.Hour)
	cert, err := authority.IssueClient("sensor-1", newKey(t).Public(), issued)
	if err != nil {
		t.Fatal(err)
	}
	if leaf := parseOne(t, cert); !leaf.NotAfter.Equal(ca.NotAfter) {
		t.Errorf("valid until %s, after the authority's end %s", leaf.NotAfter, ca.NotAfter)
	}
	write(t, dir, "leaf.crt", cert)
	openssl(t, dir, "verify", "-purpose", "sslclient", "-attime", unix(issued), "-CAfile", "ca.crt", "leaf.crt")

	_, err = authority.IssueClient("sensor-1", newKey(t).Public(), ca.NotAfter.Add(time.Second))
	wantError(t, err, "Own CA", "expired")
}

func TestParseAuthorityRefuses(t *testing.T) {
	t.Parallel()
	authority, dir := newAuthority(t), t.TempDir()
	files := issueClient(t, authority, dir, "sensor-1", now)
	caKey, err := authority.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	openssl(t, dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=no sign",
		"-addext", "keyUsage=digitalSignature", "-keyout", "usage.key", "-out", "usage.crt")
	ca := authority.CertificatePEM()
	tests := []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"leaf certificate", read(t, files.Certificate), read(t, files.Key), "CA:TRUE"},
		{"without keyCertSign", read(t, dir+"/usage.crt"), read(t, dir+"/usage.key"), "keyCertSign"},
		{"another key", ca, read(t, files.Key), "does not belong"},
		{"swapped", caKey, ca, "authority's key: no PRIVATE KEY block"},
		{"no key", ca, nil, "authority's key: not a PEM file"},
		{"two others", append(bytes.Clone(newAuthority(t).CertificatePEM()), newAuthority(t).CertificatePEM()...), caKey, "does not belong"},
		{"a leaf beside it", append(bytes.Clone(read(t, files.Certificate)), ca...), caKey, "CA:TRUE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := pki.ParseAuthority(tt.cert, tt.key)
			wantError(t, err, tt.want)
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	authority, pub := newAuthority(t), newKey(t).Public()
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		names []string
		pub   crypto.PublicKey
		now   time.Time
		want  string
	}{
		{"no names", nil, pub, now, "at least one"},
		{"empty name", []string{""}, pub, now, "neither a DNS name nor an IP"},
		{"wildcard", []string{"*.example.org"}, pub, now, "neither"},
		{"URL", []string{"mqtts://raspi"}, pub, now, "neither"},
		{"zone", []string{"fe80::1%eth0"}, pub, now, "neither"},
		{"empty label", []string{"a..b"}, pub, now, "neither"},
		{"long label", []string{strings.Repeat("a", 64)}, pub, now, "neither"},
		{"long name", []string{strings.Repeat("a.", 127)}, pub, now, "253 bytes"},
		{"P-224", []string{"a"}, p224.Public(), now, "P-224"},
		{"no key", []string{"a"}, nil, now, "unsupported public key"},
		{"short RSA", []string{"a"}, &rsa.PublicKey{N: newAuthority(t).Certificate().SerialNumber, E: 65537}, now, "bits"},
		{"after the authority's end", []string{"a"}, pub, now.AddDate(20, 0, 0), "expired"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := authority.IssueServer("node", tt.names, tt.pub, tt.now)
			wantError(t, err, tt.want)
		})
	}
}

func TestCreateAuthorityRefusesNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", strings.Repeat("x", 65), "a\nb", "ü"} {
		if _, err := pki.CreateAuthority(name, now); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
}
