package enrol

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"pinseal/pki"
)

// Dial makes a connection; nil is net.Dialer's.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Renew has the node at address certify a new key for name, whose present
// certificate is the one of the TLS configuration, see [pki.RenewalConfig]. It
// returns the certificate and the authorities to trust, as [pki] has verified
// them: the certificate comes from one of them, and is for name and the key. A
// refusal by the node is a [*pki.RefusedError].
func Renew(ctx context.Context, address, name string, key crypto.Signer, config *tls.Config, dial Dial) (chain, anchors []*x509.Certificate, err error) {
	csr, err := pki.CreateRequest(name, key)
	if err != nil {
		return nil, nil, err
	}
	body, err := json.Marshal(signRequest{CSR: base64.StdEncoding.EncodeToString(csr)}) //nolint:gosec // there is no secret in it
	if err != nil {
		return nil, nil, err
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	text, _, err := post(ctx, address, name, body, &http.Transport{DialContext: dial, TLSClientConfig: config, DisableKeepAlives: true})
	if err != nil {
		return nil, nil, err
	}
	var told signReply
	if err := json.Unmarshal(text, &told); err != nil {
		return nil, nil, fmt.Errorf("the node's answer: %w", err)
	}
	if chain, err = pki.ParseCertificates([]byte(told.Certificate)); err != nil {
		return nil, nil, fmt.Errorf("the node's answer: %w", err)
	}
	if anchors, err = pki.ParseCertificates([]byte(told.Authorities)); err != nil {
		return nil, nil, fmt.Errorf("the node's answer: %w", err)
	}
	return chain, anchors, checkRenewed(chain, anchors, name, key)
}

func checkRenewed(chain, anchors []*x509.Certificate, name string, key crypto.Signer) error {
	if got, err := pki.Identity(chain[0]); err != nil || got != name || !pki.Belongs(key, chain[0]) {
		return fmt.Errorf("the node's certificate is not for %s and its new key", name)
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: chain[0].NotBefore,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, anchor := range anchors {
		options.Roots.AddCert(anchor)
		options.CurrentTime = atLeast(options.CurrentTime, anchor.NotBefore)
	}
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(options); err != nil {
		return fmt.Errorf("the node's certificate: %w", err)
	}
	return nil
}

// post sends a request for a certificate, to this server and no other.
func post(ctx context.Context, address, name string, body []byte, transport *http.Transport) ([]byte, http.Header, error) {
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the server wants us to go elsewhere")
	}}
	target := url.URL{Scheme: "https", Host: address, Path: "/sign/" + name + "/pkcs10"}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReplyBytes))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the node's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, refused(response.Status, text)
	}
	return text, response.Header, nil
}
