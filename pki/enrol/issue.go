package enrol

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"

	"pinseal/pki"
	"pinseal/signing"
)

// order is a certificate that is about to be issued: who asks was found out.
type order struct {
	name    string
	by      string             // for the journal
	renews  *x509.Certificate  // which its holder has shown; nil: none
	request *pki.Request       // for the TLS key
	signKey *signing.PublicKey // to be trusted; nil: none
	spend   func() error       // makes sure that it happens once; nil: it may happen again
	accept  func() error       // what goes with the signing key, before it is trusted; nil: nothing
	byToken bool
}

// issue does what was ordered, or nothing: all that can be refused comes before the code is spent.
func (s *Server) issue(r *http.Request, o order) (*x509.Certificate, error) {
	s.issuing.Lock()
	defer s.issuing.Unlock()
	if o.name == s.cfg.Node {
		return nil, refuse(ReasonNotPermitted, "%q is the node itself", o.name)
	}
	if err := s.cfg.Permit(o.name, o.byToken); err != nil {
		return nil, err
	}
	now, profile := s.cfg.Now(), s.cfg.Profile
	// Who was let in once can go on for ever: neither the disk nor who reads the journal is to suffer from it.
	if o.renews != nil && !s.renewals.allows(o.name, now) {
		return nil, refuse(ReasonRateLimited, "%q was renewed %d times within a day", o.name, s.cfg.Limits.MaxRenewals)
	}
	if o.renews != nil && s.cfg.Renewed != nil {
		profile = s.cfg.Renewed(o.renews)
	}
	cert, err := s.cfg.Authority().Sign(o.request, o.name, profile, now)
	if err != nil {
		return nil, err
	}
	if o.signKey != nil {
		if err := s.cfg.Signers.Check(o.name, o.signKey); err != nil {
			return nil, err
		}
	}
	if o.spend != nil {
		if err := o.spend(); err != nil {
			return nil, err
		}
	}
	if o.renews != nil {
		s.renewals.add(o.name, now)
	}
	if err := s.cfg.Journal.Append(pki.Issued(cert, profile.Name, o.by, now)); err != nil {
		return nil, err
	}
	if o.accept != nil {
		if err := o.accept(); err != nil {
			return nil, err
		}
	}
	if o.signKey != nil {
		if err := s.cfg.Signers.Add(o.name, o.signKey); err != nil {
			return nil, err
		}
	}
	s.cfg.Log.Info("certificate issued", "name", o.name, "serial", pki.SerialText(cert), "by", o.by,
		"until", cert.NotAfter, "signs", o.signKey != nil, "from", r.RemoteAddr)
	return cert, nil
}

// withCode is the order of a device that shows its code.
func (s *Server) withCode(name, code string, request *pki.Request, signKey *signing.PublicKey) order {
	spend := func() error { return s.cfg.Codes.Use(name, code, s.cfg.Now()) }
	return order{name: name, by: "code", request: request, signKey: signKey, spend: spend}
}

// renewal is the order of a device that shows its certificate.
func (s *Server) renewal(r *http.Request, request *pki.Request) (order, error) {
	cert, err := s.peer(r)
	if err != nil {
		return order{}, err
	}
	name, err := pki.Identity(cert)
	if err != nil {
		return order{}, refuse(ReasonNotPermitted, "%w", err)
	}
	return order{name: name, by: "renewal of " + pki.SerialText(cert), renews: cert, request: request}, nil
}

// signingKey is the key of a signing request, which shows that the device holds it.
func signingKey(request *pki.Request, name string) (*signing.PublicKey, error) {
	asked, err := request.Name()
	if err != nil {
		return nil, err
	}
	if asked != name {
		return nil, refuse(pki.ReasonOtherName, "the signing key's request is for %q, not for %q", asked, name)
	}
	der, err := x509.MarshalPKIXPublicKey(request.PublicKey())
	if err != nil {
		return nil, refuse(pki.ReasonMalformed, "%w", err)
	}
	keys, err := signing.ParsePublicKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		return nil, refuse(pki.ReasonWeakKey, "a signing key is on P-256: %w", err)
	}
	return keys[0], nil
}
