package encryption

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"pinseal/signing"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits and fixed words of the format.
const (
	// MaxRecipients is how many recipients a message may have.
	MaxRecipients = 16
	headerType    = "pinseal+jwe" // RFC 8725 section 3.11: a type of its own
	kidChars      = 43
	maxMembers    = 6 // of any object of the format
	ivBytes       = 12
	tagBytes      = 16
)

// Binding is the sealed message that a ciphertext belongs into.
type Binding struct {
	Topic    string // its aud
	KeyID    string // the kid of the key that signs it
	Sequence uint64 // its seq
}

// BindingOf is the binding of a verified message.
func BindingOf(m *signing.Message) Binding {
	return Binding{m.Topic(), m.KeyID(), m.Sequence()}
}

// envelope is an encrypted message, parsed and not yet opened.
type envelope struct {
	protected  []byte // in base64url, as received: what the ciphertext is authenticated with
	binding    Binding
	recipients []entry
	iv         []byte
	ciphertext []byte
	tag        []byte
}

// entry is what one recipient needs.
type entry struct {
	algorithm string
	kid       string
	ephemeral *ecdh.PublicKey // of algorithmPublic
	wrapped   []byte
}

// Encrypted reports whether the JSON of a verified message is an encrypted
// message, well-formed or not: an object with the members protected and
// ciphertext.
func Encrypted(msg []byte) bool {
	found, err := members(msg)
	return err == nil && found["protected"] != nil && found["ciphertext"] != nil
}

// object is a JSON object by its members' names.
type object map[string]jsontext.Value

// members reads an object. jsontext refuses duplicate names and invalid UTF-8.
func members(text []byte) (object, error) {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	if d.PeekKind() != '{' {
		return nil, errors.New("not an object")
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, errNotJSON()
	}
	found := make(object, maxMembers)
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, errNotJSON()
		}
		key := name.String()
		value, err := d.ReadValue()
		if err != nil {
			return nil, errNotJSON()
		}
		found[key] = value.Clone()
	}
	if _, err := d.ReadToken(); err != nil || len(bytes.TrimLeft(text[d.InputOffset():], " \t\r\n")) > 0 {
		return nil, errNotJSON()
	}
	return found, nil
}

// errNotJSON leaves out the decoder's own words: they quote the input.
func errNotJSON() error { return errors.New("not strict JSON") }

// exactly wants just these members.
func (o object) exactly(names ...string) error {
	for _, name := range names {
		if o[name] == nil {
			return fmt.Errorf("%s is missing", name)
		}
	}
	if len(o) != len(names) {
		return errors.New("a member outside the format")
	}
	return nil
}

// exactly reads an object that has just these members.
func exactly(text []byte, names ...string) (object, error) {
	found, err := members(text)
	if err != nil {
		return nil, err
	}
	return found, found.exactly(names...)
}

// parseEnvelope reads an encrypted message strictly: nothing in it is known to
// be true afterwards.
func parseEnvelope(msg []byte) (*envelope, error) {
	found, err := members(msg)
	if err != nil {
		return nil, err
	}
	entries, several := found["recipients"]
	if several {
		err = found.exactly("protected", "recipients", "iv", "ciphertext", "tag")
	} else {
		err = found.exactly("protected", "header", "encrypted_key", "iv", "ciphertext", "tag")
	}
	if err != nil {
		return nil, err
	}
	e := &envelope{}
	if several {
		e.recipients, err = parseRecipients(entries)
	} else {
		e.recipients, err = appendEntry(nil, found["header"], found["encrypted_key"])
	}
	if err != nil {
		return nil, err
	}
	for name, part := range map[string]*[]byte{"iv": &e.iv, "ciphertext": &e.ciphertext, "tag": &e.tag} {
		if *part, err = readBytes(found[name]); err != nil {
			return nil, fmt.Errorf("%s is not base64url", name)
		}
	}
	if len(e.iv) != ivBytes || len(e.tag) != tagBytes {
		return nil, fmt.Errorf("iv is not %d bytes, or tag not %d", ivBytes, tagBytes)
	}
	return e, e.parseProtected(found["protected"])
}

