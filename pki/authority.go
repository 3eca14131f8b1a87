package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	day = 24 * time.Hour
	// backdate tolerates clocks that are behind the authority's.
	backdate = day
	// leafLifetime is the most that Apple's TLS accepts from a private authority.
	leafLifetime       = 825 * day
	authorityYears     = 20
	serialBits         = 128
	subjectKeyIDLength = 20 // RFC 7093 section 2, method 1

	// How many authorities may be between an authority and a leaf (RFC 5280
	// section 4.2.1.9): the one that replaces it, see Cross, and for a root the
	// node's below that.
	leafIssuerLength = 1
	rootLength       = 2
)

// Authority issues certificates. It is immutable and safe for concurrent use.
type Authority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	issuers []*x509.Certificate // of its certificate, upwards; none if it is a root
}

// CreateAuthority makes a self-signed authority with a new key, valid for 20
// years from a day before now. It may sign leaf certificates, and authorities
// that may sign nothing else. commonName
// is text for people, one to 64 printable characters.
func CreateAuthority(commonName string, now time.Time) (*Authority, error) {
	return createAuthority(commonName, leafIssuerLength, now)
}

// CreateRoot is [CreateAuthority] for one that signs authorities of nodes, see
// [Authority.SignAuthority], and may be replaced by another such.
func CreateRoot(commonName string, now time.Time) (*Authority, error) {
	return createAuthority(commonName, rootLength, now)
}

func createAuthority(commonName string, pathLength int, now time.Time) (*Authority, error) {
	if err := checkAuthorityName(commonName); err != nil {
		return nil, err
	}
	key, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(commonName, now)
	if err != nil {
		return nil, err
	}
	template.NotAfter = template.NotBefore.AddDate(authorityYears, 0, 0)
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA = true
	template.MaxPathLen = pathLength
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key}, nil
}

func checkAuthorityName(name string) error {
	if name == "" || len(name) > maxNameBytes || strings.ContainsFunc(name, unprintable) {
		return fmt.Errorf("authority name %.80q is not 1 to %d printable ASCII characters", name, maxNameBytes)
	}
	return nil
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// ParseAuthority reads an authority from its certificate and private key, both
// PEM. Beside its own, there may be the certificates of others that are trusted,
// such as the one that it has replaced. It refuses a certificate that may not
// sign others and a key that belongs to none. An expired authority is read, but
// issues nothing.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("authority's key: %w", err)
	}
	return NewAuthority(certPEM, key)
}

// NewAuthority is [ParseAuthority] with a key that is wherever it is: under a
// passphrase, in a TPM, in a secure element.
func NewAuthority(certPEM []byte, key crypto.Signer) (*Authority, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	for _, cert := range certs {
		if err := checkAuthority(cert); err != nil {
			return nil, err
		}
		if Belongs(key, cert) {
			return &Authority{cert: cert, key: key, issuers: issuersOf(cert, certs)}, nil
		}
	}
	return nil, errors.New("authority's key does not belong to its certificate")
}

// checkAuthority wants what RFC 5280 section 4.2.1.9 and 4.2.1.3 ask of a
// certificate that signs others.
func checkAuthority(cert *x509.Certificate) error {
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return fmt.Errorf("certificate %q is not an authority: basic constraints lack CA:TRUE", cert.Subject)
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("certificate %q is not an authority: key usage lacks keyCertSign", cert.Subject)
	}
	return nil
}

// CertificatePEM returns the certificates that peers are to trust: its own, and
// those of the authorities above it.
func (a *Authority) CertificatePEM() []byte { return EncodeCertificates(a.Anchors()...) }

// Anchors are those of [Authority.CertificatePEM], which must not be changed.
func (a *Authority) Anchors() []*x509.Certificate {
	return append([]*x509.Certificate{a.cert}, a.issuers...)
}

// Chain is what belongs behind a certificate that it has issued, for peers that
// trust only who is above it; nothing if it is a root.
func (a *Authority) Chain() []*x509.Certificate {
	if !a.Below() {
		return nil
	}
	return []*x509.Certificate{a.cert}
}

// KeyPEM returns the private key, PKCS 8, unencrypted.
func (a *Authority) KeyPEM() ([]byte, error) { return MarshalKey(a.key) }

