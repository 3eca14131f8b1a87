package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/pki"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{"localhost", "127.0.0.1"} {
		client, err := pki.ClientConfig(f.client, name, at(now))
		if err != nil {
			t.Fatal(err)
		}
		got, err := connect(t, loadServer(t, f.server, now).Config(), client)
		if err != nil || got.err != nil {
			t.Fatalf("%s: client %v, server %v", name, err, got.err)
		}
		if identity, err := pki.Identity(got.state.PeerCertificates[0]); identity != "sensor-1" || err != nil {
			t.Errorf("identity %q, %v", identity, err)
		}
		if got.state.Version != tls.VersionTLS13 {
			t.Errorf("version %s", tls.VersionName(got.state.Version))
		}
	}
}

// raw is a client that does not look at its own certificate first.
func raw(t *testing.T, f pki.Files) *tls.Config {
	t.Helper()
	config := clientConfig(t, pki.Files{CA: f.CA}, now)
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return config
}

func TestServerRefusesClients(t *testing.T) {
	t.Parallel()
	f, authority := newFixture(t), newAuthority(t)
	foreign := issueClient(t, authority, t.TempDir(), "sensor-1", now)
	foreign.CA = f.client.CA
	tests := []struct {
		name    string
		client  *tls.Config
		server  string // what the server finds
		explain string // what Explain makes of it at the client
	}{
		{"no certificate", clientConfig(t, pki.Files{CA: f.client.CA}, now), "didn't provide a certificate", "the server requires a client certificate"},
		{"foreign authority", clientConfig(t, foreign, now), "unknown authority", "the server does not know the authority of your certificate"},
		{"server certificate", raw(t, f.server), "incompatible key usage", "the server refused your certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := connect(t, loadServer(t, f.server, now).Config(), tt.client)
			wantError(t, got.err, tt.server)
			wantError(t, err, "remote error")
			if problem, hint := pki.Explain(err); problem != tt.explain || hint == "" {
				t.Errorf("Explain(%v) = %q, %q", err, problem, hint)
			}
		})
	}
}

// Each side has a clock of its own, and each judges the other by it.
// Without a certificate a client gets in; a bad one is still refused.
func TestOptionalConfig(t *testing.T) {
	t.Parallel()
	f, authority := newFixture(t), newAuthority(t)
	foreign := issueClient(t, authority, t.TempDir(), "sensor-1", now)
	foreign.CA = f.client.CA
	config := loadServer(t, f.server, now).OptionalConfig()
	for _, tt := range []struct {
		name   string
		client *tls.Config
		server string // what the server finds, "" if it lets the client in
	}{
		{"no certificate", clientConfig(t, pki.Files{CA: f.client.CA}, now), ""},
		{"good certificate", clientConfig(t, f.client, now), ""},
		{"foreign authority", clientConfig(t, foreign, now), "unknown authority"},
		{"server certificate", raw(t, f.server), "incompatible key usage"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := connect(t, config, tt.client)
			if tt.server != "" {
				wantError(t, got.err, tt.server)
			} else if got.err != nil || err != nil {
				t.Errorf("server %v, client %v", got.err, err)
			}
		})
	}
}

