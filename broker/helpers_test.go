package broker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pinseal/broker"
	"pinseal/pki"

	paho "github.com/eclipse/paho.mqtt.golang"
)

const (
	node    = "raspiflow"
	timeout = 10 * time.Second // for what should happen at once
)

// site is a running broker with an authority.
type site struct {
	*broker.Broker
	authority *pki.Authority
	addr      string
	log       *logBuffer
	stop      func() error // ends Run and returns its error

	mu      sync.Mutex
	clients map[string]*tls.Config
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// everything lets everyone do everything with what does not begin with $.
func everything() *broker.Policy {
	return &broker.Policy{Rules: []broker.Rule{{Identity: "*", Publish: []string{"#"}, Subscribe: []string{"#"}}}}
}

// start runs a broker on a free port. change may be nil.
func start(t testing.TB, change func(*broker.Config)) *site {
	t.Helper()
	authority := must(pki.CreateAuthority("test authority", time.Now()))(t)
	s := &site{authority: authority, log: &logBuffer{}, clients: map[string]*tls.Config{}}
	listener := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	s.addr = listener.Addr().String()
	cfg := broker.Config{
		Node:      node,
		Listeners: []broker.Listener{{Name: "test", Net: listener, TLS: s.serverTLS(t)}},
		Policy:    everything(),
		Log:       slog.New(slog.NewTextHandler(s.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	s.Broker = must(broker.New(cfg))(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(timeout):
			return fmt.Errorf("Run did not return within %v", timeout)
		}
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stopping the broker: %v", err)
		}
		if t.Failed() {
			t.Logf("broker's log:\n%s", s.log)
		}
	})
	<-s.Ready()
	return s
}

// must turns a call with two results into one: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (s *site) serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	dir := t.TempDir()
	key := must(pki.GenerateKey())(t)
	cert := must(s.authority.IssueServer(node, []string{"localhost", "127.0.0.1"}, key.Public(), time.Now()))(t)
	files := s.save(t, dir, cert, must(pki.MarshalKey(key))(t))
	return must(pki.LoadServer(files, tls.VersionTLS13, time.Now))(t).Config()
}

func (s *site) save(t testing.TB, dir string, cert, key []byte) pki.Files {
	t.Helper()
	files := pki.Files{
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}
	for name, data := range map[string][]byte{
		files.Certificate: cert, files.Key: key, files.CA: s.authority.CertificatePEM(),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// files issues a client certificate and writes it down, for other programs.
func (s *site) files(t testing.TB, identity string, issued time.Time) pki.Files {
	t.Helper()
	key := must(pki.GenerateKey())(t)
	cert := must(s.authority.IssueClient(identity, key.Public(), issued))(t)
	return s.save(t, t.TempDir(), cert, must(pki.MarshalKey(key))(t))
}

// clientTLS returns the configuration of a client of that name; one certificate is made for each name.
func (s *site) clientTLS(t testing.TB, identity string) *tls.Config {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[identity] == nil {
		f := s.files(t, identity, time.Now())
		cert := must(tls.LoadX509KeyPair(f.Certificate, f.Key))(t)
		roots := x509.NewCertPool()
		roots.AddCert(s.authority.Certificate())
		s.clients[identity] = &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS13}
	}
	return s.clients[identity]
}

// message is what a subscriber gets.
type message struct {
	topic, payload string
	retained       bool
}

// client is a paho client that collects what it receives.
type client struct {
	paho.Client
	messages chan message
	lost     chan error
}

// tryConnect connects with paho.
func (s *site) tryConnect(t testing.TB, identity, clientID string, change func(*paho.ClientOptions)) (*client, error) {
	t.Helper()
	c := &client{messages: make(chan message, 10000), lost: make(chan error, 1)}
	o := paho.NewClientOptions().AddBroker("ssl://" + s.addr).SetTLSConfig(s.clientTLS(t, identity)).
		SetClientID(clientID).SetAutoReconnect(false).SetConnectTimeout(timeout).SetProtocolVersion(4).
		SetConnectionLostHandler(func(_ paho.Client, err error) { c.lost <- err }).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
			c.messages <- message{m.Topic(), string(m.Payload()), m.Retained()}
		})
	if change != nil {
		change(o)
	}
	c.Client = paho.NewClient(o)
	token := c.Connect()
	if !token.WaitTimeout(timeout) {
		return nil, fmt.Errorf("no answer to CONNECT within %v", timeout)
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c, token.Error()
}

