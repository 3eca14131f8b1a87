package pki_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
)

// now is when the tests of our own certificates happen; nothing depends on
// the machine's clock.
var now = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// openssl runs Debian's openssl in dir and returns what it prints.
func openssl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tryOpenSSL(t, dir, args...)
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryOpenSSL(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func newAuthority(t *testing.T) *pki.Authority {
	t.Helper()
	authority, err := pki.CreateAuthority("test authority", now)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parseOne(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	certs, err := pki.ParseCertificates(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	if len(certs) != 1 {
		t.Fatalf("%d certificates, want 1", len(certs))
	}
	return certs[0]
}

// save writes a certificate, a key and the authority to trust as dir/name.*.
func save(t *testing.T, dir, name string, certPEM []byte, key crypto.Signer, ca []byte) pki.Files {
	t.Helper()
	keyPEM, err := pki.MarshalKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pki.Files{
		Certificate: write(t, dir, name+".crt", certPEM),
		Key:         write(t, dir, name+".key", keyPEM),
		CA:          write(t, dir, name+".ca", ca),
	}
}

func issueServer(t *testing.T, authority *pki.Authority, dir string, issued time.Time) pki.Files {
	t.Helper()
	key := newKey(t)
	cert, err := authority.IssueServer("raspiflow", []string{"localhost", "127.0.0.1"}, key.Public(), issued)
	if err != nil {
		t.Fatal(err)
	}
	return save(t, dir, "server", cert, key, authority.CertificatePEM())
}

func issueClient(t *testing.T, authority *pki.Authority, dir, name string, issued time.Time) pki.Files {
	t.Helper()
	key := newKey(t)
	cert, err := authority.IssueClient(name, key.Public(), issued)
	if err != nil {
		t.Fatal(err)
	}
	return save(t, dir, name, cert, key, authority.CertificatePEM())
}

func loadServer(t *testing.T, f pki.Files, now time.Time) *pki.Server {
	t.Helper()
	server, err := pki.LoadServer(f, 0, at(now))
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func clientConfig(t *testing.T, f pki.Files, now time.Time) *tls.Config {
	t.Helper()
	config, err := pki.ClientConfig(f, "localhost", at(now))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// accepted is the outcome of one connection at the server.
type accepted struct {
	state tls.ConnectionState
	err   error
}

// serve accepts one connection, greets the client and waits for it to leave.
func serve(t *testing.T, config *tls.Config) (addr string, outcome <-chan accepted) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // closed before: fine
	result := make(chan accepted, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			result <- accepted{err: err}
			return
		}
		secured := tls.Server(conn, config)
		err = secured.HandshakeContext(t.Context())
		if err == nil {
			_, err = io.WriteString(secured, "welcome\n")
			_ = secured.CloseWrite()
		}
		result <- accepted{secured.ConnectionState(), err}
		// A close with unread data would reset the connection and lose the alert.
		if half, ok := conn.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	return listener.Addr().String(), result
}

// connect joins a server and a client and returns what each thinks of it.
func connect(t *testing.T, server, client *tls.Config) (accepted, error) {
	t.Helper()
	addr, outcome := serve(t, server)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	secured := tls.Client(conn, client)
	// With TLS 1.3 the server's verdict comes after the client's handshake.
	_, clientErr := io.ReadFull(secured, make([]byte, len("welcome\n")))
	_ = secured.Close()
	return <-outcome, clientErr
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not contain %q", err, part)
		}
	}
}

func wantFileError(t *testing.T, err error, path string, parts ...string) {
	t.Helper()
	wantError(t, err, parts...)
	file, ok := errors.AsType[*pki.FileError](err)
	if !ok {
		t.Fatalf("%v is not a FileError", err)
	}
	if file.Path != path {
		t.Errorf("error names %s, want %s", file.Path, path)
	}
	if file.Hint == "" {
		t.Errorf("error %q has no hint", err)
	}
}
