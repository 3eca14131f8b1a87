package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/internal/boltfile/disktest"
	"pinseal/internal/freeport"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/boxtec"
	"pinseal/signing/replay"
)

const (
	patience = 10 * time.Second
	nodeName = "raspiflow"
	ledTopic = "ledStatus"
)

// startBroker runs Debian's mosquitto on a free port and returns its address.
func startBroker(t *testing.T, settings string) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nmax_queued_messages 0\nset_tcp_nodelay true\n%s\n", port, settings)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "/usr/sbin/mosquitto", "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting mosquitto (Debian package mosquitto): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; {
		conn, err := dialer(address)(t.Context())
		if err == nil {
			_ = conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("mosquitto does not listen: %v", err)
		}
	}
}

func dialer(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

// fakeLine records what it is driven to.
type fakeLine struct {
	mu    sync.Mutex
	on    bool
	calls []bool
	fault error
	set   chan bool     // gets every call, after it took effect
	gate  chan struct{} // if not nil, every call waits for it
}

func newLine() *fakeLine { return &fakeLine{set: make(chan bool, 10000)} }

func (l *fakeLine) Set(on bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gate != nil {
		<-l.gate
	}
	if l.fault != nil {
		return l.fault
	}
	l.on = on
	l.calls = append(l.calls, on)
	l.set <- on
	return nil
}

func (l *fakeLine) Drive(level uint8) error { return l.Set(level > 0) }

func (l *fakeLine) Level() uint8 {
	if l.On() {
		return actuator.MaxLevel
	}
	return 0
}

func (l *fakeLine) On() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.on
}

func (l *fakeLine) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = err
}

func (l *fakeLine) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}

