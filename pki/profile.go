package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"
)

// DefaultLifetime is how long certificates of devices are valid by default.
const DefaultLifetime = 90 * day

// Profile is what an authority gives to the holders of certificate signing
// requests: a client certificate of one common name for digital signatures, no
// alternative names, no authority. Nothing else can be had, whatever a request
// asks for.
type Profile struct {
	// Name is kept in the journal; one word.
	Name string
	// Lifetime is counted from now, 0 is [DefaultLifetime]; notBefore is a day
	// earlier. No certificate outlives its authority.
	Lifetime time.Duration
	// Strict refuses requests for anything else with [ReasonOutsideProfile].
	// Otherwise that is left out. PKCS 10 attributes that are no extension
	// request, such as a challenge password, are ignored either way.
	Strict bool
}

// Lifetime is the one of a [Profile] that gives certificates of the same length
// as this one.
func Lifetime(cert *x509.Certificate) time.Duration {
	return cert.NotAfter.Sub(cert.NotBefore) - backdate
}

// Sign issues the certificate that the profile gives to name, for the key of
// the request. The request must name itself so. Errors about the request are a
// [*RefusedError].
func (a *Authority) Sign(r *Request, name string, p Profile, now time.Time) (*x509.Certificate, error) {
	if err := p.judge(r, name); err != nil {
		return nil, err
	}
	lifetime := p.Lifetime
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	if lifetime < 0 {
		return nil, errors.New("a profile's lifetime cannot be negative")
	}
	return a.issue(name, r.PublicKey(), now, lifetime, forClients)
}

func (p Profile) judge(r *Request, name string) error {
	asked, err := r.Name()
	if err != nil {
		return err
	}
	if asked != name {
		return refuse(ReasonOtherName, "the request is for %q, not for %q", asked, name)
	}
	clientAuth := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2} // RFC 5280 section 4.2.1.12
	if extras := r.extras(clientAuth); p.Strict && len(extras) > 0 {
		return &RefusedError{ReasonOutsideProfile, fmt.Errorf("asks for %s", strings.Join(extras, ", "))}
	}
	return nil
}
