package agent_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/boxtec"
)

func TestCommands(t *testing.T) {
	n := startNode(t, setup{})
	for _, test := range []struct {
		msg  string
		from bool
		want bool
	}{
		{`"on"`, false, true},
		{`"ON"`, false, true},
		{`"On"`, true, true},
		{`"1"`, false, true},
		{`1`, false, true},
		{`true`, false, true},
		{`{"state":"ON"}`, false, true},
		{`{ "state" : "1" }`, false, true},
		{`"off"`, true, false},
		{`"0"`, true, false},
		{`0`, true, false},
		{`false`, true, false},
		{`{"state":"Off"}`, true, false},
		{`"toggle"`, true, false},
		{`"Toggle"`, false, true},
		{`{"state":"toggle"}`, false, true},
		{`"\u006fn"`, false, true},
	} {
		for _, topic := range []string{ledTopic, agent.SetTopic(nodeName, "led")} {
			t.Run(fmt.Sprintf("%s from %v on %s", test.msg, test.from, topic), func(t *testing.T) {
				n.t = t
				n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, fmt.Sprint(test.from)))
				n.publish(topic, n.sealed(t, "operator", topic, test.msg))
				v := n.verdict("operator")
				state := agent.Off
				if test.want {
					state = agent.On
				}
				if v.Reason != signing.ReasonApplied || v.Topic != topic || v.State != state || v.Sequence != n.seq.Load() {
					t.Errorf("got %+v", v)
				}
				if n.led.On() != test.want {
					t.Errorf("the line is %v", n.led.On())
				}
			})
		}
	}
	n.t = t
	if got := n.command("guest", ledTopic, n.sealed(t, "guest", ledTopic, `"on"`)); got != signing.ReasonApplied {
		t.Errorf("the guest's command was answered with %s", got)
	}
	if n.fan.count() != 0 {
		t.Error("the fan was driven")
	}
}

// One sequence for an output, whichever of its topics is used.
func TestOneSequenceForBothTopics(t *testing.T) {
	n := startNode(t, setup{})
	held := n.sealed(t, "operator", ledTopic, `"on"`)
	full := agent.SetTopic(nodeName, "led")
	if got := n.command("operator", full, n.sealed(t, "operator", full, `"off"`)); got != signing.ReasonApplied {
		t.Fatalf("got %s", got)
	}
	if got := n.command("operator", ledTopic, held); got != signing.ReasonReplay {
		t.Errorf("a command held back was answered with %s", got)
	}
	// And one for each output: the fan has not seen a number yet.
	late := n.sealed(t, "operator", "fanStatus", `"on"`, numbered(1))
	if got := n.command("operator", "fanStatus", late); got != signing.ReasonApplied {
		t.Errorf("on another output: %s", got)
	}
}

func TestDuplicateIsNotActedOn(t *testing.T) {
	n := startNode(t, setup{})
	raw := n.sealed(t, "operator", ledTopic, `"toggle"`)
	n.command("operator", ledTopic, raw)
	for _, again := range [][]byte{raw, raw, twin(t, raw)} {
		if got := n.command("operator", ledTopic, again); got != signing.ReasonDuplicate {
			t.Errorf("got %s", got)
		}
	}
	if n.led.count() != 1 {
		t.Errorf("acted %d times", n.led.count())
	}
}

// twin turns the signature (r, s) into the equally valid (r, n-s).
func twin(t *testing.T, raw []byte) []byte {
	t.Helper()
	dot := bytes.LastIndexByte(raw, '.')
	sig, err := base64.RawURLEncoding.DecodeString(string(raw[dot+1:]))
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
	return base64.RawURLEncoding.AppendEncode(bytes.Clone(raw[:dot+1]), sig)
}