// act is an actuator of a line.
func act(t *testing.T, name string, l *fakeLine, rules actuator.Rules) *actuator.Actuator {
	t.Helper()
	a, err := actuator.New(actuator.Config{Name: name, Driver: l, Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// fakeClock is the real clock, shifted, and trusted or not.
type fakeClock struct {
	shift     atomic.Int64
	untrusted atomic.Bool
	hold      atomic.Pointer[chan struct{}] // holds the next who asks, once: it waits twice for this
}

func (c *fakeClock) Now() time.Time { return time.Now().Add(time.Duration(c.shift.Load())) }

func (c *fakeClock) Trusted() bool {
	if hold := c.hold.Swap(nil); hold != nil {
		<-*hold
		<-*hold
	}
	return !c.untrusted.Load()
}

// counter is a Sequence without a file.
type counter struct{ last atomic.Uint64 }

func (c *counter) Reserve(_ time.Time, n uint64) (uint64, error) {
	return c.last.Add(n) - n + 1, nil
}

// cast is everybody who signs, with the numbers they have used.
type cast struct {
	keys map[string]*signing.PrivateKey
	seq  atomic.Uint64
}

// operator may do everything, guest may switch the LED on only, sensor may publish telemetry, stranger is known and
// may do nothing, rogue is not known, veteran has a legacy key.
func newCast(t *testing.T) *cast {
	t.Helper()
	c := &cast{keys: make(map[string]*signing.PrivateKey)}
	for _, name := range []string{"node", "operator", "guest", "sensor", "stranger", "rogue"} {
		c.keys[name] = newKey(t, signing.ES256)
	}
	c.keys["veteran"] = newKey(t, signing.ES256K)
	c.seq.Store(uint64(time.Now().UnixMicro()))
	return c
}

func newKey(t *testing.T, alg signing.Algorithm) *signing.PrivateKey {
	t.Helper()
	k, err := signing.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *cast) policy(t *testing.T, names ...string) *agent.Policy {
	t.Helper()
	if len(names) == 0 {
		names = []string{"operator", "guest", "sensor", "stranger", "veteran"}
	}
	signers := make([]signing.Signer, 0, len(names))
	for _, name := range names {
		signers = append(signers, signing.Signer{Name: name, Key: c.keys[name].Public()})
	}
	keyring, err := signing.NewKeyring(signers...)
	if err != nil {
		t.Fatal(err)
	}
	all := []actuator.Action{actuator.On, actuator.Off, actuator.Toggle}
	return &agent.Policy{
		Keyring: keyring,
		Permits: []agent.Permit{
			{Signer: "operator", Output: "led", Actions: all},
			{Signer: "operator", Output: "fan", Actions: all},
			{Signer: "guest", Output: "led", Actions: []actuator.Action{actuator.On}},
			{Signer: "veteran", Output: "fan", Actions: all},
		},
		Telemetry: []agent.TelemetryRule{
			{Signer: "sensor", Filter: "telemetry/sensor-1/#", MaxAge: time.Minute},
			{Signer: "operator", Filter: "telemetry/+/load"},
		},
		Legacy: []agent.LegacyKey{{
			Signer: "veteran", Topic: "fanStatus", Hash: boxtec.SHA1, Key: c.keys["veteran"].Public(),
		}},
		Rate: 10000, Burst: 10000,
	}
}

// sealed seals a message now, with the next number; change may alter the claims.
func (c *cast) sealed(t *testing.T, signer, topic, msg string, change ...func(*signing.Claims)) []byte {
	t.Helper()
	claims := signing.Claims{Topic: topic, IssuedAt: time.Now(), Sequence: c.seq.Add(1), Message: []byte(msg)}
	for _, f := range change {
		f(&claims)
	}
	raw, err := signing.Seal(c.keys[signer], claims)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func aged(age time.Duration) func(*signing.Claims) {
	return func(c *signing.Claims) { c.IssuedAt = c.IssuedAt.Add(-age) }
}

func nonce(s string) func(*signing.Claims)    { return func(c *signing.Claims) { c.Nonce = s } }
func numbered(n uint64) func(*signing.Claims) { return func(c *signing.Claims) { c.Sequence = n } }

// node is an agent at work on a real broker, and an observer of what it publishes.
type node struct {
	*cast
	t        *testing.T
	agent    *agent.Agent
	led, fan *fakeLine
	clock    *fakeClock
	store    *replay.Store
	address  string
	observer *mqtt.Client
	seen     chan mqtt.Message
	stop     func() // ends the agent and waits for it
}

// setup is what startNode takes over from an earlier node, or is told to do otherwise.
type setup struct {
	cast    *cast
	address string
	replay  string // path
	since   time.Time
	disk    *disktest.Disk
	change  func(*agent.Config)
}

func startNode(t *testing.T, s setup) *node {
	t.Helper()
	n := &node{
		t: t, cast: s.cast, led: newLine(), fan: newLine(), clock: &fakeClock{}, address: s.address,
		seen: make(chan mqtt.Message, 10000),
	}
	if n.cast == nil {
		n.cast = newCast(t)
	}
	if n.address == "" {
		n.address = startBroker(t, "allow_anonymous true")
	}
	if s.replay == "" {
		s.replay = filepath.Join(t.TempDir(), "state.db")
	}
	var err error
	options := replay.Options{Since: s.since}
	if s.disk != nil {
		options.OpenFile = s.disk.Open
	}
	if n.store, err = replay.Open(s.replay, options); err != nil {
		t.Fatal(err)
	}
	n.observe()
	cfg := n.config()
	if s.change != nil {
		s.change(&cfg)
	}
	if n.agent, err = agent.New(cfg); err != nil {
		t.Fatal(err)
	}
	n.run()
	return n
}

func (n *node) config() agent.Config {
	sequence := &counter{}
	sequence.last.Store(uint64(time.Now().UnixMicro()))
	return agent.Config{
		Node: nodeName, Key: n.keys["node"], Sequence: sequence, Dial: dialer(n.address),
		Outputs: []agent.Output{
			{Name: "led", Topic: ledTopic, PlainTopic: "plain/led", Actuator: act(n.t, "led", n.led, actuator.Rules{})},
			{Name: "fan", Topic: "fanStatus", Actuator: act(n.t, "fan", n.fan, actuator.Rules{})},
		},
		Policy: n.policy(n.t), Replay: n.store, Clock: n.clock,
		Log: slog.New(slog.NewTextHandler(testWriter{n.t}, nil)),
	}
}

// run starts the agent and waits until it is ready.
func (n *node) run() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.agent.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				n.t.Errorf("the agent ended with %v", err)
			}
			if err := n.store.Close(); err != nil {
				n.t.Log(err)
			}
		})
	}
	n.t.Cleanup(n.stop)
	select {
	case <-n.agent.Ready():
	case <-time.After(patience):
		n.t.Fatal("the agent is not ready")
	}
}

