package enrol

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"pinseal/pki"
	"pinseal/signing"
)

// Limits are what askers can make a server hold or wait for. Zero is the default.
type Limits struct {
	MaxConnections           int           // 64; a further one is closed at once
	MaxConnectionsPerAddress int           // 16
	MaxBodyBytes             int           // 32768
	MaxRequests              int           // 60 a minute and address; as many new connections
	MaxWrongCodes            int           // 5 a minute and address; then no code of that address is looked at
	MaxRenewals              int           // 20 a day and name: each is a line of the journal, which is never cut
	Timeout                  time.Duration // 10 s for one request, from its first byte to the last of the answer
}

// DefaultLimits are those of a zero [Limits].
func DefaultLimits() Limits {
	return Limits{MaxConnections: 64, MaxConnectionsPerAddress: 16, MaxBodyBytes: 32 << 10, MaxRequests: 60, MaxWrongCodes: 5, MaxRenewals: 20, Timeout: 10 * time.Second}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, pair := range []struct {
		given     *int
		otherwise int
	}{
		{&l.MaxConnections, d.MaxConnections},
		{&l.MaxConnectionsPerAddress, d.MaxConnectionsPerAddress},
		{&l.MaxBodyBytes, d.MaxBodyBytes},
		{&l.MaxRequests, d.MaxRequests},
		{&l.MaxWrongCodes, d.MaxWrongCodes},
		{&l.MaxRenewals, d.MaxRenewals},
	} {
		if *pair.given == 0 {
			*pair.given = pair.otherwise
		}
	}
	if l.Timeout == 0 {
		l.Timeout = d.Timeout
	}
	return l
}

// Authority is whose certificates are handed out at the moment.
type Authority struct {
	*pki.Authority
	// Anchors are what devices are to trust, and what the certificates that are
	// renewed come from. Usually the authority's own certificate alone.
	Anchors []*x509.Certificate
	// Crosses are what anchors have certified of each other while one replaces the
	// other; who asks for what to trust by EST is told (RFC 7030 section 4.1.3).
	Crosses []*x509.Certificate
}

// Signers are the signing keys that the node trusts.
type Signers interface {
	// Check reports why the key could not be added; a [*pki.RefusedError] is the
	// asker's to mend.
	Check(name string, key *signing.PublicKey) error
	// Add trusts the key from now on, and over restarts.
	Add(name string, key *signing.PublicKey) error
}

// Config is what a server needs. All functions must be safe for concurrent use.
type Config struct {
	Node     string             // its name, which no device can have
	NodeKey  *signing.PublicKey // what devices verify the node's answers with
	MQTTPort uint16             // where devices connect; the host is as they reached us

	Authority func() Authority
	Profile   pki.Profile
	// Renewed is what a certificate is renewed as, which its holder has just shown;
	// nil: as all are, by Profile.
	Renewed func(former *x509.Certificate) pki.Profile
	Journal *pki.Journal
	Codes   *Codes
	Signers Signers
	// Operator finds out whose token it is; an error refuses it.
	Operator func(token string) (name string, err error)
	// Permit reports why this name may not have a certificate now, or not by the
	// token of an operator.
	Permit func(name string, byToken bool) error
	// Topics are those on which a name may command something.
	Topics func(name string) []string
	// Welcome answers what a device that registers a signing key has to tell, in
	// JSON. It changes nothing: accept does, once the certificate is issued.
	Welcome func(name string, key *signing.PublicKey, greeting []byte) (welcome []byte, accept func() error, err error)
	// RevocationList is whom the authority has revoked, DER; nil: nobody is told.
	RevocationList func() ([]byte, error)
	// CheckPeer judges a client certificate again, as at the handshake: the
	// connection may be older than a revocation.
	CheckPeer func(tls.ConnectionState) error

	Limits Limits
	Now    func() time.Time
	Log    *slog.Logger
}

// Server answers devices that want to be let in. It is safe for concurrent use.
type Server struct {
	cfg      Config
	requests *counter[netip.Prefix]
	wrong    *counter[netip.Prefix]
	renewals *counter[string] // by name
	guessing sync.Mutex
	issuing  sync.Mutex // what is checked before a certificate is signed still holds after
}

// NewServer makes a server. It starts nothing.
func NewServer(c Config) (*Server, error) {
	if c.Authority == nil || c.Journal == nil || c.Codes == nil || c.Signers == nil || c.NodeKey == nil || c.Now == nil || c.Log == nil {
		return nil, errors.New("enrolment needs an authority, a journal, codes, signers, the node's key, a clock and a log")
	}
	if c.Operator == nil || c.Permit == nil || c.Topics == nil || c.Welcome == nil || c.CheckPeer == nil {
		return nil, errors.New("enrolment needs to know operators, permits, topics and peers")
	}
	c.Limits = c.Limits.withDefaults()
	return &Server{
		cfg: c, requests: newCounter[netip.Prefix](c.Limits.MaxRequests, window), wrong: newCounter[netip.Prefix](c.Limits.MaxWrongCodes, window),
		renewals: newCounter[string](c.Limits.MaxRenewals, renewalWindow),
	}, nil
}

// Run serves the listener until the context ends; it closes the listener. The
// TLS configuration must have GetConfigForClient, and verify client certificates
// if they are given.
func (s *Server) Run(ctx context.Context, listener net.Listener, config *tls.Config) error {
	limits := s.cfg.Limits
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: limits.Timeout, // also the handshake's
		ReadTimeout:       limits.Timeout,
		WriteTimeout:      limits.Timeout,
		IdleTimeout:       limits.Timeout,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.Shutdown(patience); err != nil {
			_ = server.Close() // whoever is not done by then starts again
		}
		stopped <- nil
	})
	defer stop()
	err := server.Serve(tls.NewListener(limitListener(listener, limits, s.cfg.Now), s.withAnchors(config)))
	if errors.Is(err, http.ErrServerClosed) {
		return <-stopped
	}
	return fmt.Errorf("serving enrolment: %w", err)
}