func TestValidityIsJudgedByTheGivenClock(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                       string
		serverIssued, clientIssued time.Duration // from now
		serverClock, clientClock   time.Duration
		serverWant, clientWant     string // "" = accepted
	}{
		{name: "both now"},
		{name: "last day", serverClock: 824 * day, clientClock: 824 * day},
		{name: "client expired at the server", serverIssued: 100 * day, serverClock: 824*day + time.Second, clientClock: 200 * day, serverWant: "expired"},
		{name: "client not yet valid at the server", clientIssued: 10 * day, clientClock: 10 * day, serverWant: "not yet valid"},
		{name: "server expired at the client", clientIssued: 100 * day, serverClock: 200 * day, clientClock: 824*day + time.Second, clientWant: "expired"},
		{name: "server not yet valid at the client", serverIssued: 10 * day, serverClock: 10 * day, clientWant: "not yet valid"},
		{name: "client booted in 1970", clientClock: -61 * 365 * day},
		{name: "server booted in 1970", serverClock: -61 * 365 * day},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			authority, dir := newAuthority(t), t.TempDir()
			server := loadServer(t, issueServer(t, authority, dir, now.Add(tt.serverIssued)), now.Add(tt.serverClock))
			client := clientConfig(t, issueClient(t, authority, dir, "sensor-1", now.Add(tt.clientIssued)), now.Add(tt.clientClock))
			got, err := connect(t, server.Config(), client)
			if tt.serverWant == "" && tt.clientWant == "" {
				if got.err != nil || err != nil {
					t.Errorf("server %v, client %v", got.err, err)
				}
				return
			}
			if tt.serverWant != "" {
				wantError(t, got.err, tt.serverWant)
				wantError(t, err, "remote error: tls: expired certificate")
			}
			if tt.clientWant != "" {
				wantError(t, err, tt.clientWant)
			}
		})
	}
}

func TestTLS12OnlyByChoice(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old := clientConfig(t, f.client, now)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12

	got, err := connect(t, loadServer(t, f.server, now).Config(), old)
	wantError(t, got.err, "unsupported versions")
	if problem, hint := pki.Explain(err); problem != "the server and you have no TLS version in common" || hint == "" {
		t.Errorf("Explain(%v) = %q", err, problem)
	}

	lenient, err := pki.LoadServer(f.server, tls.VersionTLS12, at(now))
	if err != nil {
		t.Fatal(err)
	}
	got, err = connect(t, lenient.Config(), old)
	if err != nil || got.err != nil || got.state.Version != tls.VersionTLS12 {
		t.Errorf("client %v, server %v, %s", err, got.err, tls.VersionName(got.state.Version))
	}
	if _, err := connect(t, lenient.Config(), clientConfig(t, pki.Files{CA: f.client.CA}, now)); err == nil {
		t.Error("no certificate is enough")
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	server := loadServer(t, f.server, now)
	config := server.Config()
	before, err := connect(t, config, clientConfig(t, f.client, now))
	if err != nil || before.err != nil {
		t.Fatal(err, before.err)
	}
	if err := server.Check(before.state); err != nil {
		t.Errorf("right after the handshake: %v", err)
	}

	// A reload that fails changes nothing, however far it came.
	good := read(t, f.server.CA)
	write(t, f.dir, filepath.Base(f.server.CA), []byte("not a certificate"))
	wantFileError(t, server.Reload(), f.server.CA, "not a PEM file")
	if got, err := connect(t, config, clientConfig(t, f.client, now)); err != nil || got.err != nil {
		t.Fatalf("after a failed reload: client %v, server %v", err, got.err)
	}
	write(t, f.dir, filepath.Base(f.server.CA), good)

	// Another authority: the same configuration now serves and trusts the new one.
	dir, authority := t.TempDir(), newAuthority(t)
	client := issueClient(t, authority, dir, "sensor-2", now)
	replace(t, f.server, issueServer(t, authority, dir, now))
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	if got, err := connect(t, config, clientConfig(t, client, now)); err != nil || got.err != nil {
		t.Errorf("client of the new authority: client %v, server %v", err, got.err)
	}
	wantError(t, server.Check(before.state), "sensor-1", "unknown authority")
	stranger := raw(t, f.client)
	stranger.RootCAs = clientConfig(t, client, now).RootCAs
	got, _ := connect(t, config, stranger)
	wantError(t, got.err, "unknown authority")
}

// replace puts the files of b in the places of a.
func replace(t *testing.T, a, b pki.Files) {
	t.Helper()
	for _, pair := range [][2]string{{a.Certificate, b.Certificate}, {a.Key, b.Key}, {a.CA, b.CA}} {
		if err := os.Rename(pair[1], pair[0]); err != nil {
			t.Fatal(err)
		}
	}
}

// A session is resumed until the files are read again, or its certificate has expired.
func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			var clock atomic.Pointer[time.Time]
			clock.Store(&now)
			server, err := pki.LoadServer(f.server, tls.VersionTLS12, func() time.Time { return *clock.Load() })
			if err != nil {
				t.Fatal(err)
			}
			required, optional := server.Config(), server.OptionalConfig()
			client := clientConfig(t, f.client, now)
			client.MinVersion, client.MaxVersion = version, version
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			step := func(what string, config *tls.Config, resumed bool) {
				t.Helper()
				got, err := connect(t, config, client)
				if err != nil || got.err != nil {
					t.Fatal(what, err, got.err)
				}
				if got.state.DidResume != resumed || len(got.state.PeerCertificates) == 0 || len(got.state.VerifiedChains) == 0 {
					t.Errorf("%s: resumed %v, want %v, with the client's certificate", what, got.state.DidResume, resumed)
				}
			}
			step("first", required, false)
			step("second", required, true)
			step("at the other listener", optional, true)
			if err := server.Reload(); err != nil {
				t.Fatal(err)
			}
			step("after a reload", required, false)
			step("then", required, true)
			expired := now.AddDate(4, 0, 0)
			clock.Store(&expired)
			got, _ := connect(t, required, client)
			wantError(t, got.err, "expired")
		})
	}
}

