package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// Explain words an error of loading TLS files or of connecting as a client for
// a person: one line that says what is wrong, and one that says what may cure
// it. For an error it knows nothing about, problem is its text and hint is
// empty.
func Explain(err error) (problem, hint string) {
	if file, ok := errors.AsType[*FileError](err); ok {
		return err.Error(), file.Hint
	}
	if problem, hint := explainServer(err); problem != "" {
		return problem, hint
	}
	return explainAlert(err)
}

// explainServer covers what this side found wrong with the server's certificate.
func explainServer(err error) (problem, hint string) {
	var (
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &host):
		names := certificateNames(host.Certificate)
		return fmt.Sprintf("the server's certificate is for %s, not for %s", names, host.Host),
			fmt.Sprintf("connect by one of the names it has, or issue it again with %s among its subject alternative names", host.Host)
	case errors.As(err, &unknown):
		return fmt.Sprintf("the server's certificate was issued by %s, which is not among the trusted authorities", issuer(err, unknown.Cert)),
			"trust the CA certificate of this server (--cafile); if it should be trusted already, you may be talking to another server"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return explainValidity(invalid)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the server's certificate is not for a TLS server",
			"issue it again with extendedKeyUsage = serverAuth"
	}
	return "", ""
}

// explainValidity tells a certificate that is over from one that has not begun,
// which x509 reports alike.
func explainValidity(invalid x509.CertificateInvalidError) (problem, hint string) {
	cert := invalid.Cert
	return fmt.Sprintf("certificate %q is valid from %s to %s: %s",
			cert.Subject, date(cert.NotBefore), date(cert.NotAfter), invalid.Detail),
		"renew the server's certificate; if the date is wrong, set this machine's clock"
}

func issuer(err error, cert *x509.Certificate) string {
	verification, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if ok && len(verification.UnverifiedCertificates) > 0 {
		cert = verification.UnverifiedCertificates[0]
	}
	if cert == nil {
		return "an unknown authority"
	}
	return fmt.Sprintf("%q", cert.Issuer)
}

func certificateNames(cert *x509.Certificate) string {
	names := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all (it has no subject alternative names)"
	}
	return strings.Join(names, ", ")
}

// explainAlert covers what the server said. crypto/tls does not export its
// alerts (RFC 8446 section 6), only their text.
func explainAlert(err error) (problem, hint string) {
	const newCertificate = "use a certificate that this server's authority has issued (`pinseal device add`)"
	alerts := []struct{ text, problem, hint string }{
		{"tls: certificate required", "the server requires a client certificate", "give one with --cert and --key, or a whole bundle with --bundle"},
		{"tls: unknown certificate authority", "the server does not know the authority of your certificate", newCertificate},
		{"tls: expired certificate", "the server says that your certificate has expired", newCertificate + ", and check the server's clock"},
		{"tls: revoked certificate", "the server says that your certificate is revoked", newCertificate},
		{"tls: bad certificate", "the server refused your certificate", "it was revoked, or its common name does not match [A-Za-z0-9_-]{1,64}, or it does not allow clientAuth"},
		{"tls: unsupported certificate", "the server refused your certificate", "it must allow clientAuth"},
		{"tls: handshake failure", "the server refused the handshake", "it may want a client certificate (--cert and --key), or TLS settings you do not have"},
		{"tls: protocol version not supported", "the server and you have no TLS version in common", "TLS 1.3 is the default; TLS 1.2 must be allowed explicitly"},
		{"first record does not look like a TLS handshake", "the server does not speak TLS on this port", "use the TLS port (usually 8883)"},
	}
	for _, alert := range alerts {
		if strings.Contains(err.Error(), alert.text) {
			return alert.problem, alert.hint
		}
	}
	return err.Error(), ""
}
