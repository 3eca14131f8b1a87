package enrol_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"
)

// start is when the tests happen by the node's clock; nothing depends on the machine's.
var start = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

// node is a server with everything around it.
type node struct {
	t         *testing.T
	dir       string
	config    enrol.Config
	authority *pki.Authority
	codes     *enrol.Codes
	signers   *fakeSigners
	files     pki.Files
	address   string
	tokens    map[string]string // operators by token

	mu      sync.Mutex
	now     time.Time
	log     bytes.Buffer
	greeted []string // whose greeting was accepted
}

// fakeSigners keeps keys in memory.
type fakeSigners struct {
	mu   sync.Mutex
	keys map[string]*signing.PublicKey
	fail error // what Add says
}

func (s *fakeSigners) Check(name string, key *signing.PublicKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for known, other := range s.keys {
		if known == name {
			return &pki.RefusedError{Reason: enrol.ReasonNotPermitted, Err: errors.New("taken")}
		}
		if other.ID() == key.ID() {
			return &pki.RefusedError{Reason: enrol.ReasonKnownKey, Err: errors.New("known")}
		}
	}
	return nil
}

func (s *fakeSigners) Add(name string, key *signing.PublicKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil {
		s.keys[name] = key
	}
	return s.fail
}

func (s *fakeSigners) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys)
}

// Write keeps the log; the handlers of a test may write at the same time.
func (n *node) Write(text []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.Write(text)
}

func (n *node) logged() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

func (n *node) clock() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

func (n *node) advance(by time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = n.now.Add(by)
}

// newNode starts a node; change may alter its configuration before.
func newNode(t *testing.T, change func(*node)) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), now: start, signers: &fakeSigners{keys: map[string]*signing.PublicKey{}}, tokens: map[string]string{}}
	n.authority = must(pki.CreateAuthority("raspiflow authority", start))(t)
	n.codes = must(enrol.OpenCodes(filepath.Join(n.dir, "codes")))(t)
	key := must(pki.GenerateKey())(t)
	n.files = n.save("broker", must(n.authority.IssueServer("raspiflow", []string{"127.0.0.1"}, key.Public(), start))(t), key)
	server := must(pki.LoadServer(n.files, 0, n.clock))(t)
	n.config = enrol.Config{
		Node: "raspiflow", NodeKey: must(signing.GenerateKey(signing.ES256))(t).Public(), MQTTPort: 8883,
		Authority: func() enrol.Authority {
			return enrol.Authority{Authority: n.authority, Anchors: []*x509.Certificate{n.authority.Certificate()}}
		},
		Profile: pki.Profile{Name: "device"}, Journal: pki.OpenJournal(n.journalPath()), Codes: n.codes, Signers: n.signers,
		Operator: n.operator, Permit: func(string, bool) error { return nil }, Topics: func(string) []string { return []string{"ledStatus"} }, Welcome: n.welcome,
		CheckPeer: server.Check, Limits: enrol.Limits{MaxRequests: 10_000}, Now: n.clock, Log: slog.New(slog.NewTextHandler(n, nil)),
	}
	if change != nil {
		change(n)
	}
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	serving := must(enrol.NewServer(n.config))(t)
	listener := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	n.address = listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serving.Run(ctx, listener, server.OptionalConfig()) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return n
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// welcome repeats the greeting; one that says so is refused.
func (n *node) welcome(name string, _ *signing.PublicKey, greeting []byte) ([]byte, func() error, error) {
	if string(greeting) == `"bad"` {
		return nil, nil, &pki.RefusedError{Reason: pki.ReasonMalformed, Err: errors.New("bad")}
	}
	return greeting, func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.greeted = append(n.greeted, name)
		return nil
	}, nil
}

func (n *node) operator(token string) (string, error) {
	if name, ok := n.tokens[token]; ok {
		return name, nil
	}
	return "", &pki.RefusedError{Reason: enrol.ReasonWrongToken, Err: errors.New("unknown")}
}

