package enrol

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"pinseal/pki"
	"pinseal/signing"
)

const maxReplyBytes = 256 << 10

// ErrWrongAuthority is the answer to a server that does not hold a certificate
// of the authority with the invitation's fingerprint. Nothing was sent to it.
var ErrWrongAuthority = errors.New("the server is not the one that the line was made for: its authority has another fingerprint")

// Keys are a device's own, which never leave it, two different ones, and its
// greeting.
type Keys struct {
	TLS     crypto.Signer // see [pki.ParseRequest] for which are taken
	Signing crypto.Signer // ECDSA on P-256
	// Greeting is what else the node's program is told, in JSON; nil is nothing.
	Greeting []byte
}

// Joined is what a device has been given.
type Joined struct {
	Certificate *x509.Certificate   // for the TLS key
	Authorities []*x509.Certificate // to trust, the one of the invitation among them
	Node        string              // its name
	NodeKey     *signing.PublicKey  // verifies what the node seals
	MQTTPort    uint16              // 0: its broker is elsewhere
	Topics      []string            // on which it may command something
	Welcome     []byte              // JSON: the answer to the greeting
	ServerTime  time.Time           // when the node answered, by its own clock
}

// Join shows the invitation's code and gets the certificate. Before it sends
// anything, the server must have shown a certificate for the invitation's host
// that comes from the invitation's authority. What the server answers is
// believed only as far as that authority has signed it. A refusal by the server
// is a [*pki.RefusedError]. dial makes the connection; nil is net.Dialer's.
func (i Invitation) Join(ctx context.Context, keys Keys, dial func(ctx context.Context, network, address string) (net.Conn, error), now time.Time) (*Joined, error) {
	body, err := i.request(keys)
	if err != nil {
		return nil, err
	}
	var authority *x509.Certificate
	transport := &http.Transport{DialContext: dial, TLSClientConfig: i.tlsConfig(now, &authority), DisableKeepAlives: true}
	text, header, err := post(ctx, i.address(), i.Name, body, transport)
	if err != nil {
		return nil, err
	}
	joined, err := i.parse(text, keys, authority, now)
	if err != nil {
		return nil, fmt.Errorf("the node's answer: %w", err)
	}
	if joined.ServerTime, err = http.ParseTime(header.Get("Date")); err != nil {
		return nil, fmt.Errorf("the node's answer: its date: %w", err)
	}
	return joined, nil
}

func (i Invitation) request(keys Keys) ([]byte, error) {
	csr, err := pki.CreateRequest(i.Name, keys.TLS)
	if err != nil {
		return nil, err
	}
	signingCSR, err := pki.CreateRequest(i.Name, keys.Signing)
	if err != nil {
		return nil, err
	}
	encode := base64.StdEncoding.EncodeToString
	return json.Marshal(signRequest{CSR: encode(csr), Secret: i.Code, SigningCSR: encode(signingCSR), Greeting: keys.Greeting}) //nolint:gosec // the code is for the node, whose authority was verified
}

// tlsConfig lets only the invited to server finish the handshake, and keeps its authority.
func (i Invitation) tlsConfig(now time.Time, authority **x509.Certificate) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: pki.ServerName(i.Host), NextProtos: []string{"http/1.1"}}
	// crypto/tls knows no fingerprints: what it would verify is verified below, and nothing is sent before.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		for at, cert := range cs.PeerCertificates {
			if !sameHash(pki.Fingerprint(cert), i.Fingerprint) || !cert.IsCA {
				continue
			}
			*authority = cert
			leaf := cs.PeerCertificates[0]
			options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: config.ServerName, CurrentTime: atLeast(now, leaf.NotBefore)}
			options.Roots.AddCert(cert)
			for _, other := range cs.PeerCertificates[1:at] {
				options.Intermediates.AddCert(other)
			}
			_, err := leaf.Verify(options)
			return err
		}
		return ErrWrongAuthority
	}
	return config
}

// atLeast raises the clock of a device that has just booted: a certificate that exists has begun.
func atLeast(now, begin time.Time) time.Time {
	if now.Before(begin) {
		return begin
	}
	return now
}

func refused(status string, text []byte) error {
	var told refusal
	if err := json.Unmarshal(text, &told); err != nil || told.Error == "" {
		return fmt.Errorf("the server answered %s", status)
	}
	return refuse(told.Error, "%.500s", told.Detail)
}

// parse believes nothing that the invitation's authority has not signed.
func (i Invitation) parse(text []byte, keys Keys, authority *x509.Certificate, now time.Time) (*Joined, error) {
	var told signReply
	if err := json.Unmarshal(text, &told); err != nil {
		return nil, err
	}
	certs, err := pki.ParseCertificates([]byte(told.Certificate))
	if err != nil {
		return nil, err
	}
	joined := &Joined{Certificate: certs[0], Node: told.Node, MQTTPort: told.MQTTPort, Topics: told.Topics, Welcome: told.Welcome}
	if joined.Authorities, err = pki.ParseCertificates([]byte(told.Authorities)); err != nil {
		return nil, err
	}
	if err := i.check(joined, keys.TLS, authority, now); err != nil {
		return nil, err
	}
	nodeKeys, err := signing.ParsePublicKeys([]byte(told.NodeKey))
	if err != nil || !pki.ValidName(told.Node) {
		return nil, errors.New("it has no name of a node, or no key")
	}
	joined.NodeKey = nodeKeys[0]
	return joined, nil
}

func (i Invitation) check(joined *Joined, tlsKey crypto.Signer, authority *x509.Certificate, now time.Time) error {
	name, err := pki.Identity(joined.Certificate)
	key, ok := tlsKey.Public().(interface{ Equal(x crypto.PublicKey) bool })
	if err != nil || name != i.Name || !ok || !key.Equal(joined.Certificate.PublicKey) {
		return fmt.Errorf("its certificate is not for %s and the key it was asked for", i.Name)
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), CurrentTime: atLeast(now, joined.Certificate.NotBefore),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	known := false
	for _, anchor := range joined.Authorities {
		known = known || anchor.Equal(authority)
		options.Roots.AddCert(anchor)
	}
	if !known {
		return errors.New("the authority of the line is not among those it wants us to trust")
	}
	if _, err := joined.Certificate.Verify(options); err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	return nil
}
