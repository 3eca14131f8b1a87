package enrol

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"pinseal/pki"
	"pinseal/signing"

	"github.com/go-json-experiment/json/jsontext"
)

// signRequest is the body of POST /sign/NAME/pkcs10.
type signRequest struct {
	// CSR is a PKCS 10 request, DER in base64.
	CSR string `json:"csr"`
	// Secret is the device's join code. With an operator's token, or the
	// certificate that is to be renewed, it may be left out.
	Secret string `json:"secret,omitempty"`
	// SigningCSR is a PKCS 10 request with the key that is to be trusted for
	// sealed messages. It needs the secret.
	SigningCSR string `json:"signing_csr,omitempty"`
	// Greeting is what the device's program has to tell the node's, which is its
	// own affair. It needs the signing key.
	Greeting json.RawMessage `json:"greeting,omitempty"`
}

// signReply is the answer.
type signReply struct {
	Certificate string    `json:"certificate"` // PEM
	Authorities string    `json:"authorities"` // PEM: what to trust
	Serial      string    `json:"serial"`
	NotAfter    time.Time `json:"not_after"`
	Node        string    `json:"node"`
	NodeKey     string    `json:"node_key"` // PEM: verifies the node's answers
	MQTTPort    uint16    `json:"mqtt_port,omitempty"`
	Topics      []string  `json:"topics,omitempty"` // on which it may command something
	// Welcome answers the greeting.
	Welcome json.RawMessage `json:"welcome,omitempty"`
}

type refusal struct {
	Error  Reason `json:"error"`
	Detail string `json:"detail"`
}

func refusalJSON(reason Reason, detail string) []byte {
	text, err := json.Marshal(refusal{reason, detail})
	if err != nil { // of two strings
		return nil
	}
	return append(text, '\n')
}

// signJSON judges who asks before it looks at what is asked for.
func (s *Server) signJSON(r *http.Request) (reply, error) {
	name := r.PathValue("name")
	if !pki.ValidName(name) {
		return reply{}, refuse(pki.ReasonMalformed, "a name has letters, digits, _ and -, at most 64")
	}
	body, err := parseSignRequest(r)
	if err != nil {
		return reply{}, err
	}
	operator, err := s.operator(r)
	if err != nil {
		return reply{}, err
	}
	if body.Secret != "" {
		if err := s.checkCode(r, name, body.Secret); err != nil {
			return reply{}, err
		}
	}
	o, err := s.orderJSON(r, name, body, operator)
	if err != nil {
		return reply{}, err
	}
	var welcome json.RawMessage
	if o.signKey != nil && len(body.Greeting) > 0 {
		if welcome, o.accept, err = s.cfg.Welcome(name, o.signKey, body.Greeting); err != nil {
			return reply{}, err
		}
	}
	cert, err := s.issue(r, o)
	if err != nil {
		return reply{}, err
	}
	text, err := json.Marshal(signReply{
		string(pki.EncodeCertificates(cert)), string(pki.EncodeCertificates(s.cfg.Authority().Anchors...)),
		pki.SerialText(cert), cert.NotAfter.UTC(), s.cfg.Node, string(s.cfg.NodeKey.PEM()), s.cfg.MQTTPort, s.cfg.Topics(name), welcome,
	})
	return reply{"application/json", false, append(text, '\n')}, err
}

// orderJSON finds out by which right the request is made: the code's, the operator's, or that of the certificate itself.
func (s *Server) orderJSON(r *http.Request, name string, body signRequest, operator string) (order, error) {
	if body.Secret == "" && operator == "" {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return order{}, refuse(ReasonNoCode, "neither a join code as secret, nor an operator's bearer token, nor the certificate that is to be renewed")
		}
		if _, err := s.peer(r); err != nil {
			return order{}, err
		}
	}
	request, signKey, err := body.requests(name)
	if err != nil {
		return order{}, err
	}
	switch {
	case body.Secret != "":
		o := s.withCode(name, body.Secret, request, signKey)
		if operator != "" {
			o.by = "code by way of " + operator
		}
		return o, nil
	case signKey != nil:
		return order{}, refuse(ReasonNoCode, "a signing key is trusted only with the device's join code")
	case operator != "":
		return order{name: name, by: "operator " + operator, request: request, byToken: true}, nil
	}
	o, err := s.renewal(r, request)
	if err == nil && o.name != name {
		return order{}, refuse(pki.ReasonOtherName, "the certificate is of %q, not of %q", o.name, name)
	}
	return o, err
}

// operator finds out whose bearer token (RFC 6750 section 2.1) was given; "" without one.
func (s *Server) operator(r *http.Request) (string, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", nil
	}
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", refuse(ReasonWrongToken, "authorization here is an operator's bearer token")
	}
	var name string
	err := s.guess(r, func(time.Time) (err error) {
		name, err = s.cfg.Operator(strings.TrimSpace(token))
		return err
	})
	return name, err
}

func parseSignRequest(r *http.Request) (signRequest, error) {
	var body signRequest
	text, err := readBody(r)
	if err != nil {
		return body, err
	}
	// encoding/json alone would take a member twice, and bytes that are no UTF-8.
	if !jsontext.Value(text).IsValid() {
		return body, refuse(pki.ReasonMalformed, "the body is not JSON, or has a member twice")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		return body, refuse(pki.ReasonMalformed, "%w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return body, refuse(pki.ReasonMalformed, "something follows the body")
	}
	return body, nil
}

// requests reads both signing requests.
func (b signRequest) requests(name string) (*pki.Request, *signing.PublicKey, error) {
	request, err := decodeRequest([]byte(b.CSR))
	if err != nil || b.SigningCSR == "" {
		return request, nil, err
	}
	signRequest, err := decodeRequest([]byte(b.SigningCSR))
	if err != nil {
		return nil, nil, err
	}
	if request.SameKey(signRequest) {
		return nil, nil, refuse(ReasonKnownKey, "the TLS key and the signing key are to be two keys")
	}
	signKey, err := signingKey(signRequest, name)
	return request, signKey, err
}
