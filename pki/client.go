package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"time"
)

// ClientConfig returns the configuration of a TLS 1.3 client that connects to
// serverName, a DNS name or IP address that must be among the subject
// alternative names of the server's certificate. (For a server that only has
// TLS 1.2, lower MinVersion in the result.) Without Certificate and Key no
// certificate is presented; without CA the system's authorities are trusted.
// now must be safe for concurrent use; it judges every certificate. Errors
// about a file are a [*FileError]; [Explain] words those of the handshake.
func ClientConfig(f Files, serverName string, now func() time.Time) (*tls.Config, error) {
	return clientConfig(f, serverName, now, now())
}

// RenewalConfig is [ClientConfig] for who wants to renew the certificate, which
// may have expired.
func RenewalConfig(f Files, serverName string, now func() time.Time) (*tls.Config, error) {
	return clientConfig(f, serverName, now, time.Time{})
}

// clientConfig judges its own certificate by another time than the server's.
func clientConfig(f Files, serverName string, now func() time.Time, judged time.Time) (*tls.Config, error) {
	if serverName == "" {
		return nil, errors.New("a server name is required to verify the server")
	}
	if (f.Certificate == "") != (f.Key == "") {
		return nil, errors.New("a client certificate and its key must be given together")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: ServerName(serverName), Time: now}
	if f.CA != "" {
		roots, err := loadRoots(f.CA, now())
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool(roots)
	}
	if f.Certificate != "" {
		own, err := loadCertificate(f, x509.ExtKeyUsageClientAuth, judged)
		if err != nil {
			return nil, err
		}
		config.Time = notBefore(now, own.Leaf)
		// Not Certificates: crypto/tls would hold back a certificate of an
		// authority the server does not know, and the server would complain of
		// a missing certificate instead of a foreign one.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return own, nil
		}
	}
	return config, nil
}

// ServerName is what a host is called in its certificate: without the zone of a
// link-local address, which belongs to this machine's routing.
func ServerName(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.WithZone("").String()
	}
	return host
}