func TestNothingIsAcceptedTwiceOverARestart(t *testing.T) {
	s := setup{cast: newCast(t), address: startBroker(t, "allow_anonymous true"), replay: filepath.Join(t.TempDir(), "state.db")}
	first := startNode(t, s)
	early := first.sealed(t, "operator", ledTopic, `"on"`)
	raw := first.sealed(t, "operator", ledTopic, `"on"`)
	reading := first.sealed(t, "sensor", "telemetry/sensor-1/t", `1`)
	first.command("operator", ledTopic, raw)
	first.publish("telemetry/sensor-1/t", reading)
	first.next()
	first.stop()

	second := startNode(t, s)
	if got := second.command("operator", ledTopic, raw); got != signing.ReasonDuplicate {
		t.Errorf("the same again: %s", got)
	}
	if got := second.command("operator", ledTopic, early); got != signing.ReasonReplay {
		t.Errorf("an earlier one: %s", got)
	}
	if got := second.command("sensor", "telemetry/sensor-1/t", reading); got != signing.ReasonDuplicate {
		t.Errorf("the same telemetry: %s", got)
	}
	if second.led.count() != 0 {
		t.Error("acted")
	}
}

// What is sent while the node is away is delivered when it is back, if it has a session.
func TestSessionOutlivesTheNode(t *testing.T) {
	s := setup{cast: newCast(t), address: startBroker(t, "allow_anonymous true")}
	s.change = func(cfg *agent.Config) { cfg.ClientID = nodeName }
	first := startNode(t, s)
	first.stop()
	first.publish(ledTopic, first.sealed(t, "operator", ledTopic, `"on"`))
	second := startNode(t, s)
	if got := second.verdict("operator").Reason; got != signing.ReasonApplied || second.led.count() != 1 {
		t.Errorf("got %s, acted %d times", got, second.led.count())
	}
}

// wire is a Dial whose connections can be cut, or made to swallow nothing more.
type wire struct {
	dial  func(context.Context) (net.Conn, error)
	conn  atomic.Pointer[net.Conn]
	stuck atomic.Bool
}

type wireConn struct {
	net.Conn
	wire   *wire
	closed chan struct{}
}

func (w *wire) open(ctx context.Context) (net.Conn, error) {
	conn, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	w.conn.Store(&conn)
	return &wireConn{conn, w, make(chan struct{})}, nil
}

func (w *wire) cut() { _ = (*w.conn.Load()).Close() }

func (c *wireConn) Write(p []byte) (int, error) {
	if c.wire.stuck.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *wireConn) Close() error {
	defer func() { _ = recover() }() // closed twice
	defer close(c.closed)
	return c.Conn.Close()
}

// A command whose acknowledgement is lost is delivered again by the broker, and not acted on again.
func TestRedelivery(t *testing.T) {
	s := setup{address: startBroker(t, "allow_anonymous true")}
	w := &wire{dial: dialer(s.address)}
	s.change = func(cfg *agent.Config) { cfg.ClientID, cfg.Dial = nodeName, w.open }
	n := startNode(t, s)
	w.stuck.Store(true) // from here on no acknowledgement gets through
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"toggle"`))
	<-n.led.set
	w.cut()
	w.stuck.Store(false)
	for got := signing.ReasonApplied; got != signing.ReasonDuplicate; {
		if got = n.verdict("operator").Reason; got != signing.ReasonApplied && got != signing.ReasonDuplicate {
			t.Fatalf("got %s", got)
		}
	}
	if n.led.count() != 1 {
		t.Errorf("acted %d times", n.led.count())
	}
}

func TestBrokerThatDoesNotReadHoldsUpNothing(t *testing.T) {
	s := setup{address: startBroker(t, "allow_anonymous true")}
	w := &wire{dial: dialer(s.address)}
	s.change = func(cfg *agent.Config) { cfg.Dial = w.open }
	n := startNode(t, s)
	w.stuck.Store(true)
	for range 10 { // fewer than mosquitto sends without acknowledgement
		n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"toggle"`))
		select {
		case <-n.led.set:
		case <-time.After(patience):
			t.Fatal("not acted on")
		}
	}
	w.cut()
	w.stuck.Store(false)
	for range 10 { // and nothing that was to be said is lost
		if got := n.verdict("operator").Reason; got != signing.ReasonApplied {
			t.Errorf("got %s", got)
		}
	}
}

