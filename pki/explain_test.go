package pki_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pinseal/pki"
)

func TestExplainServerCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	foreign := issueClient(t, newAuthority(t), t.TempDir(), "sensor-1", now)
	ec := []string{"ecparam", "-genkey", "-name", "prime256v1"}
	bare := newOpenSSLPKI(t, ec...)
	bare.issue(t, "server", "/CN=localhost", "", "30", ec...)
	bare.issue(t, "client", "/CN=sensor-1", clientExtensions, "30", ec...)
	bare.issue(t, "wrong", "/CN=x", clientExtensions+"subjectAltName=DNS:localhost\n", "30", ec...)
	clientOnly := bare.files("wrong")
	pair, err := tls.LoadX509KeyPair(clientOnly.Certificate, clientOnly.Key)
	if err != nil {
		t.Fatal(err)
	}
	client := func(f pki.Files, name string) *tls.Config {
		config, err := pki.ClientConfig(f, name, at(now))
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	ours := loadServer(t, f.server, now).Config()
	tests := []struct {
		name           string
		server, client *tls.Config
		problem        string
		hint           string
	}{
		{
			"address not among the names", ours, client(f.client, "10.1.2.3"),
			"the server's certificate is for localhost, 127.0.0.1, not for 10.1.2.3", "subject alternative names",
		},
		{
			"host name not among the names", ours, client(f.client, "raspi.example.org"),
			"the server's certificate is for localhost, 127.0.0.1, not for raspi.example.org", "raspi.example.org",
		},
		{
			"link-local address with zone", ours, client(f.client, "fe80::1%eth0"),
			"not for fe80::1", "fe80::1 among",
		},
		{
			"no names", loadServer(t, bare.files("server"), bare.now).Config(), clientConfig(t, bare.files("client"), bare.now),
			"no name at all (it has no subject alternative names), not for localhost", "issue it again",
		},
		{
			"another authority", ours, client(foreign, "localhost"),
			`was issued by "CN=test authority", which is not among the trusted authorities`, "--cafile",
		},
		{
			"client certificate as server", &tls.Config{Certificates: []tls.Certificate{pair}}, clientConfig(t, pki.Files{CA: clientOnly.CA}, bare.now),
			"not for a TLS server", "serverAuth",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := connect(t, tt.server, tt.client)
			problem, hint := pki.Explain(fmt.Errorf("connecting: %w", err))
			if !strings.Contains(problem, tt.problem) || !strings.Contains(hint, tt.hint) {
				t.Errorf("Explain(%v) =\n%q, %q, want\n%q, %q", err, problem, hint, tt.problem, tt.hint)
			}
			if strings.Contains(problem+hint, "\n") {
				t.Error("more than one line")
			}
		})
	}
}

func TestExplainExpiredServer(t *testing.T) {
	t.Parallel()
	authority, dir := newAuthority(t), t.TempDir()
	server := loadServer(t, issueServer(t, authority, dir, now), now)
	late := now.Add(824*day + 1)
	_, err := connect(t, server.Config(), clientConfig(t, issueClient(t, authority, dir, "a", late), late))
	problem, hint := pki.Explain(err)
	if !strings.Contains(problem, `"CN=raspiflow" is valid from 2031-05-05 07:08 UTC to 2033-08-07 07:08 UTC`) || !strings.Contains(hint, "clock") {
		t.Errorf("Explain(%v) = %q, %q", err, problem, hint)
	}
}

func TestExplainNoTLS(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	here, there := net.Pipe()
	go func() {
		go func() { _, _ = io.Copy(io.Discard, there) }()
		_, _ = io.WriteString(there, "HTTP/1.0 400 Bad Request\r\n\r\n")
		_ = there.Close()
	}()
	err := tls.Client(here, clientConfig(t, f.client, now)).HandshakeContext(t.Context())
	if problem, hint := pki.Explain(err); problem != "the server does not speak TLS on this port" || hint == "" {
		t.Errorf("Explain(%v) = %q, %q", err, problem, hint)
	}
}

func TestExplainOthers(t *testing.T) {
	t.Parallel()
	if problem, hint := pki.Explain(errors.New("no route to host")); problem != "no route to host" || hint != "" {
		t.Errorf("Explain = %q, %q", problem, hint)
	}
	_, err := pki.ClientConfig(pki.Files{CA: "/none"}, "localhost", at(now))
	problem, hint := pki.Explain(fmt.Errorf("starting: %w", err))
	if problem != "starting: /none: no such file or directory" || !strings.Contains(hint, "pinseal init") {
		t.Errorf("Explain = %q, %q", problem, hint)
	}
}