// withAnchors adds the authority's certificate to the chain that the server
// shows: who knows it by its fingerprint only, looks for it there.
func (s *Server) withAnchors(config *tls.Config) *tls.Config {
	config = config.Clone()
	inner := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		current, err := inner(hello)
		if err != nil {
			return nil, err
		}
		current = current.Clone()
		own := current.Certificates[0]
		own.Certificate = slices.Clone(own.Certificate)
		for _, cert := range s.cfg.Authority().Anchors {
			own.Certificate = append(own.Certificate, cert.Raw)
		}
		current.Certificates = []tls.Certificate{own}
		current.NextProtos = []string{"http/1.1"}
		return current, nil
	}
	return config
}

// Handler returns what answers, for a TLS server that verifies client
// certificates if they are given.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/est/cacerts", s.answer(s.caCerts))
	if s.cfg.RevocationList != nil {
		mux.HandleFunc("GET /crl", s.answer(s.revocationList))
	}
	mux.HandleFunc("GET /.well-known/est/csrattrs", s.answer(s.csrAttrs))
	mux.HandleFunc("POST /.well-known/est/simpleenroll", s.answer(s.simpleEnroll))
	mux.HandleFunc("POST /.well-known/est/simplereenroll", s.answer(s.simpleReenroll))
	mux.HandleFunc("POST /sign/{name}/pkcs10", s.answer(s.signJSON))
	return s.within(mux)
}

// within has what every asker may have answered, whatever is asked for. Beyond, the connection ends with the answer: on
// one that is open it costs nothing to ask again.
func (s *Server) within(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, now := origin(r.RemoteAddr), s.cfg.Now()
		allowed := s.requests.allows(from, now)
		s.requests.add(from, now)
		if !allowed {
			w.Header().Set("Connection", "close")
			s.refuse(w, r, refuse(ReasonRateLimited, "more than %d requests within a minute", s.cfg.Limits.MaxRequests))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// revocationList is for whoever asks (RFC 2585 section 4.2): it holds numbers only.
func (s *Server) revocationList(*http.Request) (reply, error) {
	der, err := s.cfg.RevocationList()
	return reply{"application/pkix-crl", false, der}, err
}

// reply is what a request is answered with.
type reply struct {
	contentType string
	base64      bool // the body is base64, as EST wants it
	body        []byte
}

// answer judges what all requests have in common, and words refusals.
func (s *Server) answer(handle func(*http.Request) (reply, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := s.cfg.Now()
		r.Body = http.MaxBytesReader(w, r.Body, int64(s.cfg.Limits.MaxBodyBytes))
		got, err := handle(r)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat)) // the floor's, should ours be worse
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", got.contentType)
		if got.base64 {
			w.Header().Set("Content-Transfer-Encoding", "base64")
		}
		// Who has gone does not hear it; whatever was done is done.
		_, _ = w.Write(got.body)
	}
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	reason := reasonOf(err)
	detail := "the node's log says more" // not for strangers
	if refused, ok := errors.AsType[*pki.RefusedError](err); ok {
		detail = refused.Err.Error()
	}
	attributes := []any{"reason", reason, "path", fmt.Sprintf("%.128s", r.URL.Path), "from", r.RemoteAddr}
	switch reason {
	case ReasonFailed:
		s.cfg.Log.Error("enrolment not possible", append(attributes, "error", err)...)
	case ReasonRateLimited:
		s.cfg.Log.Debug("enrolment refused", attributes...)
		w.Header().Set("Retry-After", fmt.Sprint(int(window.Seconds())))
	default:
		s.cfg.Log.Warn("enrolment refused", attributes...)
	}
	code := status(reason)
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="pinseal"`) // RFC 7030 section 3.2.3
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(refusalJSON(reason, detail)) // as above
}

// checkCode looks at a code if this address has not guessed too often.
func (s *Server) checkCode(r *http.Request, name, code string) error {
	return s.guess(r, func(now time.Time) error { return s.cfg.Codes.Check(name, code, now) })
}

// guess counts what was wrong. One is looked at after the other: at the same time there would be no end of them.
func (s *Server) guess(r *http.Request, check func(now time.Time) error) error {
	s.guessing.Lock()
	defer s.guessing.Unlock()
	from, now := origin(r.RemoteAddr), s.cfg.Now()
	if !s.wrong.allows(from, now) {
		return refuse(ReasonRateLimited, "too many wrong codes or tokens: wait a minute")
	}
	err := check(now)
	if err != nil {
		s.wrong.add(from, now)
	}
	return err
}

// peer is whose certificate the connection has, which is verified and comes from our authority.
func (s *Server) peer(r *http.Request) (*x509.Certificate, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, refuse(ReasonNoCode, "renewal needs the certificate that is to be renewed, as the TLS client's")
	}
	if err := s.cfg.CheckPeer(*r.TLS); err != nil {
		return nil, refuse(ReasonNotPermitted, "%w", err)
	}
	cert := r.TLS.PeerCertificates[0]
	// The broker may let in whom other authorities have certified. They do not get ours by it.
	for _, anchor := range s.cfg.Authority().Anchors {
		if cert.CheckSignatureFrom(anchor) == nil {
			return cert, nil
		}
	}
	return nil, refuse(ReasonNotPermitted, "the certificate is another authority's")
}
