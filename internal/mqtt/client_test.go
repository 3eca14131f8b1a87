package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"pinseal/internal/mqtt"
)

func TestConnectReportsRefusals(t *testing.T) {
	for _, test := range []struct {
		name      string
		code      byte
		want      error
		permanent bool
	}{
		{"not authorised", packets.ErrRefusedNotAuthorised, mqtt.ErrNotAuthorised, true},
		{"bad password", packets.ErrRefusedBadUsernameOrPassword, mqtt.ErrBadCredentials, true},
		{"bad client id", packets.ErrRefusedIDRejected, mqtt.ErrIdentifierRejected, true},
		{"bad protocol", packets.ErrRefusedBadProtocolVersion, mqtt.ErrBadProtocol, true},
		{"unavailable", packets.ErrRefusedServerUnavailable, mqtt.ErrUnavailable, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newFakeBroker(t)
			failed := make(chan error, 1)
			go func() {
				_, err := mqtt.Connect(t.Context(), mqtt.Config{Dial: b.dial, CleanSession: true})
				failed <- err
			}()
			b.accept(test.code)
			err := <-failed
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if mqtt.Permanent(err) != test.permanent {
				t.Errorf("Permanent(%v) is %v", err, !test.permanent)
			}
		})
	}
}

func TestConnectReportsDialError(t *testing.T) {
	cause := errors.New("no route to the moon")
	_, err := mqtt.Connect(t.Context(), mqtt.Config{
		CleanSession: true,
		Dial:         func(context.Context) (net.Conn, error) { return nil, cause },
	})
	if !errors.Is(err, cause) || mqtt.Permanent(err) {
		t.Errorf("got %v, want %v", err, cause)
	}
	if strings.Contains(err.Error(), "network Error") {
		t.Errorf("the error speaks paho: %v", err)
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	b := newFakeBroker(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := mqtt.Connect(ctx, mqtt.Config{Dial: b.dial, CleanSession: true})
		failed <- err
	}()
	conn := <-b.conns // and never a CONNACK
	defer func() { _ = conn.Close() }()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestRefusedSubscriptionIsAnError(t *testing.T) {
	b := newFakeBroker(t)
	failed := make(chan error, 1)
	go func() {
		_, err := mqtt.Connect(t.Context(), mqtt.Config{
			Dial: b.dial, CleanSession: true, Subscriptions: []mqtt.Subscription{{Filter: "secret"}},
		})
		failed <- err
	}()
	s := b.accept(packets.Accepted)
	s.grant(0x80)
	expect[*packets.DisconnectPacket](s)
	if err := <-failed; !errors.Is(err, mqtt.ErrSubscriptionRefused) || !strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestRefusedLaterSubscriptionIsForgotten(t *testing.T) {
	b := newFakeBroker(t)
	c, s := b.connect(mqtt.Config{Subscriptions: []mqtt.Subscription{{Filter: "open"}}})
	failed := make(chan error, 1)
	go func() { failed <- c.Subscribe(t.Context(), mqtt.Subscription{Filter: "secret"}) }()
	s.grant(0x80)
	if err := <-failed; !errors.Is(err, mqtt.ErrSubscriptionRefused) {
		t.Fatalf("got %v", err)
	}
	_ = s.Close()
	again := b.accept(packets.Accepted)
	if got := again.grant(1); !slices.Equal(got, []string{"open"}) {
		t.Errorf("subscribed again to %v", got)
	}
}

func TestEveryConnectionIsSubscribed(t *testing.T) {
	b := newFakeBroker(t)
	c, s := b.connect(mqtt.Config{Subscriptions: []mqtt.Subscription{{Filter: "a"}, {Filter: "b"}}})
	done := make(chan error, 2)
	go func() {
		done <- c.Subscribe(t.Context(), mqtt.Subscription{Filter: "c"})
		done <- c.Unsubscribe(t.Context(), "a")
	}()
	s.grant(0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	unsub := expect[*packets.UnsubscribePacket](s)
	ack, _ := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
	ack.MessageID = unsub.MessageID
	s.write(ack)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	again := b.accept(packets.Accepted)
	got := again.grant(0)
	slices.Sort(got)
	if !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("subscribed again to %v", got)
	}
}

// What is not confirmed when the connection breaks is sent again, in order, and reported only then. Paho alone would
// report it done as soon as it is connected again.
func TestUnconfirmedIsSentAgainAndNotReportedEarly(t *testing.T) {
	b := newFakeBroker(t)
	c, s := b.connect(mqtt.Config{})
	results := make(chan string, 3)
	for i := range 3 {
		m := mqtt.Message{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1}
		c.PublishAsync(m, func(err error) { results <- fmt.Sprint(i, err) })
	}
	s.confirm(expect[*packets.PublishPacket](s))
	if got := <-results; got != "0 <nil>" {
		t.Fatalf("got %q", got)
	}
	expect[*packets.PublishPacket](s)
	expect[*packets.PublishPacket](s)
	_ = s.Close()

	for range 2 { // the second connection breaks as well
		s = b.accept(packets.Accepted)
		first, second := expect[*packets.PublishPacket](s), expect[*packets.PublishPacket](s)
		if string(first.Payload)+string(second.Payload) != "12" {
			t.Fatalf("sent again: %s, %s", first.Payload, second.Payload)
		}
		select {
		case got := <-results:
			t.Fatalf("reported %q before the broker confirmed", got)
		default:
		}
		_ = s.Close()
	}
	s = b.accept(packets.Accepted)
	s.confirm(expect[*packets.PublishPacket](s))
	s.confirm(expect[*packets.PublishPacket](s))
	if a, b := <-results, <-results; a != "1 <nil>" || b != "2 <nil>" {
		t.Errorf("got %q, %q", a, b)
	}
}

func TestQoS0WaitsForAConnection(t *testing.T) {
	b := newFakeBroker(t)
	down := make(chan struct{}, 1)
	c, s := b.connect(mqtt.Config{OnDown: func(error) { down <- struct{}{} }})
	_ = s.Close()
	<-down
	sent := make(chan error, 1)
	go func() { sent <- c.Publish(t.Context(), mqtt.Message{Topic: "t", Payload: []byte("x")}) }()
	s = b.accept(packets.Accepted)
	if p := expect[*packets.PublishPacket](s); string(p.Payload) != "x" {
		t.Errorf("got %s", p)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestPublishIsWithdrawnWithItsContext(t *testing.T) {
	b := newFakeBroker(t)
	down := make(chan struct{}, 1)
	c, s := b.connect(mqtt.Config{OnDown: func(error) { down <- struct{}{} }})
	_ = s.Close()
	<-down
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Publish(ctx, mqtt.Message{Topic: "t", Payload: []byte("late"), QoS: 1}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	c.PublishAsync(mqtt.Message{Topic: "t", Payload: []byte("next"), QoS: 1}, nil)
	s = b.accept(packets.Accepted)
	if p := expect[*packets.PublishPacket](s); string(p.Payload) != "next" {
		t.Errorf("got %s", p)
	}
}

func TestAcknowledgesWhenTold(t *testing.T) {
	b := newFakeBroker(t)
	acks := make(chan func(), 2)
	_, s := b.connect(mqtt.Config{OnMessage: func(_ mqtt.Message, ack func()) { acks <- ack }})
	s.publish([]byte("1"), 1, 7)
	s.publish([]byte("2"), 1, 8)
	first, second := <-acks, <-acks
	s.silent()
	second()
	second()
	if p := expect[*packets.PubackPacket](s); p.MessageID != 8 {
		t.Errorf("acknowledged %d", p.MessageID)
	}
	first()
	if p := expect[*packets.PubackPacket](s); p.MessageID != 7 {
		t.Errorf("acknowledged %d", p.MessageID)
	}
}

func TestCloseSendsWaitingAcknowledgements(t *testing.T) {
	b := newFakeBroker(t)
	acks := make(chan func(), 1)
	c, s := b.connect(mqtt.Config{OnMessage: func(_ mqtt.Message, ack func()) { acks <- ack }})
	s.publish(nil, 1, 7)
	(<-acks)()
	go func() { _ = c.Close() }()
	expect[*packets.PubackPacket](s)
	expect[*packets.DisconnectPacket](s)
}

func TestCloseIsPrompt(t *testing.T) {
	for _, test := range []struct {
		name string
		ruin func(*testing.T, *mqtt.Client, *session)
	}{
		{"idle", func(_ *testing.T, _ *mqtt.Client, s *session) { go drain(s) }},
		{"broker does not read", func(_ *testing.T, c *mqtt.Client, _ *session) {
			for range 10 {
				c.PublishAsync(mqtt.Message{Topic: "t", QoS: 1}, nil)
			}
		}},
		{"disconnected", func(_ *testing.T, _ *mqtt.Client, s *session) { _ = s.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newFakeBroker(t)
			c, s := b.connect(mqtt.Config{})
			test.ruin(t, c, s)
			waiting := make(chan error, 1)
			c.PublishAsync(mqtt.Message{Topic: "t", QoS: 1}, func(err error) { waiting <- err })
			start := time.Now()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("took %v", took)
			}
			if err := <-waiting; !errors.Is(err, mqtt.ErrClosed) {
				t.Errorf("what waits ends with %v", err)
			}
			if err := c.Publish(t.Context(), mqtt.Message{Topic: "t"}); !errors.Is(err, mqtt.ErrClosed) {
				t.Errorf("publishing afterwards: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("closing again: %v", err)
			}
		})
	}
}

func drain(s *session) {
	for {
		if _, err := packets.ReadPacket(s.Conn); err != nil {
			return
		}
	}
}

// A broker that takes no acknowledgements is given up, as one that takes no publications is.
func TestStalledBrokerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBroker(t)
		down := make(chan error, 1)
		_, s := b.connect(mqtt.Config{
			KeepAlive: time.Hour,
			OnMessage: func(_ mqtt.Message, ack func()) { ack() },
			OnDown:    func(err error) { down <- err },
		})
		start := time.Now()
		s.publish(nil, 1, 7)
		if err := <-down; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > patience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		b.accept(packets.Accepted)
	})
}

func TestQueueIsBounded(t *testing.T) {
	c, err := mqtt.New(mqtt.Config{Dial: newFakeBroker(t).dial, CleanSession: true, MaxQueue: 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.PublishAsync(mqtt.Message{Topic: "t", QoS: 1}, nil)
	}
	for i, test := range []struct {
		retained bool
		want     error
	}{{false, mqtt.ErrQueueFull}, {true, nil}, {false, mqtt.ErrQueueFull}, {true, mqtt.ErrQueueFull}} {
		var got error
		c.PublishAsync(mqtt.Message{Topic: "t", QoS: 1, Retained: test.retained}, func(err error) { got = err })
		if !errors.Is(got, test.want) {
			t.Errorf("message %d: got %v, want %v", i, got, test.want)
		}
	}
}

func TestOversizedPublicationIsCut(t *testing.T) {
	const most = 1000
	b := newFakeBroker(t)
	got := make(chan mqtt.Message, 2)
	_, s := b.connect(mqtt.Config{MaxPayload: most, OnMessage: func(m mqtt.Message, ack func()) { got <- m; ack() }})
	go s.publish(bytes.Repeat([]byte("x"), 1<<20), 1, 1)
	if m := <-got; m.Topic != "t" || len(m.Payload) <= most || len(m.Payload) > most+1<<17 {
		t.Errorf("got %d bytes on %s", len(m.Payload), m.Topic)
	}
	expect[*packets.PubackPacket](s)
	s.publish([]byte("small"), 0, 0)
	if m := <-got; string(m.Payload) != "small" {
		t.Errorf("the next message came as %q", m.Payload)
	}
}

func TestOversizedPacketEndsTheConnection(t *testing.T) {
	b := newFakeBroker(t)
	down := make(chan error, 1)
	_, s := b.connect(mqtt.Config{MaxPayload: 1000, OnDown: func(err error) { down <- err }})
	go func() { _, _ = s.Write([]byte{0x90, 0xff, 0xff, 0xff, 0x7f}) }() // a SUBACK of 256 MB
	if err := <-down; err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("got %v", err)
	}
	b.accept(packets.Accepted)
}

func TestRefusesWhatCannotBeSent(t *testing.T) {
	c, err := mqtt.New(mqtt.Config{Dial: newFakeBroker(t).dial, CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []mqtt.Message{
		{Topic: ""},
		{Topic: "a/+"},
		{Topic: "#"},
		{Topic: "a\x00"},
		{Topic: strings.Repeat("a", 65536)},
		{Topic: "a", QoS: 3},
	} {
		if err := c.Publish(t.Context(), m); err == nil {
			t.Errorf("published to %.10q at QoS %d", m.Topic, m.QoS)
		}
	}
}

func TestNewRefusesBadConfigurations(t *testing.T) {
	dial := newFakeBroker(t).dial
	subscribing := func(filter string) mqtt.Config {
		return mqtt.Config{Dial: dial, CleanSession: true, Subscriptions: []mqtt.Subscription{{Filter: filter}}}
	}
	for _, filter := range []string{"#", "+", "a/#", "+/b/+", "/", "$share/g/a/#"} {
		if _, err := mqtt.New(subscribing(filter)); err != nil {
			t.Error(err)
		}
	}
	for _, test := range []struct {
		name string
		cfg  mqtt.Config
	}{
		{"no way to dial", mqtt.Config{CleanSession: true}},
		{"a session without a name", mqtt.Config{Dial: dial}},
		{"an empty filter", subscribing("")},
		{"a level after #", subscribing("a/#/b")},
		{"# in a level", subscribing("a#")},
		{"+ in a level", subscribing("a+/b")},
		{"a bad will", mqtt.Config{Dial: dial, CleanSession: true, Will: &mqtt.Message{Topic: "#"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := mqtt.New(test.cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}