func (e *envelope) parseProtected(value jsontext.Value) error {
	text, err := readString(value)
	if err != nil {
		return err
	}
	e.protected = []byte(text)
	content, err := decode(text)
	if err != nil {
		return errors.New("protected is not base64url")
	}
	header, err := exactly(content, "aud", "enc", "iss", "seq", "typ")
	if err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	words := make(map[string]string)
	for _, name := range []string{"aud", "enc", "iss", "typ"} {
		if words[name], err = readString(header[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if words["enc"] != contentCipher || words["typ"] != headerType {
		return errors.New("enc is not " + contentCipher + ", or typ not " + headerType)
	}
	number := string(header["seq"])
	sequence, err := strconv.ParseUint(number, 10, 64)
	if err != nil || sequence > signing.MaxSequence || strconv.FormatUint(sequence, 10) != number {
		return errors.New("seq is not a sequence number")
	}
	e.binding = Binding{words["aud"], words["iss"], sequence}
	return nil
}

func parseRecipients(array jsontext.Value) ([]entry, error) {
	d := jsontext.NewDecoder(bytes.NewReader(array))
	if d.PeekKind() != '[' {
		return nil, errors.New("recipients is not an array")
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, errNotJSON()
	}
	var entries []entry
	for d.PeekKind() != ']' {
		value, err := d.ReadValue()
		if err != nil {
			return nil, errNotJSON()
		}
		found, err := exactly(value, "header", "encrypted_key")
		if err != nil {
			return nil, fmt.Errorf("recipients: %w", err)
		}
		if entries, err = appendEntry(entries, found["header"], found["encrypted_key"]); err != nil {
			return nil, fmt.Errorf("recipients: %w", err)
		}
	}
	if len(entries) == 0 {
		return nil, errors.New("there is no recipient")
	}
	return entries, nil
}

// appendEntry reads what one recipient needs; nobody may be named twice.
func appendEntry(entries []entry, headerObject, key jsontext.Value) ([]entry, error) {
	if len(entries) == MaxRecipients {
		return nil, fmt.Errorf("more than %d recipients", MaxRecipients)
	}
	e, err := parseHeader(headerObject)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	for _, other := range entries {
		if other.kid == e.kid {
			return nil, errors.New("a recipient is named twice")
		}
	}
	if e.wrapped, err = readBytes(key); err != nil || len(e.wrapped) != wrappedBytes {
		return nil, fmt.Errorf("encrypted_key is not %d bytes", wrappedBytes)
	}
	return append(entries, e), nil
}

func parseHeader(value jsontext.Value) (entry, error) {
	found, err := members(value)
	if err != nil {
		return entry{}, err
	}
	var e entry
	if e.algorithm, err = readString(found["alg"]); err != nil {
		return entry{}, errors.New("alg is missing")
	}
	switch e.algorithm {
	case algorithmPublic:
		if err = found.exactly("alg", "kid", "epk"); err != nil {
			return entry{}, err
		}
		if e.ephemeral, err = parsePoint(found["epk"]); err != nil {
			return entry{}, err
		}
	case algorithmShared:
		if err = found.exactly("alg", "kid"); err != nil {
			return entry{}, err
		}
	default:
		return entry{}, errors.New("alg is neither " + algorithmPublic + " nor " + algorithmShared)
	}
	if e.kid, err = readString(found["kid"]); err != nil || len(e.kid) != kidChars {
		return entry{}, fmt.Errorf("kid is not %d characters", kidChars)
	}
	return e, nil
}

// parsePoint reads an ephemeral key.
func parsePoint(value jsontext.Value) (*ecdh.PublicKey, error) {
	found, err := members(value)
	if err != nil {
		return nil, fmt.Errorf("epk: %w", err)
	}
	switch kind, err := readString(found["kty"]); {
	case err == nil && kind == "EC":
		return parseEC(found)
	case err == nil && kind == "OKP":
		return parseOKP(found)
	}
	return nil, errors.New("epk: kty is neither EC nor OKP")
}

// parseEC reads an ephemeral P-256 key. The standard library refuses points
// that are not on the curve (RFC 8725 section 3.4).
func parseEC(found object) (*ecdh.PublicKey, error) {
	if err := found.exactly("kty", "crv", "x", "y"); err != nil {
		return nil, fmt.Errorf("epk: %w", err)
	}
	if curve, err := readString(found["crv"]); err != nil || curve != "P-256" {
		return nil, errors.New("epk: crv is not P-256")
	}
	point := []byte{4} // uncompressed, SEC 1 section 2.3.3
	for _, name := range []string{"x", "y"} {
		coordinate, err := readBytes(found[name])
		if err != nil || len(coordinate) != coordinateBytes {
			return nil, fmt.Errorf("epk: %s is not %d bytes", name, coordinateBytes)
		}
		point = append(point, coordinate...)
	}
	key, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, errors.New("epk is not a point of P-256")
	}
	return key, nil
}

func readString(value jsontext.Value) (string, error) {
	if value.Kind() != '"' {
		return "", errors.New("not a string")
	}
	text, err := jsontext.AppendUnquote(nil, value)
	return string(text), err
}

func readBytes(value jsontext.Value) ([]byte, error) {
	text, err := readString(value)
	if err != nil {
		return nil, err
	}
	return decode(text)
}

// decode takes base64url as the sealed message has it: no padding, no line
// breaks, unused bits zero, so that no content has two encodings.
func decode(text string) ([]byte, error) {
	if bytes.ContainsAny([]byte(text), "\r\n") {
		return nil, errors.New("line break")
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}
