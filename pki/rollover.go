package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Cross certifies another authority, so that who trusts this one only can verify
// what that one issues (RFC 4210 section 4.4): the new one by the old one for
// those who know the old one only, and the old one by the new one for those who
// know the new one only. It is valid as long as both.
func (a *Authority) Cross(other *Authority, now time.Time) (*x509.Certificate, error) {
	length := min(pathLength(a.cert), pathLength(other.cert)) - 1
	if length < 0 {
		return nil, fmt.Errorf("authority %q may not certify %q: the path length of one of them is 0", a.cert.Subject, other.cert.Subject)
	}
	if now.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("authority %q expired on %s", a.cert.Subject, date(a.cert.NotAfter))
	}
	template, err := newTemplate(other.cert.Subject.CommonName, now)
	if err != nil {
		return nil, err
	}
	template.NotAfter = a.cert.NotAfter
	if other.cert.NotAfter.Before(template.NotAfter) {
		template.NotAfter = other.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA = true
	template.MaxPathLen, template.MaxPathLenZero = length, length == 0
	template.SubjectKeyId = other.cert.SubjectKeyId
	return sign(template, a.cert, other.key.Public(), a.key)
}

// pathLength is how many authorities may follow; without a limit, as many as we make.
func pathLength(cert *x509.Certificate) int {
	if cert.MaxPathLen < 0 {
		return rootLength
	}
	return cert.MaxPathLen
}

// Succession is what an authority elsewhere has made of a request for a new one
// below it: who is to be trusted from now on, beside who was until now.
type Succession struct {
	Authority *Authority
	// Cross certifies who is above the new authority by who was trusted before,
	// for peers that know only the latter. None if both are the same.
	Cross []*x509.Certificate
	// Former certifies who was trusted before by who is now above the new
	// authority, for peers that know only the latter.
	Former []*x509.Certificate
}

// NewSuccession reads the answer to a request that was made with authority's key,
// see [NewAuthority]. anchors are the authorities that have been trusted until
// now: what the new one issues must be good for who knows nothing else.
func NewSuccession(authority *Authority, answer []byte, anchors []*x509.Certificate, now time.Time) (*Succession, error) {
	if !authority.Below() {
		return nil, errors.New("it does not hold the certificate of the authority that has signed ours")
	}
	certs, err := ParseCertificates(answer)
	if err != nil {
		return nil, err
	}
	s := &Succession{Authority: authority}
	top := authority.issuers[len(authority.issuers)-1]
	for _, cert := range certs {
		switch {
		case cert.Equal(authority.cert), containsCertificate(authority.issuers, cert):
		case bytes.Equal(cert.RawSubject, top.RawSubject) && signedByOneOf(cert, anchors):
			s.Cross = append(s.Cross, cert)
		case cert.CheckSignatureFrom(top) == nil && certifiesOneOf(cert, anchors):
			s.Former = append(s.Former, cert)
		default: // about authorities that were replaced before, and trusted by nobody here
		}
	}
	return s, s.check(anchors, now)
}

func containsCertificate(among []*x509.Certificate, cert *x509.Certificate) bool {
	return slices.ContainsFunc(among, cert.Equal)
}

func signedByOneOf(cert *x509.Certificate, anchors []*x509.Certificate) bool {
	return slices.ContainsFunc(anchors, func(anchor *x509.Certificate) bool { return cert.CheckSignatureFrom(anchor) == nil })
}

// certifiesOneOf reports whether a certificate is another one for one of these authorities.
func certifiesOneOf(cert *x509.Certificate, anchors []*x509.Certificate) bool {
	return slices.ContainsFunc(anchors, func(anchor *x509.Certificate) bool {
		return bytes.Equal(cert.RawSubject, anchor.RawSubject) && bytes.Equal(cert.RawSubjectPublicKeyInfo, anchor.RawSubjectPublicKeyInfo)
	})
}

// check issues a certificate to try it: a path may be too long, a name not permitted.
func (s *Succession) check(anchors []*x509.Certificate, now time.Time) error {
	key, err := GenerateKey()
	if err != nil {
		return err
	}
	leaf, err := s.Authority.issue("trial", key.Public(), now, day, forClients)
	if err != nil {
		return err
	}
	options := x509.VerifyOptions{
		Roots: pool(anchors), Intermediates: pool(append(s.Cross, s.Authority.cert)), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if _, err := leaf.Verify(options); err != nil {
		return fmt.Errorf("whoever trusts the present authorities would not trust what it issues: %w", err)
	}
	return nil
}
