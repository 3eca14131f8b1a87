package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Server holds the certificates of a TLS server and reads them again on
// demand. It is safe for concurrent use.
type Server struct {
	files      Files
	minVersion uint16
	now        func() time.Time
	// current is replaced as a whole, so a handshake sees one consistent set.
	current atomic.Pointer[loaded]
	loading sync.Mutex // one at a time
}

// loaded is what was read from the files.
type loaded struct {
	config      *tls.Config
	authorities []*x509.Certificate
	revoked     *revocations
}

// LoadServer reads the files of a server. minVersion is
// [tls.VersionTLS13], or [tls.VersionTLS12] for old clients; 0 is TLS 1.3. now
// must be safe for concurrent use; it judges every certificate. Errors about a
// file are a [*FileError].
func LoadServer(f Files, minVersion uint16, now func() time.Time) (*Server, error) {
	switch minVersion {
	case 0:
		minVersion = tls.VersionTLS13
	case tls.VersionTLS12, tls.VersionTLS13:
	default:
		return nil, fmt.Errorf("minimum version %s is not TLS 1.2 or 1.3", tls.VersionName(minVersion))
	}
	s := &Server{files: f, minVersion: minVersion, now: now}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again. New handshakes use what it found, and sessions
// from before are not resumed; on error everything stays as it was. Established connections are not touched: judge
// them with [Server.Check].
func (s *Server) Reload() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.load()
}

// Use is [Server.Reload] with other files from now on; on error the former stay.
func (s *Server) Use(f Files) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	former := s.files
	s.files = f
	err := s.load()
	if err != nil {
		s.files = former
	}
	return err
}

func (s *Server) load() error {
	now := s.now()
	own, err := loadCertificate(s.files, x509.ExtKeyUsageServerAuth, now)
	if err != nil {
		return err
	}
	roots, err := loadRoots(s.files.CA, now)
	if err != nil {
		return err
	}
	revoked, err := loadRevocations(s.files, roots)
	if err != nil {
		return err
	}
	s.current.Store(&loaded{s.judging(*own, pool(roots)), roots, revoked})
	return nil
}

// judging is the configuration of handshakes from now on.
func (s *Server) judging(own tls.Certificate, roots *x509.CertPool) *tls.Config {
	config := s.base()
	config.Certificates = []tls.Certificate{own}
	config.ClientCAs = roots
	config.Time = notBefore(s.now, own.Leaf)
	// Runs beside crypto/tls's own verification, because this is the one hook
	// that a resumed session cannot get past.
	config.VerifyConnection = s.Check
	// A ticket is sealed with keys of this very configuration, which go with it:
	// then every client shows its certificate again, which may be a new one.
	config.SessionTicketsDisabled = false
	config.WrapSession = config.EncryptTicket
	config.UnwrapSession = config.DecryptTicket
	return config
}

// ReloadRevocations reads only the deny list and the revocation lists again,
// and does what [Server.Reload] does: whatever may be wrong with the other
// files does not keep a revocation from taking effect.
func (s *Server) ReloadRevocations() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	current := *s.current.Load()
	revoked, err := loadRevocations(s.files, current.authorities)
	if err != nil {
		return err
	}
	current.revoked = revoked
	current.config = s.judging(current.config.Certificates[0], current.config.ClientCAs)
	s.current.Store(&current)
	return nil
}

// CheckLists reports a revocation list that is over, because of which whoever
// its authority has certified is refused.
func (s *Server) CheckLists() error {
	current := s.current.Load()
	for _, list := range current.revoked.lists {
		if err := list.over(current.config.Time()); err != nil {
			return &FileError{s.files.CRL, err, "fetch the present list of that authority, then: systemctl reload pinseal"}
		}
	}
	return nil
}

// Expiry returns when the server's own certificate expires, and the first of
// the authorities that clients' certificates come from.
func (s *Server) Expiry() (own, authority time.Time) {
	current := s.current.Load()
	for _, a := range current.authorities {
		if authority.IsZero() || a.NotAfter.Before(authority) {
			authority = a.NotAfter
		}
	}
	return current.config.Certificates[0].Leaf.NotAfter, authority
}

// base is strict by itself, so that a mistake around it fails closed.
func (s *Server) base() *tls.Config {
	return &tls.Config{
		MinVersion: s.minVersion,
		ClientAuth: tls.RequireAndVerifyClientCert,
		// Tickets are for a configuration that judges what is resumed.
		SessionTicketsDisabled: true,
		Time:                   s.now,
	}
}

// Config returns the configuration for listeners. Each handshake uses the
// files as last loaded. Clients must present a certificate that chains to the
// CA, allows clientAuth, is valid now, is not revoked, and names a valid
// [Identity]. So must the certificate of a session that is resumed.
func (s *Server) Config() *tls.Config {
	config := s.base()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return s.current.Load().config, nil
	}
	return config
}

// OptionalConfig is [Server.Config] for listeners that let clients in without
// a certificate too. A certificate that is presented must be as good as ever.
func (s *Server) OptionalConfig() *tls.Config {
	config := s.base()
	config.ClientAuth = tls.VerifyClientCertIfGiven
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := s.current.Load().config.Clone()
		current.ClientAuth = tls.VerifyClientCertIfGiven
		current.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			return s.Check(cs)
		}
		return current, nil
	}
	return config
}

// RenewalConfig is [Server.OptionalConfig] for a listener where certificates
// are renewed: one that has expired, by no more than grace, is let in. It is as
// good a proof of its holder as it was, if it was not revoked.
func (s *Server) RenewalConfig(grace time.Duration) *tls.Config {
	config := s.base()
	config.ClientAuth = tls.RequestClientCert
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := s.current.Load().config.Clone()
		// crypto/tls would refuse what has expired: CheckRenewal verifies all there is to verify.
		current.ClientAuth = tls.RequestClientCert
		current.SessionTicketsDisabled = true
		current.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			return s.CheckRenewal(cs, grace)
		}
		return current, nil
	}
	return config
}

// CheckRenewal is [Server.Check] with some grace for certificates that have
// expired.
func (s *Server) CheckRenewal(cs tls.ConnectionState, grace time.Duration) error {
	return s.check(cs, grace)
}

// Check reports whether the peer of an established connection would still be
// let in now: nil, or why not.
func (s *Server) Check(cs tls.ConnectionState) error { return s.check(cs, 0) }

func (s *Server) check(cs tls.ConnectionState, grace time.Duration) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("client sent no certificate")
	}
	leaf := cs.PeerCertificates[0]
	name, err := Identity(leaf)
	if err != nil {
		return err
	}
	current := s.current.Load()
	now := current.config.Time()
	options := x509.VerifyOptions{
		Roots:         current.config.ClientCAs,
		Intermediates: pool(cs.PeerCertificates[1:]),
		CurrentTime:   within(now, leaf.NotAfter, grace),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	chains, err := leaf.Verify(options)
	if err == nil {
		err = current.revoked.check(chains, now)
	}
	if err != nil {
		return fmt.Errorf("certificate of %s: %w", name, err)
	}
	return nil
}

// within gives the last moment of what is over for no longer than grace.
func within(now, end time.Time, grace time.Duration) time.Time {
	if now.After(end) && !now.After(end.Add(grace)) {
		return end
	}
	return now
}

// notBefore raises a clock to the start of the peer's own certificate. That it
// was issued is evidence that the time has passed, and a machine that boots in
// the past can connect before it has found out the time.
func notBefore(now func() time.Time, own *x509.Certificate) func() time.Time {
	return func() time.Time {
		t := now()
		if t.Before(own.NotBefore) {
			return own.NotBefore
		}
		return t
	}
}