// A session that got in without a certificate opens no door that asks for one.
func TestResumedWithoutCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	server := loadServer(t, f.server, now)
	client := clientConfig(t, pki.Files{CA: f.client.CA}, now)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		got, err := connect(t, server.OptionalConfig(), client)
		if err != nil || got.err != nil || got.state.DidResume != resumed {
			t.Fatalf("client %v, server %v, resumed %v, want %v", err, got.err, got.state.DidResume, resumed)
		}
	}
	got, _ := connect(t, server.Config(), client)
	wantError(t, got.err, "didn't provide a certificate")
}

// Even with keys that outlive a reload, what is resumed is judged by what holds now.
func TestResumedIsJudged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var clock atomic.Pointer[time.Time]
	clock.Store(&now)
	server, err := pki.LoadServer(f.server, 0, func() time.Time { return *clock.Load() })
	if err != nil {
		t.Fatal(err)
	}
	inner, err := server.Config().GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	tickets := inner.Clone()
	client := clientConfig(t, f.client, now)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		got, err := connect(t, tickets, client)
		if err != nil || got.err != nil || got.state.DidResume != resumed {
			t.Fatalf("client %v, server %v, resumed %v, want %v", err, got.err, got.state.DidResume, resumed)
		}
	}
	replace(t, f.server, issueServer(t, newAuthority(t), t.TempDir(), now))
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	got, _ := connect(t, tickets, client)
	wantError(t, got.err, "sensor-1", "unknown authority")
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	server := loadServer(t, f.server, now)
	cert := func(path string) []*x509.Certificate { return []*x509.Certificate{parseOne(t, read(t, path))} }
	foreign := issueClient(t, newAuthority(t), t.TempDir(), "sensor-1", now)
	tests := []struct {
		name  string
		certs []*x509.Certificate
		want  string
	}{
		{"no certificate", nil, "no certificate"},
		{"no name", cert(f.client.CA), "common name"},
		{"wrong purpose", cert(f.server.Certificate), "raspiflow: x509: certificate specifies an incompatible key usage"},
		{"foreign", cert(foreign.Certificate), "sensor-1: x509: certificate signed by unknown authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantError(t, server.Check(tls.ConnectionState{PeerCertificates: tt.certs}), tt.want)
		})
	}
}

func TestCheckFollowsTheClock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	clock := now
	server, err := pki.LoadServer(f.server, 0, func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{parseOne(t, read(t, f.client.Certificate))}}
	if err := server.Check(state); err != nil {
		t.Error(err)
	}
	clock = now.Add(825 * day)
	wantError(t, server.Check(state), "expired")
}
