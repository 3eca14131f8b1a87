package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pinseal/pki"
)

// Who trusts the old authority only, the new one only, or both, connects to a server of the new one.
func TestCross(t *testing.T) {
	t.Parallel()
	old := newAuthority(t)
	fresh, err := pki.CreateAuthority("test authority since", now)
	if err != nil {
		t.Fatal(err)
	}
	cross, err := old.Cross(fresh, now)
	if err != nil {
		t.Fatal(err)
	}
	if !cross.MaxPathLenZero || cross.NotAfter.After(old.Certificate().NotAfter) {
		t.Errorf("cross certificate: path length zero %v, until %v", cross.MaxPathLenZero, cross.NotAfter)
	}
	if _, err := pki.ParseAuthority(pki.EncodeCertificates(fresh.Certificate(), old.Certificate()), authorityKeyPEM(t, old)); err != nil {
		t.Errorf("the old authority among both: %v", err)
	}
	dir := t.TempDir()
	files := issueServer(t, fresh, dir, now)
	write(t, dir, "server.crt", append(read(t, files.Certificate), pki.EncodeCertificates(cross)...))
	write(t, dir, "server.ca", pki.EncodeCertificates(fresh.Certificate(), old.Certificate()))
	for name, issuer := range map[string]*pki.Authority{"old": old, "new": fresh} {
		for anchors, ca := range map[string][]byte{
			"old": old.CertificatePEM(), "new": fresh.CertificatePEM(), "both": pki.EncodeCertificates(fresh.Certificate(), old.Certificate()),
		} {
			client := issueClient(t, issuer, t.TempDir(), "sensor-1", now)
			client.CA = write(t, t.TempDir(), "ca", ca)
			got, err := connect(t, loadServer(t, files, now).Config(), clientConfig(t, client, now))
			if err != nil || got.err != nil {
				t.Errorf("certified by the %s one, trusting %s: client %v, server %v", name, anchors, err, got.err)
			}
		}
	}
	openssl(t, dir, "verify", "-attime", timeText(now), "-CAfile", write(t, dir, "old", old.CertificatePEM()), "-untrusted", "server.crt", "server.crt")
	// The other way round: a server that still shows what the old one issued, a client that knows the new one only.
	former, err := fresh.Cross(old, now)
	if err != nil {
		t.Fatal(err)
	}
	files = issueServer(t, old, t.TempDir(), now)
	client := issueClient(t, fresh, t.TempDir(), "sensor-1", now)
	client.CA, files.CA = write(t, dir, "new", fresh.CertificatePEM()), write(t, dir, "server.ca", fresh.CertificatePEM())
	if _, err := connect(t, loadServer(t, files, now).Config(), clientConfig(t, client, now)); err == nil {
		t.Error("the old one is trusted by whom nobody has told")
	}
	write(t, dir, "server.crt", append(read(t, files.Certificate), pki.EncodeCertificates(former)...))
	files.Certificate = filepath.Join(dir, "server.crt")
	if got, err := connect(t, loadServer(t, files, now).Config(), clientConfig(t, client, now)); err != nil || got.err != nil {
		t.Errorf("trusting the new one only: client %v, server %v", err, got.err)
	}
	openssl(t, dir, "verify", "-attime", timeText(now), "-CAfile", "new", "-untrusted", "server.crt", "server.crt")
	if _, err := fresh.Cross(old, now.Add(21*366*day)); err == nil {
		t.Error("an expired authority certifies another")
	}
}

func authorityKeyPEM(t *testing.T, a *pki.Authority) []byte {
	t.Helper()
	key, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func timeText(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// Where certificates are renewed, one that has expired counts for a while; nowhere else, and nothing else of it.
func TestRenewalGrace(t *testing.T) {
	t.Parallel()
	authority, dir := newAuthority(t), t.TempDir()
	expired := issueClient(t, authority, dir, "sensor-1", now.Add(-825*day))
	stranger := issueClient(t, newAuthority(t), t.TempDir(), "sensor-1", now.Add(-825*day))
	revoked := issueClient(t, authority, t.TempDir(), "lost", now.Add(-825*day))
	files := issueServer(t, authority, dir, now)
	var denied pki.DenyList
	denied.Deny("lost", nil, now)
	files.Denied = write(t, dir, "denied", denied.Text())
	server := loadServer(t, files, now)
	end := parseOne(t, read(t, expired.Certificate)).NotAfter
	over := now.Sub(end)
	if over <= 0 {
		t.Fatal("the certificate has not expired")
	}
	stranger.CA, revoked.CA = expired.CA, expired.CA
	tests := []struct {
		name   string
		client pki.Files
		grace  time.Duration
		want   string
	}{
		{"within grace", expired, over, ""},
		{"a second too late", expired, over - time.Second, "expired"},
		{"no grace", expired, 0, "expired"},
		{"of a stranger", stranger, over, "unknown authority"},
		{"revoked", revoked, over, "revoked"},
		{"another purpose", files, over, "incompatible key usage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := raw(t, tt.client)
			got, err := connect(t, server.RenewalConfig(tt.grace), client)
			if tt.want != "" {
				wantError(t, got.err, tt.want)
			} else if err != nil || got.err != nil {
				t.Errorf("client %v, server %v", err, got.err)
			}
			if got, _ := connect(t, server.Config(), client); got.err == nil {
				t.Error("the broker lets it in, too")
			}
		})
	}
	// Its own side of it.
	if _, err := pki.ClientConfig(expired, "localhost", at(now)); err == nil {
		t.Error("an expired certificate is used elsewhere, too")
	}
	config, err := pki.RenewalConfig(expired, "localhost", at(now))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := connect(t, server.RenewalConfig(over), config); err != nil || got.err != nil {
		t.Errorf("client %v, server %v", err, got.err)
	}
	// Without a certificate there is nothing to prove, and nothing is proven.
	got, err := connect(t, server.RenewalConfig(over), clientConfig(t, pki.Files{CA: expired.CA}, now))
	if err != nil || got.err != nil {
		t.Errorf("client %v, server %v", err, got.err)
	}
	wantError(t, server.CheckRenewal(got.state, over), "no certificate")
	wantError(t, server.CheckRenewal(tls.ConnectionState{PeerCertificates: []*x509.Certificate{parseOne(t, read(t, stranger.Certificate))}}, over), "unknown authority")
}