func TestStopsPromptlyWhenTheBrokerDoesNotRead(t *testing.T) {
	s := setup{address: startBroker(t, "allow_anonymous true")}
	w := &wire{dial: dialer(s.address)}
	s.change = func(cfg *agent.Config) { cfg.Dial = w.open }
	n := startNode(t, s)
	w.stuck.Store(true)
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	<-n.led.set
	start := time.Now()
	n.stop()
	if took := time.Since(start); took > patience {
		t.Errorf("took %v", took)
	}
}

// Commands that wait together share commits, and are acted on in order.
func TestConcurrentCommandsShareCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	n := startNode(t, setup{replay: path})
	n.fence()
	before := commits(t, path)
	const commands = 200
	var want []bool
	for i := range commands {
		on := i%3 == 0
		want = append(want, on)
		raw := n.sealed(t, "operator", ledTopic, fmt.Sprint(on))
		n.observer.PublishAsync(mqtt.Message{Topic: ledTopic, Payload: raw, QoS: 1}, nil)
	}
	for range commands {
		if got := n.verdict("operator").Reason; got != signing.ReasonApplied {
			t.Fatalf("got %s", got)
		}
	}
	<-n.led.set // the fence
	for i := range commands {
		if on := <-n.led.set; on != want[i] {
			t.Fatalf("command %d acted as %v", i, on)
		}
	}
	if used := commits(t, path) - before; used > commands/2 {
		t.Errorf("%d commits for %d commands", used, commands)
	}
}

// commits reads the number of the last transaction of a bbolt database from its two meta pages.
func commits(t *testing.T, path string) uint64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	txid := func(page int) uint64 { return binary.LittleEndian.Uint64(raw[page*4096+16+48:]) }
	return max(txid(0), txid(1))
}

func TestTogglesAddUp(t *testing.T) {
	n := startNode(t, setup{})
	const toggles = 101
	for range toggles {
		raw := n.sealed(t, "operator", ledTopic, `"toggle"`)
		n.observer.PublishAsync(mqtt.Message{Topic: ledTopic, Payload: raw, QoS: 1}, nil)
	}
	for range toggles {
		if got := n.verdict("operator").Reason; got != signing.ReasonApplied {
			t.Fatalf("got %s", got)
		}
	}
	if !n.led.On() {
		t.Error("an odd number of toggles left it off")
	}
	n.retained(agent.StateTopic(nodeName, "led"), agent.On)
}

func TestRate(t *testing.T) {
	const burst = 3
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Policy.Rate, cfg.Policy.Burst = 1e-6, burst
	}})
	const commands = 20
	for range commands {
		n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	}
	// The guest has its own allowance, and comes last.
	n.publish(ledTopic, n.sealed(t, "guest", ledTopic, `"on"`))
	got := make(map[signing.Reason]int)
	for range 2 * burst {
		got[n.verdict("operator").Reason]++
	}
	if got[signing.ReasonApplied] != burst || got[signing.ReasonRateLimited] != burst {
		t.Errorf("answered %v", got)
	}
	if v := n.verdict("guest"); v.Reason != signing.ReasonApplied {
		t.Errorf("the guest got %s", v.Reason)
	}
	if c := n.agent.Counters(); c[signing.ReasonRateLimited] != commands-burst || n.led.count() != burst+1 {
		t.Errorf("counted %v, acted %d times", c, n.led.count())
	}
	if s := n.agent.Stats(); s.Unanswered != commands-2*burst {
		t.Errorf("unanswered: %d", s.Unanswered)
	}
}

