package signing

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// parse reads the second part. The zero value of each required claim is
// outside the format or, for seq and iat, told by a flag.
func (c *claims) parse(d *jsontext.Decoder, b []byte) error {
	hasSequence, hasIssuedAt := false, false
	err := eachMember(d, b, "claims", func(name []byte) (err error) {
		switch string(name) {
		case "aud":
			if c.topic, err = readString(d, "aud"); err == nil && !ValidTopic(c.topic) {
				return malformed("aud is not a topic name of 1 to 256 bytes without wildcards")
			}
		case "iat":
			hasIssuedAt = true
			c.issuedAt, err = readTime(d, "iat")
		case "exp":
			c.expires, err = readTime(d, "exp")
		case "seq":
			hasSequence = true
			c.sequence, err = readSequence(d)
		case "nonce":
			if c.nonce, err = readString(d, "nonce"); err == nil && (c.nonce == "" || len(c.nonce) > maxNonceBytes) {
				return malformed("nonce is not 1 to %d bytes", maxNonceBytes)
			}
		case "msg":
			c.message, err = readMessage(d, b)
		default:
			return malformed("the claims have a member outside the format")
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case c.topic == "" || !hasIssuedAt || !hasSequence || c.message == nil:
		return malformed("the claims lack aud, iat, seq or msg")
	case !c.expires.IsZero() && !c.expires.After(c.issuedAt):
		return malformed("exp is not after iat")
	}
	return nil
}

// eachMember reads b as one JSON object and nothing else, calling read with each
// name and the decoder standing before the value. jsontext refuses invalid
// UTF-8, lone surrogates and duplicate names (RFC 7493), also inside values and
// whatever their escapes. Raw values rather than tokens: tokens allocate.
func eachMember(d *jsontext.Decoder, b []byte, part string, read func(name []byte) error) error {
	d.Reset(bytes.NewBuffer(b))
	if d.PeekKind() != '{' {
		return malformed("the %s part is not a JSON object", part)
	}
	if _, err := d.ReadToken(); err != nil {
		return notJSON(part, err)
	}
	for d.PeekKind() == '"' {
		quoted, err := d.ReadValue()
		if err != nil {
			return notJSON(part, err)
		}
		name, err := unquote(quoted)
		if err == nil {
			err = read(name)
		}
		if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused {
			return notJSON(part, err)
		}
		if err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace, nothing else
		return notJSON(part, err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return malformed("bytes follow the %s", part)
	}
	return nil
}

// unquote returns the content of a valid JSON string, without a copy where it
// has no escapes.
func unquote(quoted []byte) ([]byte, error) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], nil
	}
	return jsontext.AppendUnquote(nil, quoted)
}

// notJSON leaves out the decoder's own words: they quote the input.
func notJSON(part string, err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return malformed("the %s part is not strict JSON at byte %d", part, syntax.ByteOffset)
	}
	return malformed("the %s part is not strict JSON", part)
}

func readString(d *jsontext.Decoder, name string) (string, error) {
	value, err := d.ReadValue()
	if err != nil {
		return "", err
	}
	if value.Kind() != '"' {
		return "", malformed("%s is not a string", name)
	}
	content, err := unquote(value)
	return string(content), err
}

// readTime reads a NumericDate (RFC 7519 section 2), narrowed to digits with at
// most six decimals: what is left has one meaning in every language.
func readTime(d *jsontext.Decoder, name string) (time.Time, error) {
	value, err := d.ReadValue()
	if err != nil {
		return time.Time{}, err
	}
	whole, fraction, _ := strings.Cut(string(value), ".")
	if seconds, ok := digits[int64](whole); ok && len(fraction) <= maxDecimals {
		if micros, ok := digits[int64]((fraction + "000000")[:maxDecimals]); ok {
			return time.Unix(seconds, micros*int64(time.Microsecond)).UTC(), nil
		}
	}
	return time.Time{}, malformed("%s is not seconds since 1970 with at most six decimals", name)
}

// digits reads decimal digits and nothing else, up to [MaxSequence].
func digits[T int64 | uint64](s string) (T, bool) {
	var n T
	for _, c := range []byte(s) {
		n = n*10 + T(c-'0')
		if c < '0' || c > '9' || n > MaxSequence {
			return 0, false
		}
	}
	return n, s != ""
}

// readSequence reads digits; JSON itself has refused leading zeros.
func readSequence(d *jsontext.Decoder) (uint64, error) {
	value, err := d.ReadValue()
	if err != nil {
		return 0, err
	}
	sequence, ok := digits[uint64](string(value))
	if !ok {
		return 0, malformed("seq is not digits from 0 to %d", uint64(MaxSequence))
	}
	return sequence, nil
}

// readMessage returns the value's own bytes within b, the decoder's input.
func readMessage(d *jsontext.Decoder, b []byte) ([]byte, error) {
	value, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	if value.Kind() == 'n' {
		return nil, malformed("msg is null")
	}
	if depth(value) > maxDepth {
		return nil, malformed("msg is nested deeper than %d", maxDepth)
	}
	end := int(d.InputOffset())
	return b[end-len(value) : end : end], nil
}

// ValidMessage reports whether value can be the msg of a sealed message: one
// strict JSON value (RFC 7493), not null, at most 16 deep.
func ValidMessage(value []byte) bool {
	v := jsontext.Value(value)
	return v.IsValid() && v.Kind() != jsontext.KindNull && depth(value) <= maxDepth
}

// depth counts how many arrays and objects are open at once in a valid JSON
// value: 0 for a string or number, 1 for [].
func depth(value []byte) int {
	open, deepest, quoted := 0, 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++ // an escaped quote ends nothing
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			open++
			deepest = max(deepest, open)
		case c == ']' || c == '}':
			open--
		}
	}
	return deepest
}
