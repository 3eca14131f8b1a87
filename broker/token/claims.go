package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"pinseal/pki"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxTokenBytes = 16 << 10
	// maxAhead is how far the issuer's clock may be ahead of ours. Nothing is allowed at the end: a session ends when
	// its token does.
	maxAhead = 5 * time.Second
	// maxDate is the end of the year 9999, in seconds: beyond, somebody has counted milliseconds.
	maxDate = 253402300799
)

// Algorithms lists the signature algorithms (RFC 7518, RFC 8037) that can be allowed: asymmetric ones, so that no public
// key can be taken for a secret.
func Algorithms() []string {
	names := make([]string, 0, len(asymmetric()))
	for _, a := range asymmetric() {
		names = append(names, string(a))
	}
	return names
}

func asymmetric() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	}
}

// Plausible reports whether a password is meant to be a token: three parts, the first of which begins a JSON object. What
// is no token by this can still be a password, and nothing is ever tried as both.
func Plausible(password []byte) bool {
	text := string(password)
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

// claims is what a verified token says.
type claims struct {
	identity string
	expires  time.Time
}

// parse reads a token's header without believing any of it.
func (c *Config) parse(token string) (*jose.JSONWebSignature, error) {
	if len(token) > maxTokenBytes {
		return nil, fmt.Errorf("token has more than %d bytes", maxTokenBytes)
	}
	if !canonical(token) {
		return nil, errors.New("malformed token")
	}
	parsed, err := jose.ParseSignedCompact(token, c.algorithms())
	if _, other := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); other {
		return nil, errors.New("token is signed with an algorithm that is not allowed")
	}
	if err != nil || len(parsed.Signatures) != 1 {
		return nil, errors.New("malformed token")
	}
	if _, critical := parsed.Signatures[0].Protected.ExtraHeaders["crit"]; critical {
		return nil, errors.New("token makes demands in its header that nobody here knows") // RFC 7515 section 4.1.11
	}
	switch typ, given := parsed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]; {
	case !given:
	case !slices.Contains([]any{"JWT", "jwt", "at+jwt", "application/at+jwt"}, typ):
		return nil, errors.New("token is of another type") // RFC 8725 section 3.11
	}
	return parsed, nil
}

// canonical reports whether a token is the only text for what it says: decoders of base64 take more than one.
func canonical(token string) bool {
	for part := range strings.SplitSeq(token, ".") {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return false
		}
	}
	return true
}

func (c *Config) algorithms() []jose.SignatureAlgorithm {
	if len(c.Algorithms) == 0 {
		return asymmetric()
	}
	var allowed []jose.SignatureAlgorithm
	for _, a := range asymmetric() {
		if slices.Contains(c.Algorithms, string(a)) {
			allowed = append(allowed, a)
		}
	}
	return allowed
}

// verify checks the signature and then what was signed.
func (c *Config) verify(parsed *jose.JSONWebSignature, keys *KeySet, now time.Time) (claims, error) {
	header := parsed.Signatures[0].Protected
	candidates := keys.find(header.KeyID, jose.SignatureAlgorithm(header.Algorithm))
	if len(candidates) == 0 {
		return claims{}, errors.New("token is signed with an unknown key")
	}
	for _, k := range candidates {
		if payload, err := parsed.Verify(k.public); err == nil {
			return c.judge(payload, now)
		}
	}
	return claims{}, errors.New("token has a wrong signature")
}

// registered are the claims of RFC 7519 section 4.1 that are judged.
type registered struct {
	Issuer    string       `json:"iss"`
	Audience  audience     `json:"aud"`
	Expires   *numericDate `json:"exp"`
	NotBefore *numericDate `json:"nbf"`
}

func (c *Config) judge(payload []byte, now time.Time) (claims, error) {
	var r registered
	if err := json.Unmarshal(payload, &r); err != nil {
		return claims{}, errors.New("token's claims are malformed")
	}
	switch {
	case r.Issuer != c.Issuer:
		return claims{}, fmt.Errorf("token is from the issuer %.80q", r.Issuer)
	case !slices.Contains(r.Audience, c.Audience):
		return claims{}, fmt.Errorf("token is for %.80q", strings.Join(r.Audience, " "))
	case r.Expires == nil:
		return claims{}, errors.New("token never expires")
	case !now.Before(r.Expires.Time):
		return claims{}, errors.New("token has expired")
	case r.NotBefore != nil && r.NotBefore.After(now.Add(maxAhead)):
		return claims{}, errors.New("token is not valid yet")
	}
	identity, err := c.identity(payload)
	return claims{identity, r.Expires.Time}, err
}

// identity is the bearer's name.
func (c *Config) identity(payload []byte) (string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return "", errors.New("token's claims are malformed")
	}
	claim := c.IdentityClaim
	if claim == "" {
		claim = "sub"
	}
	var name string
	if err := json.Unmarshal(all[claim], &name); err != nil || !pki.ValidName(name) {
		return "", fmt.Errorf("token's claim %s names no client: names are letters, digits, _ and -, at most 64", claim)
	}
	return name, nil
}

// audience is one string or a list of them.
type audience []string

// UnmarshalJSON takes both forms of RFC 7519 section 4.1.3.
func (a *audience) UnmarshalJSON(text []byte) error {
	var one string
	if err := json.Unmarshal(text, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// numericDate is a time as JWTs have it: seconds since 1970, fractions allowed.
type numericDate struct{ time.Time }

// UnmarshalJSON refuses what is not a time between 1970 and the year 9999.
func (d *numericDate) UnmarshalJSON(text []byte) error {
	var seconds float64
	if err := json.Unmarshal(text, &seconds); err != nil {
		return err
	}
	if !(seconds >= 0 && seconds <= maxDate) {
		return errors.New("not a time")
	}
	whole, fraction := math.Modf(seconds)
	d.Time = time.Unix(int64(whole), int64(fraction*1e9))
	return nil
}
