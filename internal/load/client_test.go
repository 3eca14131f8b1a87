package load_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
	"pinseal/internal/load"
)

// serve runs a broker that is reached through its memory.
func serve(t *testing.T) *broker.Broker {
	t.Helper()
	b, err := broker.New(broker.Config{Node: "node", Policy: &broker.Policy{Rules: []broker.Rule{{Identity: "*", Publish: []string{"#"}, Subscribe: []string{"#"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

func open(t *testing.T, b *broker.Broker, o load.Options) *load.Client {
	t.Helper()
	conn, err := b.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := load.Open(conn, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestMessagesArriveInOrder(t *testing.T) {
	t.Parallel()
	b := serve(t)
	for qos := range byte(2) {
		const many = 300
		heard := make(chan string, many)
		open(t, b, load.Options{ID: fmt.Sprint("sub", qos), Filters: []string{"a", "b"}, QoS: qos, Hear: func(topic, payload []byte) {
			heard <- string(topic) + " " + string(payload)
		}})
		pub := open(t, b, load.Options{ID: "pub"})
		publish := pub.PublishOnce
		if qos == 1 {
			publish = pub.Publish
		}
		for i := range many {
			if err := publish("b", []byte(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range many {
			select {
			case got := <-heard:
				if want := fmt.Sprint("b ", i); got != want {
					t.Fatalf("heard %q, want %q", got, want)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("QoS %d: message %d did not come", qos, i)
			}
		}
		if want := int64(many) * int64(qos); pub.Acknowledged() > want {
			t.Errorf("QoS %d: %d acknowledged, want at most %d", qos, pub.Acknowledged(), want)
		}
	}
}

// What was encoded before is a PUBLISH like any other.
func TestEncodePublish(t *testing.T) {
	t.Parallel()
	b := serve(t)
	heard := make(chan int, 1)
	open(t, b, load.Options{Filters: []string{"a"}, Hear: func(_, payload []byte) { heard <- len(payload) }})
	payload := []byte(strings.Repeat("x", 20_000))
	if err := open(t, b, load.Options{}).Send(load.EncodePublish("a", 70_000, payload)); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-heard:
		if n != len(payload) {
			t.Errorf("heard %d bytes", n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was heard")
	}
}

// A broker that says no is an error, and its connection is closed.
func TestRefused(t *testing.T) {
	t.Parallel()
	conn, err := serve(t).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load.Open(conn, load.Options{Filters: []string{"a+"}}); err == nil {
		t.Error("a subscription that no broker takes was taken")
	}
	if _, err := conn.Write([]byte{0xc0, 0}); err == nil {
		t.Error("the connection is still open")
	}
}
