package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
)

const (
	// MaxRequestBytes is the most that a certificate signing request may have.
	// One for an RSA key of 8192 bits has about 2300.
	MaxRequestBytes = 8 << 10
	maxRSABits      = 8192 // crypto/tls verifies no longer ones
	minRSAExponent  = 65537
)

// Reason says in one word why a certificate signing request was refused. The
// list is fixed; programs may branch on it.
type Reason string

// The reasons.
const (
	ReasonOversized      Reason = "oversized"       // above [MaxRequestBytes]
	ReasonMalformed      Reason = "malformed"       // not a PKCS 10 request, or with bytes behind it
	ReasonWeakKey        Reason = "weak-key"        // neither P-256 nor RSA of 2048 to 8192 bits
	ReasonWeakHash       Reason = "weak-hash"       // signed with less than SHA-256
	ReasonBadSignature   Reason = "bad-signature"   // the sender has not shown that it holds the key
	ReasonOtherName      Reason = "other-name"      // the common name is not the one that may be issued
	ReasonOutsideProfile Reason = "outside-profile" // asks for what a strict profile does not give
)

// RefusedError is a certificate signing request that was refused.
type RefusedError struct {
	Reason Reason
	Err    error
}

// Error implements error: the reason and the details.
func (e *RefusedError) Error() string { return string(e.Reason) + ": " + e.Err.Error() }

// Unwrap returns the details.
func (e *RefusedError) Unwrap() error { return e.Err }

func refuse(reason Reason, format string, args ...any) error {
	return &RefusedError{reason, fmt.Errorf(format, args...)}
}

// Request is a certificate signing request (PKCS 10, RFC 2986) whose sender
// holds its key, which is one that may be certified. What it asks for is
// judged by [Authority.Sign].
type Request struct{ csr *x509.CertificateRequest }

// ParseRequest reads a request in DER and verifies its signature. Keys are
// ECDSA on P-256 or RSA of 2048 to 8192 bits with an exponent of at least
// 65537, the signature's hash is SHA-256 or longer. Every error is a
// [*RefusedError].
func ParseRequest(der []byte) (*Request, error) {
	if len(der) > MaxRequestBytes {
		return nil, refuse(ReasonOversized, "a request of %d bytes, at most %d are taken", len(der), MaxRequestBytes)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse(ReasonMalformed, "%w", err)
	}
	if err := checkRequestKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if !slices.Contains(strongSignatures(), csr.SignatureAlgorithm) {
		return nil, refuse(ReasonWeakHash, "signed with %s; use SHA-256", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse(ReasonBadSignature, "%w", err)
	}
	return &Request{csr}, nil
}

// ParseRequestPEM is [ParseRequest] for a file with one CERTIFICATE REQUEST
// block, as `openssl req -new` writes it.
func ParseRequestPEM(data []byte) (*Request, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != blockRequest && block.Type != "NEW "+blockRequest {
		return nil, refuse(ReasonMalformed, "no CERTIFICATE REQUEST block")
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, refuse(ReasonMalformed, "more than one PEM block")
	}
	return ParseRequest(block.Bytes)
}

func checkRequestKey(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return refuse(ReasonWeakKey, "a key on %s; use P-256", pub.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		bits := pub.N.BitLen()
		if bits < minRSABits || bits > maxRSABits {
			return refuse(ReasonWeakKey, "an RSA key of %d bits; use P-256, or RSA of %d to %d", bits, minRSABits, maxRSABits)
		}
		if pub.E < minRSAExponent || pub.E%2 == 0 || pub.N.Bit(0) == 0 {
			return refuse(ReasonWeakKey, "an RSA key with exponent %d, or an even modulus", pub.E)
		}
	default:
		return refuse(ReasonWeakKey, "a key of type %T; use P-256, or RSA of %d to %d bits", pub, minRSABits, maxRSABits)
	}
	return nil
}

// strongSignatures are those of keys that may be certified. Go's own check of
// requests would take SHA-1.
func strongSignatures() []x509.SignatureAlgorithm {
	return []x509.SignatureAlgorithm{
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
		x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
	}
}

// PublicKey returns the key that the sender holds.
func (r *Request) PublicKey() crypto.PublicKey { return r.csr.PublicKey }

// SameKey reports whether both requests are of one key.
func (r *Request) SameKey(other *Request) bool {
	key, ok := r.csr.PublicKey.(publicKey)
	return ok && key.Equal(other.csr.PublicKey)
}

// Name returns the one common name that is asked for. It is a [ValidName].
func (r *Request) Name() (string, error) {
	name, err := commonName(r.csr.Subject)
	if err != nil {
		return "", refuse(ReasonOtherName, "the request's %w", err)
	}
	return name, nil
}

// extras names what the request asks for beyond a common name and the purpose:
// names, addresses and extensions.
func (r *Request) extras(usage asn1.ObjectIdentifier) []string {
	var found []string
	for _, attribute := range r.csr.Subject.Names {
		if !attribute.Type.Equal(oidCommonName()) {
			found = append(found, "the subject's "+attribute.Type.String())
		}
	}
	for _, extension := range r.csr.Extensions {
		if !usual(extension, usage) {
			found = append(found, "the extension "+extension.Id.String())
		}
	}
	return found
}

// usual reports whether an extension asks for no more than every certificate
// of the purpose has. Requests by OpenSSL often repeat it.
func usual(e pkix.Extension, usage asn1.ObjectIdentifier) bool {
	switch {
	case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 14}): // a subject key identifier, which is derived anyway
		return true
	case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 15}): // key usage, RFC 5280 section 4.2.1.3
		var bits asn1.BitString
		rest, err := asn1.Unmarshal(e.Value, &bits)
		return err == nil && len(rest) == 0 && bits.BitLength == 1 && bits.At(0) == 1 // digitalSignature
	case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 19}): // basic constraints
		var constraints struct {
			CA         bool `asn1:"optional"`
			PathLength int  `asn1:"optional,default:-1"`
		}
		rest, err := asn1.Unmarshal(e.Value, &constraints)
		return err == nil && len(rest) == 0 && !constraints.CA
	case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 37}): // extended key usage
		var usages []asn1.ObjectIdentifier
		rest, err := asn1.Unmarshal(e.Value, &usages)
		return err == nil && len(rest) == 0 && len(usages) == 1 && usages[0].Equal(usage)
	}
	return false
}

// CreateRequest makes the request of a key's holder to be named name, in DER.
func CreateRequest(name string, key crypto.Signer) ([]byte, error) {
	if !ValidName(name) {
		return nil, errInvalidName(name)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("signing the request: %w", err)
	}
	return der, nil
}