// Who captured a message can make the node refuse it as often as the broker lets him; that must cost its signer nothing.
func TestReplayFloodLeavesTheOwnerItsRate(t *testing.T) {
	const burst = 2
	n := startNode(t, setup{change: func(cfg *agent.Config) {
		cfg.Policy.Rate, cfg.Policy.Burst = 1e-6, burst
	}})
	captured := n.sealed(t, "operator", ledTopic, `"on"`)
	n.command("operator", ledTopic, captured)
	for range burst - 1 {
		n.command("operator", ledTopic, n.sealed(t, "operator", ledTopic, `"bright"`)) // costs nothing either
	}
	for range 10 * burst {
		n.publish(ledTopic, captured)
	}
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"off"`))
	if got := n.verdict("operator").Reason; got != signing.ReasonDuplicate { // the last refusal that is answered
		t.Errorf("got %s", got)
	}
	if got := n.verdict("operator").Reason; got != signing.ReasonApplied {
		t.Errorf("the owner's command was answered with %s", got)
	}
}

func TestQueueOfATopicIsBounded(t *testing.T) {
	n := startNode(t, setup{change: func(cfg *agent.Config) { cfg.QueueLength = 4 }})
	n.led.gate = make(chan struct{})
	const commands = 10
	for range commands {
		n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	}
	// Another topic has its own room.
	if got := n.command("operator", "fanStatus", n.sealed(t, "operator", "fanStatus", `"on"`)); got != signing.ReasonApplied {
		t.Errorf("got %s", got)
	}
	if c := n.agent.Counters(); c[signing.ReasonRateLimited] != commands-4 {
		t.Errorf("counted %v", c)
	}
	close(n.led.gate)
	for range 4 {
		if got := n.verdict("operator").Reason; got != signing.ReasonApplied {
			t.Errorf("got %s", got)
		}
	}
	for range 5 { // there is room again
		n.fence()
	}
}

func TestQueueOfATopicIsBoundedInBytes(t *testing.T) {
	n := startNode(t, setup{})
	hold := make(chan struct{})
	n.clock.hold.Store(&hold)
	n.publish(ledTopic, n.sealed(t, "operator", ledTopic, `"on"`))
	hold <- struct{}{} // what comes now waits behind this one
	large := n.sealed(t, "operator", ledTopic, `"`+strings.Repeat("x", 45000)+`"`)
	const sent, fit = 100, 4 << 20 / 60000
	for range sent {
		n.send(mqtt.Message{Topic: ledTopic, Payload: large})
	}
	n.command("operator", "fanStatus", n.sealed(t, "operator", "fanStatus", `"on"`))
	if c := n.agent.Counters()[signing.ReasonRateLimited]; c < sent-fit-1 || c > sent-fit+3 {
		t.Errorf("%d of %d messages of %d bytes did not fit", c, sent, len(large))
	}
	hold <- struct{}{}
}

func TestPlainRate(t *testing.T) {
	n := startNode(t, setup{})
	const sent = 500
	for range sent {
		n.observer.PublishAsync(mqtt.Message{Topic: "plain/led", Payload: []byte("1")}, nil)
	}
	n.fence()
	c := n.agent.Counters()
	if c[signing.ReasonRateLimited] == 0 || c[signing.ReasonRateLimited]+c[signing.ReasonApplied] != sent+1 {
		t.Errorf("counted %v", c)
	}
}

func TestPlainTopic(t *testing.T) {
	n := startNode(t, setup{})
	for _, test := range []struct {
		payload string
		want    bool
	}{{"1", true}, {"0", false}, {"ON", true}, {`{"state":"OFF"}`, false}, {`"on"`, true}} {
		n.publish("plain/led", []byte(test.payload))
		if on := <-n.led.set; on != test.want {
			t.Errorf("%s drives it %v", test.payload, on)
		}
	}
	for _, payload := range []string{"", "2", "bright", "1\n", "01", `{"state":"ON","state":"OFF"}`} {
		n.publish("plain/led", []byte(payload))
	}
	n.publish("plain/led", n.sealed(t, "operator", "plain/led", `"off"`))
	n.publish("plain/led", []byte("toggle"))
	n.publish("plain/led", []byte(`{"state":"ON","pulse":3}`))
	n.publish("plain/led", []byte(`{"state":"ON","brightness":3}`))
	n.fence()
	c := n.agent.Counters()
	if c[signing.ReasonMalformed] != 7 || c[signing.ReasonNotPermitted] != 2 || c[signing.ReasonBadCommand] != 1 || n.led.count() != 6 {
		t.Errorf("counted %v, acted %d times", c, n.led.count())
	}
}

func TestLegacy(t *testing.T) {
	n := startNode(t, setup{})
	now := time.Now()
	seal := func(signer string, h boxtec.Hash, age time.Duration, text string) []byte {
		raw, err := boxtec.Seal(n.keys[signer], h, now.Add(-age), text)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	on := seal("veteran", boxtec.SHA1, 2*time.Second, "on")
	for _, test := range []struct {
		name string
		raw  []byte
		want signing.Reason
	}{
		{"on", on, signing.ReasonApplied},
		{"again", append(bytes.Clone(on), '\n'), signing.ReasonDuplicate},
		{"earlier", seal("veteran", boxtec.SHA1, 3*time.Second, "off"), signing.ReasonReplay},
		{"later", seal("veteran", boxtec.SHA1, time.Second, "0"), signing.ReasonApplied},
		{"toggle", seal("veteran", boxtec.SHA1, 0, "toggle"), signing.ReasonBadCommand},
		{"old", seal("veteran", boxtec.SHA1, time.Minute, "on"), signing.ReasonStale},
		{"early", seal("veteran", boxtec.SHA1, -time.Minute, "on"), signing.ReasonFuture},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			n.publish("fanStatus", test.raw)
			if v := n.verdict("veteran"); v.Reason != test.want || v.Topic != "fanStatus" || v.Sequence == 0 {
				t.Errorf("got %+v, want %s", v, test.want)
			}
		})
	}
	n.t = t
	for _, test := range []struct {
		name, topic string
		raw         []byte
		want        signing.Reason
	}{
		{"other hash", "fanStatus", seal("veteran", boxtec.SHA256, 0, "on"), signing.ReasonBadSignature},
		{"other topic", ledTopic, seal("veteran", boxtec.SHA1, 0, "on"), signing.ReasonMalformed},
		{"used for v1", "fanStatus", n.sealed(t, "veteran", "fanStatus", `"on"`), signing.ReasonUnknownKey},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			counted := n.delta(func() {
				n.publish(test.topic, test.raw)
				n.command("operator", test.topic, n.sealed(t, "operator", test.topic, `"off"`))
			})
			if counted[test.want] != 1 || counted[signing.ReasonApplied] != 1 {
				t.Errorf("counted %v", counted)
			}
		})
	}
}

func TestFirstRefusalOfTheBrokerEndsRun(t *testing.T) {
	address := startBroker(t, "allow_anonymous false")
	cfg := startNode(t, setup{}).config()
	cfg.Dial = dialer(address)
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "authorise") {
		t.Errorf("got %v", err)
	}
	if err := a.Run(t.Context()); err == nil {
		t.Error("ran again")
	}
}

func TestWaitsForABrokerThatIsNotThere(t *testing.T) {
	tried := make(chan struct{}, 100)
	cfg := startNode(t, setup{}).config()
	cfg.Dial = func(context.Context) (net.Conn, error) {
		tried <- struct{}{}
		return nil, errFault
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	<-tried
	<-tried
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v", err)
	}
	select {
	case <-a.Ready():
		t.Error("ready")
	default:
	}
}
