package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/pki"

	"pgregory.net/rapid"
)

// device is the profile of the tests.
func device() pki.Profile { return pki.Profile{Name: "device"} }

func newRSAKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func createRequest(t *testing.T, template *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func named(name string) *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
}

func parseRequest(t *testing.T, der []byte) *pki.Request {
	t.Helper()
	request, err := pki.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func wantRefused(t *testing.T, err error, reason pki.Reason) {
	t.Helper()
	refused, ok := errors.AsType[*pki.RefusedError](err)
	if !ok || refused.Reason != reason {
		t.Errorf("%v, want a refusal with the reason %s", err, reason)
	}
}

func TestSignWhatOpenSSLAsksFor(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	tests := []struct {
		name string
		args []string
	}{
		{"P-256", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}},
		{"P-256 with SHA-512", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha512"}},
		{"RSA 2048", []string{"-newkey", "rsa:2048"}},
		{"RSA 3072 with PSS", []string{"-newkey", "rsa:3072", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			openssl(t, dir, slices.Concat([]string{"req", "-new", "-nodes", "-subj", "/CN=sensor-7", "-keyout", "key", "-out", "csr"}, tt.args)...)
			request, err := pki.ParseRequestPEM(read(t, filepath.Join(dir, "csr")))
			if err != nil {
				t.Fatal(err)
			}
			cert, err := authority.Sign(request, "sensor-7", device(), now)
			if err != nil {
				t.Fatal(err)
			}
			if !cert.NotBefore.Equal(now.Add(-day)) || !cert.NotAfter.Equal(now.Add(90*day)) {
				t.Errorf("valid %s to %s", cert.NotBefore, cert.NotAfter)
			}
			write(t, dir, "ca.crt", authority.CertificatePEM())
			write(t, dir, "crt", pki.EncodeCertificates(cert))
			openssl(t, dir, "verify", "-x509_strict", "-purpose", "sslclient", "-attime", unix(now), "-CAfile", "ca.crt", "crt")
			key, err := pki.ParseKey(read(t, filepath.Join(dir, "key")))
			if err != nil || !isFor(cert, key) {
				t.Errorf("the certificate is not for the key (%v)", err)
			}
		})
	}
}

// The longest key, which takes a minute to make: OpenSSL made this request once.
func TestLongestKey(t *testing.T) {
	t.Parallel()
	request, err := pki.ParseRequestPEM(read(t, filepath.Join("testdata", "rsa8192.csr")))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := newAuthority(t).Sign(request, "sensor-7", device(), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pki.NewJournal(pki.Issued(cert, "device", "test", now)); err != nil {
		t.Errorf("not for the journal: %v", err)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	good := createRequest(t, named("sensor-7"), key)
	// What openssl still does when it is told to.
	made := func(args ...string) []byte {
		dir := t.TempDir()
		openssl(t, dir, slices.Concat([]string{"req", "-new", "-nodes", "-subj", "/CN=sensor-7", "-keyout", "key", "-outform", "DER", "-out", "csr"}, args)...)
		return read(t, filepath.Join(dir, "csr"))
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(good)
	broken[len(broken)-1] ^= 1
	renamed := bytes.Replace(good, []byte("sensor-7"), []byte("sensor-8"), 1)
	tests := []struct {
		name string
		der  []byte
		want pki.Reason
	}{
		{"empty", nil, pki.ReasonMalformed},
		{"cut", good[:len(good)-1], pki.ReasonMalformed},
		{"bytes behind it", append(bytes.Clone(good), 0), pki.ReasonMalformed},
		{"a certificate", newAuthority(t).Certificate().Raw, pki.ReasonMalformed},
		{"too long", append(bytes.Clone(good), make([]byte, pki.MaxRequestBytes)...), pki.ReasonOversized},
		{"broken signature", broken, pki.ReasonBadSignature},
		{"another name under the signature", renamed, pki.ReasonBadSignature},
		{"RSA 1024", made("-newkey", "rsa:1024"), pki.ReasonWeakKey},
		{"RSA 2047", made("-newkey", "rsa:2047"), pki.ReasonWeakKey},
		{"RSA with exponent 3", made("-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"), pki.ReasonWeakKey},
		{"P-384", createRequest(t, named("sensor-7"), p384), pki.ReasonWeakKey},
		{"Ed25519", createRequest(t, named("sensor-7"), ed), pki.ReasonWeakKey},
		{"DSA, which Go does not know", read(t, filepath.Join("testdata", "dsa.csr.der")), pki.ReasonWeakKey},
		{"RSA with SHA-1", made("-newkey", "rsa:2048", "-sha1"), pki.ReasonWeakHash},
		{"ECDSA with SHA-1", made("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha1"), pki.ReasonWeakHash},
		{"RSA with MD5", made("-newkey", "rsa:2048", "-md5"), pki.ReasonWeakHash},
		{"RSA with SHA-224", made("-newkey", "rsa:2048", "-sha224"), pki.ReasonWeakHash},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := pki.ParseRequest(tt.der)
			wantRefused(t, err, tt.want)
		})
	}
}

// Every byte counts: a request that was changed anywhere is refused.
func TestEveryByteOfARequest(t *testing.T) {
	t.Parallel()
	good := createRequest(t, named("sensor-7"), newKey(t))
	for i := range good {
		changed := bytes.Clone(good)
		changed[i] ^= 0x20
		if _, err := pki.ParseRequest(changed); err == nil {
			t.Errorf("byte %d can be changed", i)
		}
	}
}

func TestParseRequestPEMRefuses(t *testing.T) {
	t.Parallel()
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: createRequest(t, named("sensor-7"), newKey(t))})
	for name, data := range map[string][]byte{
		"no PEM":            []byte("no PEM"),
		"another block":     newAuthority(t).CertificatePEM(),
		"two requests":      append(bytes.Clone(good), good...),
		"damaged first one": append([]byte("-----BEGIN CERTIFICATE REQUEST-----\n!\n"), newAuthority(t).CertificatePEM()...),
	} {
		_, err := pki.ParseRequestPEM(data)
		t.Log(name)
		wantRefused(t, err, pki.ReasonMalformed)
	}
}

