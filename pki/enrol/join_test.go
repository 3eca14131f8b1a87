package enrol_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"
)

func newKeys(t *testing.T) enrol.Keys {
	t.Helper()
	return enrol.Keys{TLS: newKey(t), Signing: newKey(t)}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	invitation, keys := n.invitation("sensor-7"), newKeys(t)
	// A device that boots in the past joins all the same.
	for _, now := range []time.Time{start, time.Unix(0, 0)} {
		joined, err := invitation.Join(t.Context(), keys, nil, now)
		if err != nil {
			t.Fatal(err)
		}
		if joined.Node != "raspiflow" || joined.NodeKey.ID() != n.config.NodeKey.ID() || joined.MQTTPort != 8883 || !joined.ServerTime.Equal(start) || len(joined.Topics) != 1 {
			t.Errorf("%+v", joined)
		}
		if len(joined.Authorities) != 1 || !joined.Authorities[0].Equal(n.authority.Certificate()) || joined.Certificate.Subject.CommonName != invitation.Name {
			t.Errorf("%+v", joined)
		}
		if key := n.signers.keys[invitation.Name]; key == nil || key.ID() != publicKey(t, keys.Signing).ID() {
			t.Errorf("%s: the signing key is not registered", invitation.Name)
		}
		invitation, keys = n.invitation("sensor-8"), newKeys(t)
	}
	if n.issued() != 2 || n.signers.count() != 2 {
		t.Errorf("certificates: %d, signing keys: %d", n.issued(), n.signers.count())
	}
}

// Where there is neither name server nor router a node is reached by a link-local address, whose zone is nobody's but ours.
func TestJoinByLinkLocalAddress(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) {
		key := must(pki.GenerateKey())(t)
		n.files = n.save("broker", must(n.authority.IssueServer("raspiflow", []string{"fe80::1"}, key.Public(), start))(t), key)
	})
	var asked string
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		asked = address
		return (&net.Dialer{}).DialContext(ctx, network, n.address)
	}
	invitation := must(enrol.ParseInvitation(fmt.Sprintf("[fe80::1%%eth0]:8443/sensor-7/%s/%s", n.code("sensor-7"), pki.Fingerprint(n.authority.Certificate()))))(t)
	keys := newKeys(t)
	joined, err := invitation.Join(t.Context(), keys, dial, start)
	if err != nil || asked != "[fe80::1%eth0]:8443" {
		t.Fatalf("%s: %v", asked, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(n.authority.Certificate())
	config := &tls.Config{RootCAs: roots, Time: n.clock, ServerName: "fe80::1", Certificates: []tls.Certificate{{Certificate: [][]byte{joined.Certificate.Raw}, PrivateKey: keys.TLS}}}
	if _, _, err := enrol.Renew(t.Context(), "[fe80::1%eth0]:8443", "sensor-7", newKey(t), config, dial); err != nil {
		t.Errorf("renewing: %v", err)
	}
}

// What else device and node tell each other is told only with a signing key, and a bad word costs nothing.
func TestGreeting(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	invitation, keys := n.invitation("sensor-7"), newKeys(t)
	keys.Greeting = []byte(`"bad"`)
	if _, err := invitation.Join(t.Context(), keys, nil, start); !isReason(err, pki.ReasonMalformed) {
		t.Errorf("%v", err)
	}
	if n.issued() != 0 || len(n.greeted) != 0 {
		t.Errorf("%d certificates, greeted %v", n.issued(), n.greeted)
	}
	keys.Greeting = []byte(`{"hello":"there"}`)
	joined, err := invitation.Join(t.Context(), keys, nil, start)
	if err != nil || string(joined.Welcome) != `{"hello":"there"}` || len(n.greeted) != 1 {
		t.Errorf("%v, greeted %v", err, n.greeted)
	}
	got := n.post(n.client(nil), "/sign/sensor-8/pkcs10", asJSON, `{"csr":"`+csr(t, "sensor-8", newKey(t))+`","secret":"`+n.code("sensor-8")+`","greeting":{}}`, nil)
	if got.status != http.StatusOK || strings.Contains(got.body, "welcome") || len(n.greeted) != 1 {
		t.Errorf("%d %s, greeted %v", got.status, got.body, n.greeted)
	}
}

// A refusal of the node comes with its reason.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	invitation := n.invitation("sensor-7")
	if _, err := invitation.Join(t.Context(), newKeys(t), nil, start); err != nil {
		t.Fatal(err)
	}
	_, err := invitation.Join(t.Context(), newKeys(t), nil, start)
	if refused, ok := errors.AsType[*pki.RefusedError](err); !ok || refused.Reason != enrol.ReasonUsedCode {
		t.Errorf("%v", err)
	}
	same := newKey(t)
	again := n.invitation("sensor-8")
	_, err = again.Join(t.Context(), enrol.Keys{TLS: same, Signing: same}, nil, start)
	if refused, ok := errors.AsType[*pki.RefusedError](err); !ok || refused.Reason != enrol.ReasonKnownKey {
		t.Errorf("%v", err)
	}
}

// impostor answers like a node, but with certificates and an answer of the test's choice.
func impostor(t *testing.T, own *tls.Certificate, handle http.HandlerFunc) (host string, port uint16, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		handle(w, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*own}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	address, ok := server.Listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("no address")
	}
	return "127.0.0.1", uint16(address.Port), asked
}

func chain(t *testing.T, authority *pki.Authority, names []string, more ...*x509.Certificate) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	certs := must(pki.ParseCertificates(must(authority.IssueServer("raspiflow", names, key.Public(), start))(t)))(t)
	own := &tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key}
	for _, cert := range more {
		own.Certificate = append(own.Certificate, cert.Raw)
	}
	return own
}

