package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
)

// A certificate that is issued anew has all present names, and keeps those that somebody gave by hand.
func TestServerNames(t *testing.T) {
	t.Parallel()
	authority, err := pki.CreateAuthority("authority", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"raspi.local", "led.example.org", "192.0.2.1"}
	for i := range 100 {
		names = append(names, fmt.Sprintf("198.51.100.%d", i))
	}
	cert, err := authority.RenewServer("raspiflow", names, key.Public(), time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	local := []string{"raspi.local", "localhost", "192.0.2.7"}
	got := serverNames(cert, local)
	for _, wanted := range append(local, "led.example.org", "198.51.100.99") {
		if !slices.Contains(got, wanted) {
			t.Errorf("%s is missing", wanted)
		}
	}
	if len(got) > maxServerNames || slices.Contains(got, "192.0.2.1") {
		t.Errorf("%d names, of which the oldest should have gone first: %v", len(got), got)
	}
	if missing := missingNames(cert, local); !slices.Equal(missing, []string{"localhost", "192.0.2.7"}) {
		t.Errorf("missing: %v", missing)
	}
}

// A machine that got a name which its authority may not certify has a certificate without it, rather than none that is believed.
func TestNamesThatTheAuthorityMayNotCertify(t *testing.T) {
	t.Parallel()
	dir := makeNode(t)
	l := layoutUnder(dir)
	root, err := pki.CreateRoot("root", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.caKey())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.AuthorityRequest("raspiflow authority", []string{"former.local"}, key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := root.SignAuthority(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.caCert(), append(pki.EncodeCertificates(signed), root.CertificatePEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if code := run(t.Context(), []string{"ca", "renew", "--dir", dir}, streams{in: strings.NewReader(""), out: &out, err: &out}); code != exitDone {
		t.Fatalf("%d: %s", code, out.String())
	}
	renewed, err := readCertificate(l.brokerCert())
	if err != nil || len(renewed.DNSNames) > 0 || len(renewed.IPAddresses) == 0 {
		t.Errorf("names %v, addresses %v, %v", renewed.DNSNames, renewed.IPAddresses, err)
	}
}

// A node that was off while its certificate expired starts with a new one.
func TestExpiredBrokerCertificateIsRenewedAtTheStart(t *testing.T) {
	t.Parallel()
	dir := makeNode(t)
	l := layoutUnder(dir)
	authority, err := readAuthority(l)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.brokerKey())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pki.LocalNames()
	if err != nil {
		t.Fatal(err)
	}
	expired, err := authority.RenewServer("raspiflow", names, key.Public(), time.Hour, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.brokerCert(), pki.EncodeCertificates(expired), 0o600); err != nil {
		t.Fatal(err)
	}
	bundle := runNode(t, dir)
	var out strings.Builder
	code := run(t.Context(), []string{"pub", "--bundle", bundle, "ledStatus", "on"}, streams{in: strings.NewReader(""), out: &out, err: &out})
	if code != exitDone {
		t.Errorf("%d: %s", code, out.String())
	}
	if certificate, err := readCertificate(l.brokerCert()); err != nil || time.Until(certificate.NotAfter) < 80*24*time.Hour {
		t.Errorf("the certificate is good until %v, %v", certificate.NotAfter, err)
	}
}

// That its certificate ends soon, a command tells however soon it ends itself: here nobody answers.
func TestEndOfTheCertificateIsAlwaysTold(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(makeNode(t), "bundles", "operator")
	certificate, err := readCertificate(filepath.Join(folder, "client.crt"))
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return certificate.NotAfter.Add(-time.Hour) }
	for range 50 {
		var out strings.Builder
		code := run(t.Context(), []string{"sub", "--bundle", folder, "ledStatus"}, streams{in: strings.NewReader(""), out: &out, err: &out, now: now})
		if code == exitDone || !strings.Contains(out.String(), "expires on") {
			t.Fatalf("%d: %s", code, out.String())
		}
	}
}
