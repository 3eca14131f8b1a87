package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"pinseal/broker/token"
)

// Defaults of [auth.token].
const (
	defaultRefreshKeys   = 15 * time.Minute
	defaultKeepKeys      = 24 * time.Hour
	defaultIntrospection = time.Minute
)

// tokenConfig is [auth.token]: whose bearer tokens are taken in the place of passwords.
type tokenConfig struct {
	Issuer                   string           `toml:"issuer"`
	Audience                 string           `toml:"audience"`
	JWKS                     keysAddress      `toml:"jwks"`
	CA                       string           `toml:"ca"`
	IdentityClaim            string           `toml:"identity_claim"`
	Algorithms               []tokenAlgorithm `toml:"algorithms"`
	Refresh                  positiveLength   `toml:"refresh"`
	Keep                     positiveLength   `toml:"keep"`
	Introspection            endpoint         `toml:"introspection"`
	IntrospectionCredentials string           `toml:"introspection_credentials"`
	IntrospectionInterval    positiveLength   `toml:"introspection_interval"`
}

type (
	tokenAlgorithm string // of token.Algorithms
	endpoint       string // https://…, or http://… on the loopback
	keysAddress    string // an endpoint, or the path of a file
)

func (a tokenAlgorithm) check() error {
	if slices.Contains(token.Algorithms(), string(a)) {
		return nil
	}
	return fmt.Errorf("%q is none of %s", a, strings.Join(token.Algorithms(), ", "))
}

func (e endpoint) check() error { return token.CheckURL(string(e)) }

func (a keysAddress) isURL() bool { return strings.Contains(string(a), "://") }

func (a keysAddress) check() error {
	if a.isURL() {
		return token.CheckURL(string(a))
	}
	return nil
}

// given reports whether anything stands in [auth.token].
func (t *tokenConfig) given() bool {
	return t.Issuer != "" || t.Audience != "" || t.JWKS != "" || t.Introspection != ""
}

func (t *tokenConfig) check(data []byte) error {
	here := func(key string) place { return place{table: "token", key: key} }
	switch {
	case !t.given():
	case t.Issuer == "":
		return at(data, here("issuer"), "tokens need an issuer")
	case t.Audience == "":
		return at(data, here("audience"), "tokens need an audience: what the issuer calls this broker")
	case t.JWKS == "":
		return at(data, here("jwks"), "tokens need the issuer's keys: a file, or a URL")
	case (t.Introspection == "") != (t.IntrospectionCredentials == ""):
		return at(data, here("introspection"), "introspection and introspection_credentials go together")
	}
	return nil
}

// read makes what tokens are judged by; nil if none are taken.
func (t *tokenConfig) read() (*token.Config, error) {
	if !t.given() {
		return nil, nil //nolint:nilnil // tokens are not taken, and nothing is wrong with that
	}
	c := &token.Config{
		Issuer: t.Issuer, Audience: t.Audience, IdentityClaim: t.IdentityClaim, Algorithms: strs(t.Algorithms),
		Refresh: orLength(t.Refresh, defaultRefreshKeys), Keep: orLength(t.Keep, defaultKeepKeys),
	}
	if t.JWKS.isURL() {
		c.KeysURL = string(t.JWKS)
	} else {
		text, err := os.ReadFile(string(t.JWKS))
		if err != nil {
			return nil, fmt.Errorf("reading the token issuer's keys: %w", err)
		}
		if c.Keys, err = token.ParseKeySet(text); err != nil {
			return nil, withHint(fmt.Errorf("%s: %w", t.JWKS, err), "it is what the issuer has at its jwks_uri: a JSON object with keys")
		}
	}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities of the token issuer: %w", err)
		}
		c.Roots = x509.NewCertPool()
		if !c.Roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: no certificate in it", t.CA)
		}
	}
	return c, t.readIntrospection(c)
}

func (t *tokenConfig) readIntrospection(c *token.Config) error {
	if t.Introspection == "" {
		return nil
	}
	path := t.IntrospectionCredentials
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading the introspection credentials: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return withHint(fmt.Errorf("everybody on this machine may read %s: its mode is %s", path, fs.FileMode.Perm(info.Mode())), "chmod 600 %s, and have the owner be the user that runs the node", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the introspection credentials: %w", err)
	}
	id, secret, found := strings.Cut(strings.TrimRight(string(text), "\r\n"), ":")
	if !found || id == "" || secret == "" || strings.ContainsAny(secret, "\r\n") {
		return withHint(errors.New(path+" is not one line CLIENT-ID:SECRET"), "it is what the issuer gave this node to introspect with")
	}
	c.Introspection = &token.Introspection{
		URL: string(t.Introspection), ClientID: id, Secret: secret, Interval: orLength(t.IntrospectionInterval, defaultIntrospection),
	}
	return nil
}

func orLength(given positiveLength, otherwise time.Duration) time.Duration {
	if given != 0 {
		return time.Duration(given)
	}
	return otherwise
}
