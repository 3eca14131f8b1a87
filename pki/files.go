package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Files are the paths of the PEM files of one TLS peer.
type Files struct {
	Certificate string // own certificate first, then intermediates if any
	Key         string // the private key of the first certificate
	CA          string // one or more authorities whose certificates the other side must have
	CRL         string // revocation lists of these authorities; "" for none. Servers only
	Denied      string // a [DenyList], which need not exist; "" for none. Servers only
}

// FileError says which file cannot be used, why, and what may cure it.
type FileError struct {
	Path string
	Err  error
	Hint string
}

// Error implements error: the path and what is wrong with it.
func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause, for example [fs.ErrNotExist].
func (e *FileError) Unwrap() error { return e.Err }

// loadCertificate reads the peer's own certificate and key.
func loadCertificate(f Files, usage x509.ExtKeyUsage, now time.Time) (*tls.Certificate, error) {
	certs, err := readCertificates(f.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := readFile(f.Key, ParseKey)
	if err != nil {
		return nil, err
	}
	if !Belongs(key, certs[0]) {
		return nil, &FileError{
			f.Key, fmt.Errorf("key does not belong to the first certificate in %s (%s)", f.Certificate, certs[0].Subject),
			"use the key that the certificate was made for, or issue a certificate for this key",
		}
	}
	if err := checkOwn(certs[0], usage, now); err != nil {
		err.Path = f.Certificate
		return nil, err
	}
	own := &tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, cert := range certs {
		own.Certificate = append(own.Certificate, cert.Raw)
	}
	return own, nil
}

// checkOwn does not mind a certificate that is not valid yet: see [notBefore].
func checkOwn(cert *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) *FileError {
	if now.After(cert.NotAfter) {
		return &FileError{
			Err: fmt.Errorf("certificate %q expired on %s, now is %s", cert.Subject, date(cert.NotAfter), date(now)),
			Hint: fmt.Sprintf("have %q issue a new one and put it in place of the old (for a device of this node: "+
				"`pinseal device add`); if the date is wrong, set this machine's clock", cert.Issuer),
		}
	}
	if !mayServe(cert, usage) {
		return &FileError{
			Err:  fmt.Errorf("certificate %q is not for a TLS %s: extended key usage lacks %s", cert.Subject, role(usage), usageName(usage)),
			Hint: "issue one with extendedKeyUsage = " + usageName(usage),
		}
	}
	return nil
}

// mayServe follows RFC 5280 section 4.2.1.12: without the extension any use is
// allowed, as in certificates by a plain `openssl x509 -req`.
func mayServe(cert *x509.Certificate, usage x509.ExtKeyUsage) bool {
	for _, have := range cert.ExtKeyUsage {
		if have == usage || have == x509.ExtKeyUsageAny {
			return true
		}
	}
	return len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0
}

func role(usage x509.ExtKeyUsage) string {
	if usage == x509.ExtKeyUsageServerAuth {
		return "server"
	}
	return "client"
}

func usageName(usage x509.ExtKeyUsage) string { return role(usage) + "Auth" }

// loadRoots reads the authorities to trust. An expired one beside a valid one
// is normal while an authority is replaced; only expired ones are an error.
func loadRoots(path string, now time.Time) ([]*x509.Certificate, error) {
	certs, err := readCertificates(path)
	if err != nil {
		return nil, err
	}
	var last time.Time
	for _, cert := range certs {
		if err := checkAuthority(cert); err != nil {
			return nil, &FileError{path, err, "give the certificate of the authority that issued the peers' certificates"}
		}
		if cert.NotAfter.After(last) {
			last = cert.NotAfter
		}
	}
	if now.After(last) {
		return nil, &FileError{
			path, fmt.Errorf("authority %q expired on %s, now is %s", certs[0].Subject, date(last), date(now)),
			"make a new authority and issue every certificate again; if the date is wrong, set this machine's clock",
		}
	}
	return certs, nil
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	return readFile(path, ParseCertificates)
}

func readFile[T any](path string, parse func([]byte) (T, error)) (T, error) {
	var none T
	data, err := os.ReadFile(path)
	if err != nil {
		return none, unreadable(path, err)
	}
	value, err := parse(data)
	if err != nil {
		return none, &FileError{path, err, wrongContent(data)}
	}
	return value, nil
}

// unreadable drops the path that os errors repeat.
func unreadable(path string, err error) *FileError {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathError.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return &FileError{path, err, "run as the user that owns the file"}
	}
	return &FileError{path, err, "check the path; `pinseal init` and `pinseal device add` write these files"}
}

func wrongContent(data []byte) string {
	const derSequence = 0x30 // every certificate and key in DER starts so
	if len(data) > 0 && data[0] == derSequence && !strings.Contains(string(data), "-----BEGIN ") {
		return "this looks like DER; `openssl x509 -inform DER` (or `openssl pkey -inform DER`) writes it as PEM"
	}
	return "the file must be PEM, as openssl and `pinseal init` write it"
}
