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

	tickets tls.ClientSessionCache

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
func start(tb testing.TB, change func(*broker.Config)) *site {
	tb.Helper()
	authority := must(pki.CreateAuthority("test authority", time.Now()))(tb)
	s := &site{authority: authority, log: &logBuffer{}, tickets: tls.NewLRUClientSessionCache(0), clients: map[string]*tls.Config{}}
	listener := must((&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0"))(tb)
	s.addr = listener.Addr().String()
	cfg := broker.Config{
		Node:      node,
		Listeners: []broker.Listener{{Name: "test", Net: listener, TLS: s.serverTLS(tb)}},
		Policy:    everything(),
		Log:       slog.New(slog.NewTextHandler(s.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	s.Broker = must(broker.New(cfg))(tb)
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
	tb.Cleanup(func() {
		if err := s.stop(); err != nil {
			tb.Errorf("stopping the broker: %v", err)
		}
		if tb.Failed() {
			tb.Logf("broker's log:\n%s", s.log)
		}
	})
	<-s.Ready()
	return s
}

// must turns a call with two results into one: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func (s *site) serverTLS(tb testing.TB) *tls.Config {
	tb.Helper()
	dir := tb.TempDir()
	key := must(pki.GenerateKey())(tb)
	cert := must(s.authority.IssueServer(node, []string{"localhost", "127.0.0.1"}, key.Public(), time.Now()))(tb)
	files := s.save(tb, dir, cert, must(pki.MarshalKey(key))(tb))
	return must(pki.LoadServer(files, tls.VersionTLS13, time.Now))(tb).Config()
}

func (s *site) save(tb testing.TB, dir string, cert, key []byte) pki.Files {
	tb.Helper()
	files := pki.Files{
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}
	for name, data := range map[string][]byte{
		files.Certificate: cert, files.Key: key, files.CA: s.authority.CertificatePEM(),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return files
}

// files issues a client certificate and writes it down, for other programs.
func (s *site) files(tb testing.TB, identity string, issued time.Time) pki.Files {
	tb.Helper()
	key := must(pki.GenerateKey())(tb)
	cert := must(s.authority.IssueClient(identity, key.Public(), issued))(tb)
	return s.save(tb, tb.TempDir(), cert, must(pki.MarshalKey(key))(tb))
}

// clientTLS returns the configuration of a client of that name; one certificate is made for each name.
func (s *site) clientTLS(tb testing.TB, identity string) *tls.Config {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[identity] == nil {
		f := s.files(tb, identity, time.Now())
		cert := must(tls.LoadX509KeyPair(f.Certificate, f.Key))(tb)
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
	lost     chan struct{} // closed when the broker ends the connection
}

// tryConnect connects with paho.
func (s *site) tryConnect(tb testing.TB, identity, clientID string, change func(*paho.ClientOptions)) (*client, error) {
	tb.Helper()
	c := &client{messages: make(chan message, 10000), lost: make(chan struct{})}
	o := paho.NewClientOptions().AddBroker("ssl://" + s.addr).SetTLSConfig(s.clientTLS(tb, identity)).
		SetClientID(clientID).SetAutoReconnect(false).SetConnectTimeout(timeout).SetProtocolVersion(4).
		SetConnectionLostHandler(func(paho.Client, error) { close(c.lost) }).
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
	tb.Cleanup(func() { c.Disconnect(0) })
	return c, token.Error()
}

func (s *site) connect(tb testing.TB, identity, clientID string) *client {
	tb.Helper()
	return must(s.tryConnect(tb, identity, clientID, nil))(tb)
}

func await(tb testing.TB, token paho.Token) {
	tb.Helper()
	if !token.WaitTimeout(timeout) {
		tb.Fatalf("no answer within %v", timeout)
	}
	if err := token.Error(); err != nil {
		tb.Fatal(err)
	}
}

// subscribe returns the code of the SUBACK.
func (c *client) subscribe(tb testing.TB, filter string, qos byte) byte {
	tb.Helper()
	token := c.Subscribe(filter, qos, nil)
	if !token.WaitTimeout(timeout) {
		tb.Fatalf("no answer to SUBSCRIBE within %v", timeout)
	}
	result, ok := token.(*paho.SubscribeToken)
	if !ok {
		tb.Fatalf("paho returned a %T", token)
	}
	for _, code := range result.Result() { // its keys lack $share/group
		return code
	}
	tb.Fatal("SUBACK without codes")
	return 0
}

func (c *client) publish(tb testing.TB, topic, payload string, qos byte) {
	tb.Helper()
	await(tb, c.Publish(topic, qos, false, payload))
}

func (c *client) receive(tb testing.TB) message {
	tb.Helper()
	select {
	case m := <-c.messages:
		return m
	case <-time.After(timeout):
		tb.Fatalf("no message within %v", timeout)
		return message{}
	}
}

// want receives one message and compares it.
func (c *client) want(tb testing.TB, topic, payload string) {
	tb.Helper()
	if m := c.receive(tb); m.topic != topic || m.payload != payload {
		tb.Errorf("received %q on %q, want %q on %q", m.payload, m.topic, payload, topic)
	}
}

// raw is a TLS connection that speaks bytes.
type raw struct {
	*tls.Conn
}

func (s *site) dialRaw(tb testing.TB, identity string) raw {
	tb.Helper()
	d := &tls.Dialer{Config: s.clientTLS(tb, identity)}
	c, ok := must(d.DialContext(tb.Context(), "tcp", s.addr))(tb).(*tls.Conn)
	if !ok {
		tb.Fatal("not a TLS connection")
	}
	tb.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		tb.Fatal(err)
	}
	return raw{c}
}

func (r raw) send(tb testing.TB, parts ...[]byte) {
	tb.Helper()
	if _, err := r.Write(slices.Concat(parts...)); err != nil {
		tb.Fatalf("sending: %v", err)
	}
}

// read reads one packet; its type is in the first byte.
func (r raw) read(tb testing.TB) []byte {
	tb.Helper()
	packet, err := readPacket(r)
	if err != nil {
		tb.Fatalf("reading a packet: %v", err)
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
func (r raw) wantClosed(tb testing.TB) {
	tb.Helper()
	if _, err := io.Copy(io.Discard, r); err != nil && os.IsTimeout(err) {
		tb.Error("the connection stayed open")
	}
}

// eventually waits for a condition that has no event to wait for.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("%s: not within %v", what, timeout)
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
