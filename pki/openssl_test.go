package pki_test

import (
	"crypto/tls"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
)

// opensslPKI is a folder of keys and certificates made by openssl alone.
type opensslPKI struct {
	dir string
	now time.Time // two days after they were made
}

// newOpenSSLPKI makes an authority; newKey writes key files, for example
// `openssl genrsa`.
func newOpenSSLPKI(t *testing.T, newKey ...string) opensslPKI {
	t.Helper()
	p := opensslPKI{dir: t.TempDir()}
	openssl(t, p.dir, append(newKey, "-out", "ca.key")...)
	openssl(t, p.dir, "req", "-x509", "-key", "ca.key", "-subj", "/CN=Own CA", "-days", "30", "-out", "ca.crt")
	p.now = parseOne(t, read(t, p.path("ca.crt"))).NotBefore.Add(2 * day)
	return p
}

func (p opensslPKI) path(name string) string { return filepath.Join(p.dir, name) }

func (p opensslPKI) files(name string) pki.Files {
	return pki.Files{Certificate: p.path(name + ".crt"), Key: p.path(name + ".key"), CA: p.path("ca.crt")}
}

// issue makes name.key and name.crt; extensions are lines of an -extfile, ""
// for none at all.
func (p opensslPKI) issue(t *testing.T, name, subject, extensions, days string, newKey ...string) {
	t.Helper()
	openssl(t, p.dir, append(newKey, "-out", name+".key")...)
	openssl(t, p.dir, "req", "-new", "-key", name+".key", "-subj", subject, "-out", name+".csr")
	args := []string{"x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", "7", "-days", days, "-out", name + ".crt"}
	if extensions != "" {
		write(t, p.dir, name+".ext", []byte(extensions))
		args = append(args, "-extfile", name+".ext")
	}
	openssl(t, p.dir, args...)
}

const (
	serverExtensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"
	clientExtensions = "extendedKeyUsage=clientAuth\n"
)

func TestCertificatesMadeByOpenSSL(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		newKey []string
	}{
		{"EC SEC 1", []string{"ecparam", "-genkey", "-name", "prime256v1"}},
		{"EC PKCS 8", []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"}},
		{"RSA PKCS 1", []string{"genrsa", "-traditional"}},
		{"RSA PKCS 8", []string{"genrsa"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newOpenSSLPKI(t, tt.newKey...)
			p.issue(t, "server", "/CN=raspiflow", serverExtensions, "30", tt.newKey...)
			p.issue(t, "client", "/CN=sensor-1", clientExtensions, "30", tt.newKey...)
			p.issue(t, "plain", "/CN=sensor-2", "", "30", tt.newKey...)
			server := loadServer(t, p.files("server"), p.now)
			for _, name := range []string{"client", "plain"} {
				got, err := connect(t, server.Config(), clientConfig(t, p.files(name), p.now))
				if err != nil || got.err != nil {
					t.Errorf("%s: client %v, server %v", name, err, got.err)
				}
			}
		})
	}
}

