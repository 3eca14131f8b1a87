package signing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of the format.
const (
	MaxSealedBytes = 65536         // a whole sealed message
	MaxSequence    = 1<<53 - 1     // of seq and of whole seconds: what every JSON library reads exactly, RFC 8259 section 6
	headerType     = "pinseal+jwt" // RFC 8725 section 3.11: a type of its own
	kidChars       = 43            // base64url of 32 bytes
	signatureChars = 86            // base64url of 64 bytes
	maxNonceBytes  = 64
	maxDepth       = 16
	maxSeconds     = MaxSequence // of iat and exp
	maxDecimals    = 6           // of iat and exp: microseconds
	base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// Sealed is a sealed message that is well-formed and not yet verified. All it
// tells is which key to verify it with.
type Sealed struct {
	algorithm Algorithm
	kid       string
	signed    []byte // header, dot and claims as received: what the signature is over
	signature [signatureSize]byte
	claims    claims
}

// claims are the members of the second part.
type claims struct {
	topic    string
	issuedAt time.Time
	expires  time.Time // zero: none
	sequence uint64
	nonce    string // empty: none
	message  []byte // the JSON value as received
}

// KeyID returns the kid the message names: 43 characters, not yet to be believed.
func (s *Sealed) KeyID() string { return s.kid }

// Parse reads a sealed message strictly and verifies nothing. Every error is a
// *[RefusedError] with [ReasonMalformed]. The result refers to raw, which must
// stay unchanged until it has been verified.
func Parse(raw []byte) (*Sealed, error) {
	if len(raw) > MaxSealedBytes {
		return nil, malformed("longer than 65536 bytes")
	}
	signed, signature, ok := cutLast(raw)
	if !ok {
		return nil, malformed("not three parts with dots between")
	}
	header, payload, ok := cutLast(signed)
	if !ok { // a fourth part would make header no base64url
		return nil, malformed("not three parts with dots between")
	}
	if len(signature) != signatureChars {
		return nil, malformed("the signature is not 64 bytes")
	}
	s := &Sealed{signed: signed}
	if _, err := appendBase64(s.signature[:0], signature); err != nil {
		return nil, malformed("the signature is not base64url")
	}
	if err := s.parseParts(header, payload); err != nil {
		return nil, err
	}
	return s, nil
}

// parseParts decodes both parts into one buffer and reads them with one
// decoder.
func (s *Sealed) parseParts(header, payload []byte) error {
	buf := make([]byte, 0, base64.RawURLEncoding.DecodedLen(len(header)+len(payload)))
	buf, err := appendBase64(buf, header)
	if err != nil {
		return malformed("the header is not base64url")
	}
	d := new(jsontext.Decoder)
	if err := s.parseHeader(d, buf); err != nil {
		return err
	}
	buf, err = appendBase64(buf[len(buf):], payload)
	if err != nil {
		return malformed("the claims are not base64url")
	}
	return s.claims.parse(d, buf)
}

func cutLast(b []byte) (before, after []byte, ok bool) {
	i := bytes.LastIndexByte(b, '.')
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// appendBase64 decodes base64url without padding (RFC 7515 section 2) and with
// its unused bits zero, so that each content has one encoding.
func appendBase64(dst, src []byte) ([]byte, error) {
	// encoding/base64 passes over line breaks.
	if bytes.ContainsAny(src, "\r\n") {
		return nil, errors.New("line break")
	}
	return base64.RawURLEncoding.Strict().AppendDecode(dst, src)
}

func malformed(format string, args ...any) error {
	return Refuse(ReasonMalformed, format, args...)
}

// parseHeader reads the first part: exactly alg, kid and typ. RFC 7515 lets a
// header say much more, and much of that has been used for attacks.
func (s *Sealed) parseHeader(d *jsontext.Decoder, b []byte) error {
	typed := false
	err := eachMember(d, b, "header", func(name []byte) error {
		switch string(name) {
		case "alg":
			alg, err := readString(d, "alg")
			if s.algorithm = Algorithm(alg); err == nil && s.algorithm != ES256 && s.algorithm != ES256K {
				return malformed("alg is neither ES256 nor ES256K")
			}
			return err
		case "kid":
			var err error
			if s.kid, err = readString(d, "kid"); err == nil && !validKID(s.kid) {
				return malformed("kid is not 43 base64url characters")
			}
			return err
		case "typ":
			typ, err := readString(d, "typ")
			typed = typ == headerType
			return err
		default:
			return malformed("the header has a member outside the format")
		}
	})
	if err == nil && (s.algorithm == "" || s.kid == "" || !typed) {
		return malformed("the header lacks alg, kid or typ " + headerType)
	}
	return err
}

func validKID(kid string) bool {
	return len(kid) == kidChars && strings.Trim(kid, base64Alphabet) == ""
}