func extension(oid asn1.ObjectIdentifier, value ...byte) pkix.Extension {
	return pkix.Extension{Id: oid, Value: value}
}

func keyUsage(number int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, number} }

// What may be asked for, what is left out, and what a strict profile refuses.
func TestProfileIsWhatIsIssued(t *testing.T) {
	t.Parallel()
	authority, key := newAuthority(t), newKey(t)
	with := func(extensions ...pkix.Extension) *x509.CertificateRequest {
		r := named("sensor-7")
		r.ExtraExtensions = extensions
		return r
	}
	tests := []struct {
		name     string
		template *x509.CertificateRequest
		extra    bool
	}{
		{"the name alone", named("sensor-7"), false},
		{"digital signature", with(extension(keyUsage(15), 0x03, 0x02, 0x07, 0x80)), false},
		{"no authority", with(extension(keyUsage(19), 0x30, 0x00)), false},
		{"a client", with(extension(keyUsage(37), 0x30, 0x0a, 0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 3, 2)), false},
		{"a key identifier of its own", with(extension(keyUsage(14), 0x04, 0x01, 0x01)), false},
		{"an organisation", &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-7", Organization: []string{"root"}}}, true},
		{"a DNS name", &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-7"}, DNSNames: []string{"raspiflow.local"}}, true},
		{"an address", &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-7"}, IPAddresses: []net.IP{{10, 0, 0, 1}}}, true},
		{"an e-mail address", &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-7"}, EmailAddresses: []string{"a@b"}}, true},
		{"an authority", with(extension(keyUsage(19), 0x30, 0x03, 0x01, 0x01, 0xff)), true},
		{"damaged basic constraints", with(extension(keyUsage(19), 0x31)), true},
		{"certificate signing", with(extension(keyUsage(15), 0x03, 0x02, 0x02, 0x04)), true},
		{"signature and certificate signing", with(extension(keyUsage(15), 0x03, 0x02, 0x02, 0x84)), true},
		{"a server", with(extension(keyUsage(37), 0x30, 0x0a, 0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 3, 1)), true},
		{"a client and a server", with(extension(keyUsage(37), 0x30, 0x14, 0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 3, 2, 0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 3, 1)), true},
		{"something unknown", with(extension(asn1.ObjectIdentifier{1, 2, 3}, 1)), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			request := parseRequest(t, createRequest(t, tt.template, key))
			cert, err := authority.Sign(request, "sensor-7", device(), now)
			if err != nil {
				t.Fatal(err)
			}
			checkDevice(t, authority, cert, "sensor-7")
			strict := device()
			strict.Strict = true
			_, err = authority.Sign(request, "sensor-7", strict, now)
			switch {
			case tt.extra:
				wantRefused(t, err, pki.ReasonOutsideProfile)
			case err != nil:
				t.Errorf("strict: %v", err)
			}
		})
	}
}

// checkDevice holds a certificate to the profile of devices.
func checkDevice(t interface{ Errorf(string, ...any) }, authority *pki.Authority, cert *x509.Certificate, name string) {
	ids := []string{"2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.14", "2.5.29.35"}
	for _, e := range cert.Extensions {
		if !slices.Contains(ids, e.Id.String()) {
			t.Errorf("extension %s", e.Id)
		}
	}
	if got := cert.Subject.String(); got != "CN="+name {
		t.Errorf("subject %s", got)
	}
	if cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage != x509.KeyUsageDigitalSignature ||
		!slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(cert.UnknownExtKeyUsage) > 0 {
		t.Errorf("CA %v, usage %b, %v", cert.IsCA, cert.KeyUsage, cert.ExtKeyUsage)
	}
	if len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses)+len(cert.URIs) > 0 {
		t.Errorf("it has alternative names")
	}
	if cert.SignatureAlgorithm != x509.ECDSAWithSHA256 || cert.CheckSignatureFrom(authority.Certificate()) != nil {
		t.Errorf("signed with %s", cert.SignatureAlgorithm)
	}
}

func TestSignRefusesOtherNames(t *testing.T) {
	t.Parallel()
	authority, key := newAuthority(t), newKey(t)
	two := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-7", ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "operator"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "sensor-7"},
	}}}
	for name, template := range map[string]*x509.CertificateRequest{
		"another": named("operator"), "none": {}, "two": two, "prefix": named("sensor"), "case": named("Sensor-7"), "bad": named("sensor-7\x00"),
	} {
		request := parseRequest(t, createRequest(t, template, key))
		_, err := authority.Sign(request, "sensor-7", device(), now)
		t.Log(name)
		wantRefused(t, err, pki.ReasonOtherName)
	}
}