func (n *node) journalPath() string { return filepath.Join(n.dir, "journal") }

func (n *node) save(name string, certPEM []byte, key crypto.Signer) pki.Files {
	n.t.Helper()
	write := func(file string, data []byte) string {
		path := filepath.Join(n.dir, file)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			n.t.Fatal(err)
		}
		return path
	}
	return pki.Files{
		Certificate: write(name+".crt", certPEM), Key: write(name+".key", must(pki.MarshalKey(key))(n.t)),
		CA: write("ca.crt", n.authority.CertificatePEM()),
	}
}

// issued counts what the journal has.
func (n *node) issued() int {
	n.t.Helper()
	return len(must(pki.ReadJournal(n.journalPath()))(n.t).Entries)
}

// code lets a name join.
func (n *node) code(name string) string {
	n.t.Helper()
	code := enrol.NewCode()
	if err := n.codes.Add(name, enrol.HashCode(code), n.clock().Add(enrol.DefaultCodeLifetime), n.clock()); err != nil {
		n.t.Fatal(err)
	}
	return code
}

func (n *node) invitation(name string) enrol.Invitation {
	n.t.Helper()
	host, _, err := net.SplitHostPort(n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	tcp := must(net.ResolveTCPAddr("tcp", n.address))(n.t)
	return enrol.Invitation{Host: host, Port: uint16(tcp.Port), Name: name, Code: n.code(name), Fingerprint: pki.Fingerprint(n.authority.Certificate())}
}

// client is somebody who trusts the node, with a certificate or without.
func (n *node) client(own *tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(n.authority.Certificate())
	config := &tls.Config{RootCAs: roots, Time: n.clock}
	if own != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	n.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// certificate is one that the node's authority has given to name.
func (n *node) certificate(authority *pki.Authority, name string) *tls.Certificate {
	n.t.Helper()
	key := must(pki.GenerateKey())(n.t)
	cert := must(pki.ParseCertificates(must(authority.IssueClient(name, key.Public(), n.clock()))(n.t)))(n.t)
	return &tls.Certificate{Certificate: [][]byte{cert[0].Raw}, PrivateKey: key, Leaf: cert[0]}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) reason() enrol.Reason {
	var told struct {
		Error  enrol.Reason `json:"error"`
		Detail string       `json:"detail"`
	}
	if err := json.Unmarshal([]byte(a.body), &told); err != nil || told.Detail == "" {
		return ""
	}
	return told.Error
}

// post sends a request; change may alter it before.
func (n *node) post(client *http.Client, path, contentType, body string, change func(*http.Request)) answer {
	n.t.Helper()
	method := http.MethodPost
	if contentType == "" {
		method = http.MethodGet
	}
	request := must(http.NewRequestWithContext(n.t.Context(), method, "https://"+n.address+path, strings.NewReader(body)))(n.t)
	request.Header.Set("Content-Type", contentType)
	if change != nil {
		change(request)
	}
	response := must(client.Do(request))(n.t)
	defer response.Body.Close() //nolint:errcheck // only read
	return answer{response.StatusCode, response.Header, string(must(io.ReadAll(response.Body))(n.t))}
}

func basic(name, code string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, code) }
}

// bearer is the token of the operator that a node knows as "T".
func bearer() func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer T") }
}

const (
	est     = "/.well-known/est/"
	pkcs10  = "application/pkcs10"
	asJSON  = "application/json"
	sensor7 = "/sign/sensor-7/pkcs10"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
}

// csr is a request in base64, as everybody sends it.
func csr(t *testing.T, name string, key crypto.Signer) string {
	t.Helper()
	return base64.StdEncoding.EncodeToString(must(pki.CreateRequest(name, key))(t))
}

func body(t *testing.T, members map[string]string) string {
	t.Helper()
	return string(must(json.Marshal(members))(t))
}
