package pki

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// DoubtClock makes a client of [ClientConfig] take a server's certificate that
// is not valid yet by a clock that is in doubt. Such a clock only says what time
// it is at least, and the authority's signature says that the certificate's
// first moment has passed, too: a machine that has slept through the renewal of
// the server's certificate can connect, and be told the time. Everything else
// is judged as ever. doubtful is asked only then.
func DoubtClock(config *tls.Config, doubtful func() bool) {
	config.InsecureSkipVerify = true // the same checks are made below
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		now := time.Time{}
		if config.Time != nil {
			now = config.Time()
		}
		err := verifyServer(config, cs, now)
		if start := lastStart(cs.PeerCertificates); err != nil && now.Before(start) && doubtful() {
			err = verifyServer(config, cs, start)
		}
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
		}
		return nil
	}
}

// verifyServer is what crypto/tls does for a client.
func verifyServer(config *tls.Config, cs tls.ConnectionState, now time.Time) error {
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: config.RootCAs, Intermediates: pool(cs.PeerCertificates[1:]), CurrentTime: now, DNSName: config.ServerName,
	})
	return err
}

func lastStart(chain []*x509.Certificate) time.Time {
	var last time.Time
	for _, cert := range chain {
		if cert.NotBefore.After(last) {
			last = cert.NotBefore
		}
	}
	return last
}