func (s *site) connect(t testing.TB, identity, clientID string) *client {
	t.Helper()
	return must(s.tryConnect(t, identity, clientID, nil))(t)
}

func await(t testing.TB, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(timeout) {
		t.Fatalf("no answer within %v", timeout)
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

// subscribe returns the code of the SUBACK.
func (c *client) subscribe(t testing.TB, filter string, qos byte) byte {
	t.Helper()
	token := c.Subscribe(filter, qos, nil)
	if !token.WaitTimeout(timeout) {
		t.Fatalf("no answer to SUBSCRIBE within %v", timeout)
	}
	for _, code := range token.(*paho.SubscribeToken).Result() { // paho's keys lack $share/group
		return code
	}
	t.Fatal("SUBACK without codes")
	return 0
}

func (c *client) publish(t testing.TB, topic, payload string, qos byte) {
	t.Helper()
	await(t, c.Publish(topic, qos, false, payload))
}

func (c *client) receive(t testing.TB) message {
	t.Helper()
	select {
	case m := <-c.messages:
		return m
	case <-time.After(timeout):
		t.Fatalf("no message within %v", timeout)
		return message{}
	}
}

// want receives one message and compares it.
func (c *client) want(t testing.TB, topic, payload string) {
	t.Helper()
	if m := c.receive(t); m.topic != topic || m.payload != payload {
		t.Errorf("received %q on %q, want %q on %q", m.payload, m.topic, payload, topic)
	}
}

// raw is a TLS connection that speaks bytes.
type raw struct {
	*tls.Conn
}

func (s *site) dialRaw(t testing.TB, identity string) raw {
	t.Helper()
	d := &tls.Dialer{Config: s.clientTLS(t, identity)}
	c := must(d.DialContext(t.Context(), "tcp", s.addr))(t)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	return raw{c.(*tls.Conn)}
}

func (r raw) send(t testing.TB, parts ...[]byte) {
	t.Helper()
	if _, err := r.Write(slices.Concat(parts...)); err != nil {
		t.Fatalf("sending: %v", err)
	}
}

// read reads one packet; its type is in the first byte.
func (r raw) read(t testing.TB) []byte {
	t.Helper()
	packet, err := readPacket(r)
	if err != nil {
		t.Fatalf("reading a packet: %v", err)
	}
	return packet
}

func readPacket(r io.Reader) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	size, shift := int(head[1]&0x7f), 7
	for head[len(head)-1]&0x80 != 0 {
		b := make([]byte, 1)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		size |= int(b[0]&0x7f) << shift
		shift += 7
		head = append(head, b[0])
	}
	body := make([]byte, size)
	_, err := io.ReadFull(r, body)
	return append(head, body...), err
}

// wantClosed reads until the connection ends.
func (r raw) wantClosed(t testing.TB) {
	t.Helper()
	if _, err := io.Copy(io.Discard, r); err != nil && os.IsTimeout(err) {
		t.Error("the connection stayed open")
	}
}

// eventually waits for a condition that has no event to wait for.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, timeout)
		}
	}
}

// Packets.

func str(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

func packet(first byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	head := []byte{first}
	for n := len(body); ; {
		b := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			head = append(head, b|0x80)
			continue
		}
		return slices.Concat(head, []byte{b}, body)
	}
}

// connect311 and connect5 ask for a clean session and a keep alive of a minute.
func connect311(id string) []byte { return packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, str(id)) }

func connect5(id string, properties ...byte) []byte {
	return packet(0x10, str("MQTT"), []byte{5, 2, 0, 60, byte(len(properties))}, properties, str(id))
}