// TestProfileProperty: whatever a request asks for, the certificate is the profile's, or there is none.
func TestProfileProperty(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	keys := []crypto.Signer{newKey(t), newKey(t), newRSAKey(t, 2048)}
	serials := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SampledFrom(keys).Draw(t, "key")
		text := rapid.StringMatching(`[A-Za-z0-9_.@ -]{0,12}`)
		name := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "name")
		template := &x509.CertificateRequest{
			Subject:  pkix.Name{CommonName: name, Organization: rapid.SliceOfN(text, 0, 2).Draw(t, "organisation"), Country: rapid.SliceOfN(text, 0, 2).Draw(t, "country")},
			DNSNames: rapid.SliceOfN(text, 0, 3).Draw(t, "DNS names"), EmailAddresses: rapid.SliceOfN(text, 0, 2).Draw(t, "addresses"),
		}
		for _, number := range rapid.SliceOfNDistinct(rapid.SampledFrom([]int{14, 15, 19, 30, 32, 37, 99}), 0, 3, rapid.ID).Draw(t, "extensions") {
			value := rapid.SliceOfN(rapid.Byte(), 1, 12).Draw(t, "value")
			template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: keyUsage(number), Critical: rapid.Bool().Draw(t, "critical"), Value: value})
		}
		p := pki.Profile{
			Lifetime: time.Duration(rapid.Int64Range(0, int64(30*365*day)).Draw(t, "lifetime")),
			Strict:   rapid.Bool().Draw(t, "strict"),
		}
		at := now.Add(time.Duration(rapid.Int64Range(0, int64(19*365*day)).Draw(t, "at")))
		// Text that is no name of a host cannot even be asked for, Go says.
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			return
		}
		request, err := pki.ParseRequest(der)
		if err != nil {
			wantMalformed(t, err)
			return
		}
		cert, err := authority.Sign(request, name, p, at)
		asks := len(template.Subject.Organization)+len(template.Subject.Country)+len(template.DNSNames)+len(template.EmailAddresses)+len(template.ExtraExtensions) > 0
		if err != nil {
			if refused, ok := errors.AsType[*pki.RefusedError](err); !p.Strict || !asks || !ok || refused.Reason != pki.ReasonOutsideProfile {
				t.Fatalf("%v", err)
			}
			return
		}
		checkDevice(t, authority, cert, name)
		lifetime := p.Lifetime
		if lifetime == 0 {
			lifetime = 90 * day
		}
		end := at.Add(lifetime).Truncate(time.Second)
		if authorityEnd := authority.Certificate().NotAfter; end.After(authorityEnd) {
			end = authorityEnd
		}
		if !cert.NotAfter.Equal(end) || !cert.NotBefore.Equal(at.Add(-day).Truncate(time.Second)) {
			t.Fatalf("at %s for %s: valid %s to %s", at, lifetime, cert.NotBefore, cert.NotAfter)
		}
		if !isFor(cert, key) {
			t.Fatal("for another key")
		}
		serial := pki.SerialText(cert)
		if serials[serial] || cert.SerialNumber.BitLen() < 80 || cert.SerialNumber.BitLen() > 128 {
			t.Fatalf("serial number %s", serial)
		}
		serials[serial] = true
	})
}

func isFor(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := key.Public().(interface{ Equal(x crypto.PublicKey) bool })
	return ok && pub.Equal(cert.PublicKey)
}

func wantMalformed(t *rapid.T, err error) {
	if refused, ok := errors.AsType[*pki.RefusedError](err); !ok || refused.Reason != pki.ReasonMalformed {
		t.Fatalf("%v", err)
	}
}

func TestCreateRequest(t *testing.T) {
	t.Parallel()
	der, err := pki.CreateRequest("sensor-7", newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if name, err := parseRequest(t, der).Name(); name != "sensor-7" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if _, err := pki.CreateRequest("no good", newKey(t)); err == nil || !strings.Contains(err.Error(), "no good") {
		t.Errorf("%v", err)
	}
}
