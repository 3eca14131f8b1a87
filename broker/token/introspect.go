package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// Introspection is an endpoint of RFC 7662.
type Introspection struct {
	URL string
	// ClientID and Secret are what this node calls itself there (RFC 6749 section 2.3.1).
	ClientID, Secret string
	// Interval is how often it is asked about the token of a connected client.
	Interval time.Duration
}

const (
	askTimeout     = 5 * time.Second // for one question to the issuer
	maxAnswerBytes = 256 << 10
	maxQuestions   = 8           // at a time
	watchIdle      = time.Minute // how often Watch looks whether there is an endpoint now
)

// errInactive is the issuer's own word: nothing is asked twice after it.
var errInactive = errors.New("token is not active any more, says the issuer")

// CheckURL refuses addresses on the way to which tokens and keys could be read or changed.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%q is not a URL", text)
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("%q does not begin with https://", text)
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q is not a loopback address, and without TLS anybody on the way can change the answer", text)
	}
	return nil
}

// newClient makes a client that goes nowhere but to the address it was given.
func newClient(c *Config) *http.Client {
	transport := c.Transport
	if transport == nil {
		t := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: maxQuestions, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: askTimeout}
		t.TLSClientConfig = tlsConfig(c.Roots)
		transport = t
	}
	return &http.Client{
		Transport: transport,
		Timeout:   askTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("it sends us elsewhere")
		},
	}
}

// ask does one request and returns its whole answer.
func ask(client *http.Client, r *http.Request) ([]byte, error) {
	r.Header.Set("Accept", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // it has been read, or its error has
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswerBytes+1))
	if err == nil && len(text) > maxAnswerBytes {
		err = fmt.Errorf("its answer has more than %d bytes", maxAnswerBytes)
	}
	return text, err
}

// introspect returns when the token expires, which the issuer may have set earlier. Whatever goes wrong is an error.
func (s *settings) introspect(ctx context.Context, token string, expires time.Time) (time.Time, error) {
	if s.Introspection == nil {
		return expires, nil
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Introspection.URL, strings.NewReader(form))
	if err != nil {
		return expires, fmt.Errorf("introspecting a token: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(s.Introspection.ClientID), url.QueryEscape(s.Introspection.Secret))
	text, err := ask(s.client, r)
	if err != nil {
		return expires, fmt.Errorf("introspecting a token: %w", err)
	}
	var said struct {
		Active  bool         `json:"active"`
		Expires *numericDate `json:"exp"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return expires, errors.New("introspecting a token: the answer is not that of RFC 7662")
	}
	if !said.Active {
		return expires, errInactive
	}
	if said.Expires != nil && said.Expires.Before(expires) {
		expires = said.Expires.Time
	}
	return expires, nil
}

// jittered spreads what would otherwise happen at one moment for all.
func jittered(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/8+1)) //nolint:gosec // nothing secret about it
}