func TestOpenSSLClient(t *testing.T) {
	t.Parallel()
	ec := []string{"ecparam", "-genkey", "-name", "prime256v1"}
	p, other := newOpenSSLPKI(t, ec...), newOpenSSLPKI(t, ec...)
	p.issue(t, "server", "/CN=raspiflow", serverExtensions, "30", ec...)
	p.issue(t, "client", "/CN=sensor-1", clientExtensions, "30", ec...)
	p.issue(t, "expired", "/CN=sensor-1", clientExtensions, "1", ec...)
	p.issue(t, "server-only", "/CN=sensor-1", serverExtensions, "30", ec...)
	p.issue(t, "bad-name", "/CN=sensor.1", clientExtensions, "30", ec...)
	p.issue(t, "two-names", "/CN=sensor-1/CN=operator", clientExtensions, "30", ec...)
	other.issue(t, "client", "/CN=sensor-1", clientExtensions, "30", ec...)
	openssl(t, p.dir, append(slices.Clone(ec), "-out", "self.key")...)
	openssl(t, p.dir, "req", "-x509", "-key", "self.key", "-subj", "/CN=sensor-1", "-out", "self.crt")
	server := loadServer(t, p.files("server"), p.now)

	with := func(f pki.Files) []string { return []string{"-cert", f.Certificate, "-key", f.Key} }
	tests := []struct {
		name   string
		args   []string
		server string // what the server finds; "" = welcome
		alert  string // what openssl is told
	}{
		{"good", with(p.files("client")), "", ""},
		{"good, TLS 1.3 asked for", append(with(p.files("client")), "-tls1_3"), "", ""},
		{"no certificate", nil, "didn't provide a certificate", "certificate required"},
		{"another authority", with(other.files("client")), "unknown authority", "unknown ca"},
		{"self-signed", with(p.files("self")), "unknown authority", "unknown ca"},
		{"expired", with(p.files("expired")), "has expired", "certificate expired"},
		{"serverAuth only", with(p.files("server-only")), "incompatible key usage", "bad certificate"},
		{"name outside the pattern", with(p.files("bad-name")), `"sensor.1" does not match`, "bad certificate"},
		{"two names", with(p.files("two-names")), "more than one common name", "bad certificate"},
		{"TLS 1.2", append(with(p.files("client")), "-tls1_2"), "unsupported versions", "protocol version"},
		{"TLS 1.1", append(with(p.files("client")), "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"), "unsupported versions", "protocol version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr, outcome := serve(t, server.Config())
			args := []string{
				"s_client", "-connect", addr, "-CAfile", p.path("ca.crt"), "-attime", unix(p.now),
				"-verify_return_error", "-verify_hostname", "localhost", "-quiet",
			}
			out, err := tryOpenSSL(t, p.dir, append(args, tt.args...)...)
			got := <-outcome
			if tt.server == "" {
				if got.err != nil || err != nil || !strings.Contains(out, "welcome") {
					t.Errorf("server %v, openssl %v:\n%s", got.err, err, out)
				}
				return
			}
			wantError(t, got.err, tt.server)
			if strings.Contains(out, "welcome") || !strings.Contains(out, "alert "+tt.alert) {
				t.Errorf("want alert %q, openssl printed:\n%s", tt.alert, out)
			}
		})
	}
}

func TestOpenSSLClientRefusesForeignServer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	write(t, f.dir, "foreign", newAuthority(t).CertificatePEM())
	addr, outcome := serve(t, loadServer(t, f.server, now).Config())
	out, err := tryOpenSSL(t, f.dir, "s_client", "-connect", addr, "-CAfile", "foreign", "-attime", unix(now),
		"-verify_return_error", "-quiet", "-cert", f.client.Certificate, "-key", f.client.Key)
	if err == nil || !strings.Contains(out, "unable to get local issuer certificate") {
		t.Errorf("%v\n%s", err, out)
	}
	if got := <-outcome; got.err == nil {
		t.Error("the server saw nothing of it")
	}
}

// A chain with an intermediate authority works in both directions.
func TestIntermediate(t *testing.T) {
	t.Parallel()
	ec := []string{"ecparam", "-genkey", "-name", "prime256v1"}
	root := newOpenSSLPKI(t, ec...)
	root.issue(t, "inter", "/CN=Intermediate", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n", "30", ec...)
	below := opensslPKI{dir: t.TempDir(), now: root.now}
	write(t, below.dir, "ca.crt", read(t, root.path("inter.crt")))
	write(t, below.dir, "ca.key", read(t, root.path("inter.key")))
	files := map[string]pki.Files{}
	for name, extensions := range map[string]string{"server": serverExtensions, "client": clientExtensions} {
		below.issue(t, name, "/CN="+name, extensions, "30", ec...)
		write(t, below.dir, name+".crt", append(read(t, below.path(name+".crt")), read(t, root.path("inter.crt"))...))
		f := below.files(name)
		f.CA = root.path("ca.crt")
		files[name] = f
	}
	server := loadServer(t, files["server"], root.now)
	got, err := connect(t, server.Config(), clientConfig(t, files["client"], root.now))
	if err != nil || got.err != nil {
		t.Fatalf("client %v, server %v", err, got.err)
	}
	if err := server.Check(got.state); err != nil {
		t.Error(err)
	}
	withoutChain := tls.ConnectionState{PeerCertificates: got.state.PeerCertificates[:1]}
	wantError(t, server.Check(withoutChain), "unknown authority")
}