// KeyUnder returns the private key encrypted with a passphrase, see [EncryptKey].
func (a *Authority) KeyUnder(passphrase []byte) ([]byte, error) { return EncryptKey(a.key, passphrase) }

// IssuedBy reports whether the authority has signed the certificate.
func IssuedBy(cert *x509.Certificate, a *Authority) bool {
	return cert.CheckSignatureFrom(a.cert) == nil
}

// Certificate returns the authority's certificate, which must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// IssueServer returns a PEM certificate for a broker. cn is the node's name, a
// [ValidName]; names are the DNS names and IP addresses clients use to reach
// it, at least one, and all of which the authority permits. It is valid for 825 days from a day before now, or as long
// as the authority.
func (a *Authority) IssueServer(cn string, names []string, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	dns, ips, err := a.serverNames(names)
	if err != nil {
		return nil, err
	}
	return a.issueLong(cn, pub, now, func(template *x509.Certificate) {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames, template.IPAddresses = dns, ips
	})
}

// RenewServer is [Authority.IssueServer] for a certificate that is renewed
// before it expires: it is valid for lifetime from now.
func (a *Authority) RenewServer(cn string, names []string, pub crypto.PublicKey, lifetime time.Duration, now time.Time) (*x509.Certificate, error) {
	dns, ips, err := a.serverNames(names)
	if err != nil {
		return nil, err
	}
	return a.issue(cn, pub, now, lifetime, func(template *x509.Certificate) {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames, template.IPAddresses = dns, ips
	})
}

// IssueClient returns a PEM certificate that lets its holder act as name, a
// [ValidName]. It is valid for 825 days from a day before now, or as long as
// the authority.
func (a *Authority) IssueClient(name string, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	return a.issueLong(name, pub, now, forClients)
}

func forClients(template *x509.Certificate) {
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
}

func (a *Authority) issueLong(name string, pub crypto.PublicKey, now time.Time, purpose func(*x509.Certificate)) ([]byte, error) {
	cert, err := a.issue(name, pub, now, leafLifetime-backdate, purpose)
	if err != nil {
		return nil, err
	}
	return encodeCertificate(cert.Raw), nil
}

func (a *Authority) issue(name string, pub crypto.PublicKey, now time.Time, lifetime time.Duration, purpose func(*x509.Certificate)) (*x509.Certificate, error) {
	if !ValidName(name) {
		return nil, errInvalidName(name)
	}
	if err := checkPublicKey(pub); err != nil {
		return nil, err
	}
	if now.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("authority %q expired on %s", a.cert.Subject, date(a.cert.NotAfter))
	}
	template, err := newTemplate(name, now)
	if err != nil {
		return nil, err
	}
	template.NotAfter = now.Add(lifetime).UTC().Truncate(time.Second)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if template.SubjectKeyId, err = subjectKeyID(pub); err != nil {
		return nil, err
	}
	purpose(template)
	return sign(template, a.cert, pub, a.key)
}

func newTemplate(commonName string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate).UTC().Truncate(time.Second),
		BasicConstraintsValid: true,
	}, nil
}

// sign parses what it made, so that a certificate that is handed out is one
// that can be read.
func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the signed certificate: %w", err)
	}
	return cert, nil
}

func subjectKeyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	sum := sha256.Sum256(info.PublicKey.Bytes)
	return sum[:subjectKeyIDLength], nil
}

// serverNames refuses what nobody would believe.
func (a *Authority) serverNames(names []string) (dns []string, ips []net.IP, err error) {
	for _, name := range names {
		if !a.Permits(name) {
			return nil, nil, fmt.Errorf("authority %q may certify servers named %s only, not %s", a.cert.Subject, strings.Join(a.cert.PermittedDNSDomains, ", "), name)
		}
	}
	return splitNames(names)
}

func splitNames(names []string) (dns []string, ips []net.IP, err error) {
	if len(names) == 0 {
		return nil, nil, errors.New("a server certificate needs at least one DNS name or IP address")
	}
	for _, name := range unique(names) {
		if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" {
			ips = append(ips, ip.Unmap().AsSlice())
			continue
		}
		if err := checkDNSName(name); err != nil {
			return nil, nil, err
		}
		dns = append(dns, name)
	}
	return dns, ips, nil
}

// date is how times appear in errors.
func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
