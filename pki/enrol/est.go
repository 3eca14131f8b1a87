package enrol

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"

	"pinseal/pki"
)

const base64Line = 64

// caCerts is RFC 7030 section 4.1: what to trust.
func (s *Server) caCerts(*http.Request) (reply, error) {
	authority := s.cfg.Authority()
	der, err := pki.CertsOnly(slices.Concat(authority.Anchors, authority.Crosses)...)
	return estReply("application/pkcs7-mime", der), err
}

// csrAttrs is RFC 7030 section 4.5: a P-256 key and SHA-256 are what we like best.
func (s *Server) csrAttrs(*http.Request) (reply, error) {
	type attribute struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.ObjectIdentifier `asn1:"set"`
	}
	key, err := asn1.Marshal(attribute{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, []asn1.ObjectIdentifier{{1, 2, 840, 10045, 3, 1, 7}}})
	if err != nil {
		return reply{}, err
	}
	hash, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}) // ecdsa-with-SHA256
	if err != nil {
		return reply{}, err
	}
	all, err := asn1.Marshal([]asn1.RawValue{{FullBytes: key}, {FullBytes: hash}})
	return estReply("application/csrattrs", all), err
}

// simpleEnroll is RFC 7030 section 4.2.1, with name and code as HTTP basic authentication.
func (s *Server) simpleEnroll(r *http.Request) (reply, error) {
	name, code, ok := r.BasicAuth()
	if !ok {
		return reply{}, refuse(ReasonNoCode, "the device's name and its join code are wanted as HTTP basic authentication")
	}
	// Whoever has no code has not even their request looked at.
	if err := s.checkCode(r, name, code); err != nil {
		return reply{}, err
	}
	request, err := estRequest(r)
	if err != nil {
		return reply{}, err
	}
	return s.issueEST(r, s.withCode(name, code, request, nil))
}

// simpleReenroll is RFC 7030 section 4.2.2: the certificate of the TLS connection is renewed, for the same key or another.
func (s *Server) simpleReenroll(r *http.Request) (reply, error) {
	if _, err := s.peer(r); err != nil {
		return reply{}, err
	}
	request, err := estRequest(r)
	if err != nil {
		return reply{}, err
	}
	o, err := s.renewal(r, request)
	if err != nil {
		return reply{}, err
	}
	return s.issueEST(r, o)
}

func (s *Server) issueEST(r *http.Request, o order) (reply, error) {
	cert, err := s.issue(r, o)
	if err != nil {
		return reply{}, err
	}
	der, err := pki.CertsOnly(cert)
	return estReply("application/pkcs7-mime; smime-type=certs-only", der), err
}

// estRequest reads a signing request in base64 (RFC 8951 section 3.1).
func estRequest(r *http.Request) (*pki.Request, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/pkcs10" {
		return nil, refuse(pki.ReasonMalformed, "the content type is application/pkcs10")
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	return decodeRequest(body)
}

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(pki.ReasonOversized, "more than %d bytes", over.Limit)
	}
	if err != nil {
		return nil, refuse(pki.ReasonMalformed, "cut short: %w", err)
	}
	return body, nil
}

// decodeRequest takes base64 with and without line feeds, as `base64` and `openssl base64` write it.
func decodeRequest(text []byte) (*pki.Request, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return nil, refuse(pki.ReasonMalformed, "the request is not base64: %w", err)
	}
	return pki.ParseRequest(der)
}

func estReply(contentType string, der []byte) reply {
	var text bytes.Buffer
	for encoded := base64.StdEncoding.AppendEncode(nil, der); len(encoded) > 0; {
		line := encoded[:min(base64Line, len(encoded))]
		encoded = encoded[len(line):]
		text.Write(line)
		text.WriteByte('\n')
	}
	return reply{contentType, true, text.Bytes()}
}
