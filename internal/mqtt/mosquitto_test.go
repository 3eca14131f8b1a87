package mqtt_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pinseal/internal/freeport"
	"pinseal/internal/mqtt"
)

// startMosquitto runs Debian's broker on a free port and returns its address and what stops it.
func startMosquitto(t *testing.T, address string) (string, func()) {
	t.Helper()
	if address == "" {
		var err error
		if address, err = freeport.Address(); err != nil {
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence false\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	path := "/usr/sbin/mosquitto" // Debian keeps it out of the users' PATH
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting mosquitto (Debian package mosquitto): %v", err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(patience); ; {
		conn, err := dialTCP(address)(t.Context())
		if err == nil {
			_ = conn.Close()
			return address, stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("mosquitto does not listen: %v", err)
		}
	}
}

func dialTCP(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

func TestMosquittoRoundTrip(t *testing.T) {
	address, _ := startMosquitto(t, "")
	got := make(chan mqtt.Message, 1)
	receiver, err := mqtt.Connect(t.Context(), mqtt.Config{
		Dial: dialTCP(address), CleanSession: true, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 2}},
		OnMessage: func(m mqtt.Message, ack func()) { got <- m; ack() },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	will := &mqtt.Message{Topic: "a/will", Payload: []byte("gone"), QoS: 1}
	sender, err := mqtt.Connect(t.Context(), mqtt.Config{Dial: dialTCP(address), CleanSession: true, Will: will})
	if err != nil {
		t.Fatal(err)
	}
	for qos := range byte(3) {
		m := mqtt.Message{Topic: "a/b", Payload: fmt.Append(nil, "at ", qos), QoS: qos}
		if err := sender.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if back := <-got; string(back.Payload) != string(m.Payload) || back.QoS != qos || back.Topic != m.Topic {
			t.Errorf("got %+v, want %+v", back, m)
		}
	}
	if err := sender.Close(); err != nil {
		t.Error(err)
	}
	if err := receiver.Publish(t.Context(), mqtt.Message{Topic: "a/after", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if m := <-got; m.Topic != "a/after" {
		t.Errorf("closing published %s: %s", m.Topic, m.Payload)
	}
}

func TestMosquittoRedeliversWhatWasNotAcknowledged(t *testing.T) {
	address, _ := startMosquitto(t, "")
	type delivery struct {
		mqtt.Message
		ack func()
	}
	got := make(chan delivery, 1)
	cfg := mqtt.Config{
		Dial: dialTCP(address), ClientID: "receiver", Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}},
		OnMessage: func(m mqtt.Message, ack func()) { got <- delivery{m, ack} },
	}
	connect := func() *mqtt.Client {
		t.Helper()
		c, err := mqtt.Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	publish := func(c *mqtt.Client, text string) {
		t.Helper()
		if err := c.Publish(t.Context(), mqtt.Message{Topic: "a", Payload: []byte(text), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}

	c := connect()
	publish(c, "x")
	<-got // and no acknowledgement
	_ = c.Close()

	c = connect()
	d := <-got
	if string(d.Payload) != "x" {
		t.Errorf("redelivered %q", d.Payload)
	}
	d.ack()
	_ = c.Close()

	c = connect()
	defer func() { _ = c.Close() }()
	publish(c, "y")
	if d := <-got; string(d.Payload) != "y" {
		t.Errorf("an acknowledged message was delivered again: %q", d.Payload)
	}
}

func TestSurvivesARestartOfTheBroker(t *testing.T) {
	address, stop := startMosquitto(t, "")
	up, down := make(chan struct{}, 2), make(chan struct{}, 1)
	got := make(chan string, 100)
	c, err := mqtt.Connect(t.Context(), mqtt.Config{
		Dial: dialTCP(address), CleanSession: true, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}},
		OnUp: func() { up <- struct{}{} }, OnDown: func(error) { down <- struct{}{} },
		OnMessage: func(m mqtt.Message, ack func()) { got <- string(m.Payload); ack() },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	<-up
	stop()
	<-down
	sent := make(chan error, 100)
	for i := range 100 {
		c.PublishAsync(mqtt.Message{Topic: "a", Payload: fmt.Append(nil, i), QoS: 1}, func(err error) { sent <- err })
	}
	startMosquitto(t, address)
	<-up
	for i := range 100 {
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if m := <-got; m != fmt.Sprint(i) {
			t.Fatalf("got %q, want %d", m, i)
		}
	}
}
