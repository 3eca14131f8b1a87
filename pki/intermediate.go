package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// intermediateYears is how long a node may certify for an authority elsewhere.
	intermediateYears = 5
)

// AuthorityRequest asks for an authority of its own, in PEM: commonName is text
// for people, names are the DNS names that it wants to certify servers for.
func AuthorityRequest(commonName string, names []string, key crypto.Signer) ([]byte, error) {
	dns, _, err := splitNames(names)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}, DNSNames: dns}, key)
	if err != nil {
		return nil, fmt.Errorf("making a signing request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: der}), nil
}

// SignAuthority gives the asker of an [AuthorityRequest] an authority below this
// one, for five years from now: it may certify clients, and servers whose DNS
// names are those of the request or below them, and no authorities (RFC 5280
// sections 4.2.1.9 and 4.2.1.10). Addresses are not constrained, because they
// change.
func (a *Authority) SignAuthority(requestPEM []byte, now time.Time) (*x509.Certificate, error) {
	block, _ := pem.Decode(requestPEM)
	if block == nil || block.Type != blockRequest {
		return nil, errors.New("not a CERTIFICATE REQUEST in PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err == nil {
		err = checkPublicKey(request.PublicKey)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the signing request: %w", err)
	}
	if err := checkAuthorityName(request.Subject.CommonName); err != nil {
		return nil, err
	}
	switch {
	case ValidName(request.Subject.CommonName): // who trusts this authority would take it for that one's certificate
		return nil, fmt.Errorf("the authority's name %q could be that of a device: it needs a space in it", request.Subject.CommonName)
	case a.cert.MaxPathLenZero:
		return nil, fmt.Errorf("authority %q may not certify another: its path length is 0", a.cert.Subject)
	case len(request.DNSNames) == 0:
		return nil, errors.New("the request names no DNS names to be constrained to")
	}
	for _, name := range request.DNSNames {
		if err := checkDNSName(name); err != nil {
			return nil, err
		}
	}
	template, err := newTemplate(request.Subject.CommonName, now)
	if err != nil {
		return nil, err
	}
	template.NotAfter = template.NotBefore.AddDate(intermediateYears, 0, 0)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA, template.MaxPathLenZero = true, true
	template.PermittedDNSDomains, template.PermittedDNSDomainsCritical = request.DNSNames, true
	return sign(template, a.cert, request.PublicKey, a.key)
}

// Permits reports whether what the authority issues for a server of this name, a
// DNS name or an address, is believed: see [Authority.SignAuthority].
func (a *Authority) Permits(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil || len(a.cert.PermittedDNSDomains) == 0 {
		return true
	}
	name = strings.ToLower(name)
	return slices.ContainsFunc(a.cert.PermittedDNSDomains, func(domain string) bool {
		domain = strings.ToLower(domain) // some begin with a dot: then only what is below
		return domain == "" || name == domain || strings.HasSuffix(name, "."+strings.TrimPrefix(domain, "."))
	})
}

// Below reports whether another authority has certified this one, and its
// certificate is known.
func (a *Authority) Below() bool { return len(a.issuers) > 0 }

// issuersOf finds who has certified a certificate, upwards.
func issuersOf(cert *x509.Certificate, among []*x509.Certificate) []*x509.Certificate {
	var chain []*x509.Certificate
	for _, issuer := range among {
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			break // what others have certified of a root is not above it
		}
		if bytes.Equal(cert.RawIssuer, issuer.RawSubject) && !issuer.Equal(cert) && cert.CheckSignatureFrom(issuer) == nil {
			chain = append(chain, issuer)
			cert = issuer
		}
	}
	return chain
}
