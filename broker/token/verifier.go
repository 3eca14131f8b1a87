package token

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Config says which tokens are good.
type Config struct {
	// Issuer must be what the token's iss says, to the letter, and Audience one of what its aud says.
	Issuer, Audience string
	// IdentityClaim is the claim that names the bearer; "" is sub.
	IdentityClaim string
	// Algorithms allows some of [Algorithms]; none allows all.
	Algorithms []string
	// Keys are the issuer's keys; nil where they come from KeysURL.
	Keys *KeySet
	// KeysURL is where the issuer's keys are.
	KeysURL string
	// Refresh is how often the keys are fetched anew, Keep how long they are good when that fails.
	Refresh, Keep time.Duration
	// Introspection asks the issuer about each token; nil does not.
	Introspection *Introspection
	// Roots are the authorities for the issuer's certificate; nil is the system's.
	Roots *x509.CertPool
	// Transport replaces the way to the issuer in tests.
	Transport http.RoundTripper
}

// Options is what a Verifier needs from its surroundings.
type Options struct {
	// Now is the time, and whether it can be believed: while it cannot, no token is good.
	Now func() (now time.Time, trusted bool)
	// Changed is called after the issuer's keys have changed or are no longer good. It may be nil.
	Changed func()
	// Log gets what goes wrong on the way to the issuer, never a token.
	Log *slog.Logger
}

// Verifier judges tokens. It is safe for concurrent use.
type Verifier struct {
	options Options
	current atomic.Pointer[settings]
	renewed chan struct{} // a word to Run that current is another
}

// settings are replaced as a whole.
type settings struct {
	Config
	client *http.Client
	remote *remote // nil where the keys are from a file
}

// New makes a verifier to which no token is good before Set.
func New(o Options) *Verifier {
	return &Verifier{options: o, renewed: make(chan struct{}, 1)}
}

// Set replaces what is good; nil: no token is. Keys that were fetched from the same URL are kept.
func (v *Verifier) Set(c *Config) {
	var s *settings
	if c != nil {
		s = &settings{Config: *c, client: newClient(c)}
		if c.Keys == nil {
			s.remote = &remote{url: c.KeysURL, refresh: c.Refresh, keep: c.Keep, client: s.client, turn: make(chan struct{}, 1)}
			if old := v.current.Load(); old != nil && old.remote != nil && old.KeysURL == c.KeysURL && old.Roots.Equal(c.Roots) {
				s.remote.inherit(old.remote)
			}
		}
	}
	v.current.Store(s)
	select {
	case v.renewed <- struct{}{}:
	default: // it has been told
	}
}

// Grant is what a good token gives its bearer.
type Grant struct {
	Identity string
	Expires  time.Time

	verifier *Verifier
	token    string
	watched  bool
}

var errNoTokens = errors.New("tokens are not taken")

// Check judges a token and the user name that came with it, which may be empty. It may have to ask the issuer, until ctx
// ends. Its error may be logged: it holds nothing of a token that was not signed.
func (v *Verifier) Check(ctx context.Context, username, token string) (*Grant, error) {
	s := v.current.Load()
	if s == nil {
		return nil, errNoTokens
	}
	now, trusted := v.options.Now()
	if !trusted {
		return nil, errors.New("the clock is not trusted, so nobody knows which tokens have expired")
	}
	parsed, err := s.parse(token)
	if err != nil {
		return nil, err
	}
	if s.remote != nil {
		v.fetchFor(ctx, s.remote, parsed.Signatures[0].Protected.KeyID)
	}
	said, err := s.judge(parsed, now)
	if err != nil {
		return nil, err
	}
	if username != "" && username != said.identity {
		return nil, fmt.Errorf("token is of %s, the user name is %.64q", said.identity, username)
	}
	expires, err := s.introspect(ctx, token, said.expires)
	if err != nil {
		return nil, err
	}
	return &Grant{said.identity, expires, v, token, s.Introspection != nil}, nil
}

// judge holds a token against what is good now.
func (s *settings) judge(parsed *jose.JSONWebSignature, now time.Time) (claims, error) {
	keys := s.Keys
	if s.remote != nil {
		keys = s.remote.get()
	}
	if keys == nil {
		return claims{}, errors.New("the issuer's keys are not known yet, or no longer")
	}
	return s.verify(parsed, keys, now)
}

// Valid reports why the token would no longer do; nil if it would, as far as can be told without asking the issuer.
func (g *Grant) Valid() error {
	s := g.verifier.current.Load()
	if s == nil {
		return errNoTokens
	}
	if s.Introspection != nil && !g.watched {
		return errors.New("the issuer has not been asked about the token")
	}
	parsed, err := s.parse(g.token)
	if err != nil {
		return err
	}
	now, _ := g.verifier.options.Now() // a clock that is doubted since is no reason to end what has begun
	said, err := s.judge(parsed, now)
	if err == nil && said.identity != g.Identity {
		err = errors.New("token names another now")
	}
	return err
}

// Watched reports whether [Grant.Watch] has something to do: the issuer is asked about tokens.
func (g *Grant) Watched() bool { return g.watched }

// Watch asks the issuer again and again, and returns why the token is no longer good, or nil when ctx ends. An issuer
// that cannot be reached is asked again sooner, and the token is given up when it was last called active twice the
// interval ago.
func (g *Grant) Watch(ctx context.Context) error {
	active := time.Now()
	interval := g.verifier.interval()
	wait := interval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jittered(wait)):
		}
		s := g.verifier.current.Load()
		if s == nil {
			return errNoTokens
		}
		_, err := s.introspect(ctx, g.token, g.Expires)
		interval = g.verifier.interval()
		switch {
		case err == nil:
			active, wait = time.Now(), interval
		case errors.Is(err, errInactive) || time.Since(active) >= 2*interval:
			return err
		default:
			wait = interval / 4
		}
	}
}

// interval is how long a token that is active is left alone.
func (v *Verifier) interval() time.Duration {
	if s := v.current.Load(); s != nil && s.Introspection != nil {
		return s.Introspection.Interval
	}
	return watchIdle // there may be an endpoint again
}