// Nothing is sent to a server that the line was not made for.
func TestNothingIsSentToStrangers(t *testing.T) {
	t.Parallel()
	authority := must(pki.CreateAuthority("raspiflow authority", start))(t)
	other := must(pki.CreateAuthority("raspiflow authority", start))(t)
	device := newNode(t, func(n *node) { n.authority = authority }).certificate(authority, "sensor-1")
	ours, theirs := authority.Certificate(), other.Certificate()
	here := []string{"127.0.0.1"}
	for what, own := range map[string]*tls.Certificate{
		"another authority":                    chain(t, other, here, theirs),
		"another authority, with ours along":   chain(t, other, here, theirs, ours),
		"another authority's, with ours alone": chain(t, other, here, ours),
		"our authority without its own":        chain(t, authority, here),
		"our authority, for another host":      chain(t, authority, []string{"raspiflow.local"}, ours),
		"a device's certificate":               {Certificate: append(device.Certificate, ours.Raw), PrivateKey: device.PrivateKey},
	} {
		host, port, asked := impostor(t, own, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
		invitation := enrol.Invitation{Host: host, Port: port, Name: "sensor-7", Code: enrol.NewCode(), Fingerprint: pki.Fingerprint(ours)}
		_, err := invitation.Join(t.Context(), newKeys(t), nil, start)
		if err == nil || asked.Load() != 0 {
			t.Errorf("%s: %v, asked %d times", what, err, asked.Load())
		}
		if wrong := strings.Contains(what, "another authority") && !strings.Contains(what, "along") && !strings.Contains(what, "alone"); wrong && !errors.Is(err, enrol.ErrWrongAuthority) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// An expired certificate of the node.
	host, port, asked := impostor(t, chain(t, authority, here, ours), func(http.ResponseWriter, *http.Request) {})
	invitation := enrol.Invitation{Host: host, Port: port, Name: "sensor-7", Code: enrol.NewCode(), Fingerprint: pki.Fingerprint(ours)}
	if _, err := invitation.Join(t.Context(), newKeys(t), nil, start.AddDate(5, 0, 0)); err == nil || asked.Load() != 0 {
		t.Errorf("expired: %v, asked %d times", err, asked.Load())
	}
}

// Even the right server is believed only what its authority has signed.
func TestJoinJudgesTheAnswer(t *testing.T) {
	t.Parallel()
	authority := must(pki.CreateAuthority("raspiflow authority", start))(t)
	other := must(pki.CreateAuthority("another", start))(t)
	keys := newKeys(t)
	issue := func(a *pki.Authority, name string, key any) string {
		return string(must(a.IssueClient(name, key, start))(t))
	}
	good := map[string]any{
		"certificate": issue(authority, "sensor-7", keys.TLS.Public()), "authorities": string(authority.CertificatePEM()),
		"node": "raspiflow", "node_key": string(must(signing.GenerateKey(signing.ES256))(t).Public().PEM()), "mqtt_port": 8883,
	}
	const untouched = "the right answer"
	date := start.Format(http.TimeFormat)
	for what, change := range map[string]map[string]any{
		untouched:                           {},
		"another key":                       {"certificate": issue(authority, "sensor-7", newKey(t).Public())},
		"another name":                      {"certificate": issue(authority, "operator", keys.TLS.Public())},
		"another authority's certificate":   {"certificate": issue(other, "sensor-7", keys.TLS.Public())},
		"another authority":                 {"certificate": issue(other, "sensor-7", keys.TLS.Public()), "authorities": string(other.CertificatePEM())},
		"no authority":                      {"authorities": ""},
		"no certificate":                    {"certificate": ""},
		"a server's certificate":            {"certificate": string(must(authority.IssueServer("sensor-7", []string{"a"}, keys.TLS.Public(), start))(t))},
		"no name of a node":                 {"node": "../evil"},
		"no key of the node":                {"node_key": ""},
		"something else in the key's place": {"node_key": "x"},
	} {
		answer := maps.Clone(good)
		maps.Copy(answer, change)
		text := must(json.Marshal(answer))(t)
		host, port, _ := impostor(t, chain(t, authority, []string{"127.0.0.1"}, authority.Certificate()), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", date)
			_, _ = w.Write(text)
		})
		invitation := enrol.Invitation{Host: host, Port: port, Name: "sensor-7", Code: enrol.NewCode(), Fingerprint: pki.Fingerprint(authority.Certificate())}
		if joined, err := invitation.Join(t.Context(), keys, nil, start); (err == nil) != (what == untouched) || (joined == nil) != (err != nil) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What is no answer of a node ends in an error that says so.
func TestJoinStrangeServers(t *testing.T) {
	t.Parallel()
	authority := must(pki.CreateAuthority("raspiflow authority", start))(t)
	for what, tt := range map[string]struct {
		handle http.HandlerFunc
		want   string
	}{
		"no JSON":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "the node's answer"},
		"not found": {http.NotFound, "404"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, "elsewhere"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }, "the node's answer"},
		"no refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte("{}"))
		}, "418"},
	} {
		host, port, _ := impostor(t, chain(t, authority, []string{"127.0.0.1"}, authority.Certificate()), tt.handle)
		invitation := enrol.Invitation{Host: host, Port: port, Name: "sensor-7", Code: enrol.NewCode(), Fingerprint: pki.Fingerprint(authority.Certificate())}
		if _, err := invitation.Join(t.Context(), newKeys(t), nil, start); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", what, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	invitation := enrol.Invitation{Host: "127.0.0.1", Port: 1, Name: "sensor-7", Code: enrol.NewCode(), Fingerprint: pki.Fingerprint(authority.Certificate())}
	if _, err := invitation.Join(ctx, newKeys(t), nil, start); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