// testWriter shows the agent's log with a failed test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (n *node) observe() {
	n.t.Helper()
	c, err := mqtt.Connect(n.t.Context(), mqtt.Config{
		Dial: dialer(n.address), CleanSession: true,
		Subscriptions: []mqtt.Subscription{{Filter: "pinseal/+/verdict/+", QoS: 1}, {Filter: "verified/#", QoS: 1}},
		OnMessage:     func(m mqtt.Message, ack func()) { n.seen <- m; ack() },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = c.Close() })
	n.observer = c
}

func (n *node) publish(topic string, payload []byte) {
	n.t.Helper()
	n.send(mqtt.Message{Topic: topic, Payload: payload, QoS: 1})
}

func (n *node) send(m mqtt.Message) {
	n.t.Helper()
	if err := n.observer.Publish(n.t.Context(), m); err != nil {
		n.t.Fatal(err)
	}
}

// next waits for the next thing the node publishes.
func (n *node) next() mqtt.Message {
	n.t.Helper()
	select {
	case m := <-n.seen:
		return m
	case <-time.After(patience):
		n.t.Fatal("the node publishes nothing")
		return mqtt.Message{}
	}
}

// verdict waits for the next thing the node publishes, which must be a verdict to signer, and verifies it.
func (n *node) verdict(signer string) agent.Verdict {
	n.t.Helper()
	m := n.next()
	if m.Topic != agent.VerdictTopic(nodeName, signer) || m.Retained {
		n.t.Fatalf("got %s (retained: %v), want a verdict to %s", m.Topic, m.Retained, signer)
	}
	v, err := agent.ParseVerdict(n.open(m).JSON())
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

func (n *node) open(m mqtt.Message) *signing.Message {
	n.t.Helper()
	keyring, err := signing.NewKeyring(signing.Signer{Name: nodeName, Key: n.keys["node"].Public()})
	if err != nil {
		n.t.Fatal(err)
	}
	msg, _, err := signing.Open(m.Payload, m.Topic, keyring)
	if err != nil {
		n.t.Fatalf("the node published on %s: %v", m.Topic, err)
	}
	return msg
}

// command publishes and returns the verdict's reason.
func (n *node) command(signer, topic string, raw []byte) signing.Reason {
	n.t.Helper()
	n.publish(topic, raw)
	return n.verdict(signer).Reason
}

// fence waits until the node has handled everything sent to the LED, and checks that it has not answered any of it.
func (n *node) fence() {
	n.t.Helper()
	on := n.led.On()
	word := `"off"`
	if on {
		word = `"on"`
	}
	if got := n.command("operator", ledTopic, n.sealed(n.t, "operator", ledTopic, word)); got != signing.ReasonApplied {
		n.t.Fatalf("a good command was answered with %s", got)
	}
}

// retained returns the retained message of a topic, waiting for one with the payload if that is not empty.
func (n *node) retained(topic, payload string) mqtt.Message {
	n.t.Helper()
	got := make(chan mqtt.Message, 100)
	c, err := mqtt.Connect(n.t.Context(), mqtt.Config{
		Dial: dialer(n.address), CleanSession: true, Subscriptions: []mqtt.Subscription{{Filter: topic, QoS: 1}},
		OnMessage: func(m mqtt.Message, ack func()) { got <- m; ack() },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for {
		select {
		case m := <-got:
			if payload == "" || string(m.Payload) == payload {
				return m
			}
		case <-time.After(patience):
			n.t.Fatalf("nothing like %q on %s", payload, topic)
		}
	}
}

func (n *node) challenge() string {
	n.t.Helper()
	challenge, err := agent.ParseChallenge(n.open(n.retained(agent.ChallengeTopic(nodeName), "")).JSON())
	if err != nil {
		n.t.Fatal(err)
	}
	return challenge
}

// delta says which reasons were counted while f ran.
func (n *node) delta(f func()) map[signing.Reason]uint64 {
	n.t.Helper()
	before := n.agent.Counters()
	f()
	after := n.agent.Counters()
	maps.DeleteFunc(after, func(r signing.Reason, count uint64) bool { return count == before[r] })
	for r := range after {
		after[r] -= before[r]
	}
	return after
}

var errFault = errors.New("injected fault")
