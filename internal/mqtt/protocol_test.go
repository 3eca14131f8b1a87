package mqtt_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"pinseal/internal/mqtt"
)

// answerTo writes an acknowledgement of the given type.
func (s *session) answerTo(kind byte, id uint16) {
	s.t.Helper()
	flags := byte(0)
	if kind == packets.Pubrel {
		flags = 2
	}
	if _, err := s.Write([]byte{kind<<4 | flags, 2, byte(id >> 8), byte(id)}); err != nil {
		s.t.Fatal(err)
	}
}

func TestConnectSaysWhatIsConfigured(t *testing.T) {
	b := newFakeBroker(t)
	go func() {
		_, _ = mqtt.Connect(t.Context(), mqtt.Config{ // ends with the test
			Dial: b.dial, ClientID: "id", Username: "user", Password: "secret", KeepAlive: 90 * time.Second,
			Will: &mqtt.Message{Topic: "will", Payload: []byte("gone"), QoS: 1, Retained: true},
		})
	}()
	s := &session{Conn: <-b.conns, t: t}
	defer func() { _ = s.Close() }()
	got := expect[*packets.ConnectPacket](s)
	got.FixedHeader = packets.FixedHeader{}
	want := &packets.ConnectPacket{
		ProtocolName: "MQTT", ProtocolVersion: 4, ClientIdentifier: "id", Keepalive: 90,
		UsernameFlag: true, Username: "user", PasswordFlag: true, Password: []byte("secret"),
		WillFlag: true, WillTopic: "will", WillMessage: []byte("gone"), WillQos: 1, WillRetain: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPasswordNeedsAUsername(t *testing.T) {
	b := newFakeBroker(t)
	go func() {
		_, _ = mqtt.Connect(t.Context(), mqtt.Config{Dial: b.dial, CleanSession: true, Password: "secret"}) // ends with the test
	}()
	s := &session{Conn: <-b.conns, t: t}
	defer func() { _ = s.Close() }()
	if got := expect[*packets.ConnectPacket](s); got.PasswordFlag || len(got.Password) > 0 || !got.CleanSession {
		t.Errorf("got %s", got)
	}
}

func TestConnectRefusesWhatIsNoAnswer(t *testing.T) {
	for _, test := range []struct {
		name, bytes, want string
	}{
		{"another packet", "\xd0\x00", "CONNACK"},
		{"too short", "\x20\x01\x00", "CONNACK"},
		{"a code that there is not", "\x20\x02\x00\x4d", "code 77"},
		{"the end", "", "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newFakeBroker(t)
			failed := make(chan error, 1)
			go func() {
				_, err := mqtt.Connect(t.Context(), mqtt.Config{Dial: b.dial, CleanSession: true})
				failed <- err
			}()
			s := &session{Conn: <-b.conns, t: t}
			expect[*packets.ConnectPacket](s)
			_, _ = io.WriteString(s, test.bytes) // what comes of it is in failed
			_ = s.Close()
			if err := <-failed; err == nil || !strings.Contains(err.Error(), test.want) || mqtt.Permanent(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMalformedPacketEndsTheConnection(t *testing.T) {
	for _, test := range []struct {
		name, bytes string
	}{
		{"PUBLISH without a topic", "\x30\x00"},
		{"PUBLISH with an empty topic", "\x30\x02\x00\x00"},
		{"PUBLISH whose topic is longer than the packet", "\x30\x03\x00\x02t"},
		{"PUBLISH at QoS 3", "\x36\x05\x00\x01t\x00\x01"},
		{"PUBLISH at QoS 1 without an identifier", "\x32\x03\x00\x01t"},
		{"PUBLISH at QoS 1 with identifier 0", "\x32\x05\x00\x01t\x00\x00"},
		{"PUBACK that is too short", "\x40\x01\x00"},
		{"PUBREC of nothing", "\x50\x02\x00\x00"},
		{"SUBACK without an identifier", "\x90\x00"},
		{"a packet that only clients send", "\xc0\x00"},
		{"a second CONNACK", "\x20\x02\x00\x00"},
		{"a length that does not end", "\x30\xff\xff\xff\xff\x01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newFakeBroker(t)
			down := make(chan error, 1)
			_, s := b.connect(mqtt.Config{
				OnMessage: func(m mqtt.Message, _ func()) { t.Errorf("got %+v", m) },
				OnDown:    func(err error) { down <- err },
			})
			_, _ = io.WriteString(s, test.bytes) // the client may have closed the connection before the last of it
			if err := <-down; err == nil || !strings.Contains(err.Error(), "malformed packet") {
				t.Errorf("got %v", err)
			}
			b.accept(packets.Accepted)
		})
	}
}

func TestExactlyOnceSendingTakesBothSteps(t *testing.T) {
	b := newFakeBroker(t)
	c, s := b.connect(mqtt.Config{})
	done := make(chan error, 1)
	c.PublishAsync(mqtt.Message{Topic: "t", QoS: 2}, func(err error) { done <- err })
	id := expect[*packets.PublishPacket](s).MessageID
	s.answerTo(packets.Puback, id) // which says nothing at QoS 2
	s.answerTo(packets.Pubrec, id)
	if got := expect[*packets.PubrelPacket](s); got.MessageID != id {
		t.Errorf("released %d, want %d", got.MessageID, id)
	}
	select {
	case err := <-done:
		t.Fatalf("done before PUBCOMP: %v", err)
	default:
	}
	s.answerTo(packets.Pubcomp, id)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestExactlyOnceReceivingTakesBothSteps(t *testing.T) {
	b := newFakeBroker(t)
	_, s := b.connect(mqtt.Config{OnMessage: func(_ mqtt.Message, ack func()) { ack() }})
	s.publish(nil, 2, 9)
	if got := expect[*packets.PubrecPacket](s); got.MessageID != 9 {
		t.Errorf("PUBREC of %d", got.MessageID)
	}
	s.answerTo(packets.Pubrel, 9)
	if got := expect[*packets.PubcompPacket](s); got.MessageID != 9 {
		t.Errorf("PUBCOMP of %d", got.MessageID)
	}
}

// Callers learn of their messages in the order in which they handed them over, whatever the broker does.
func TestReportsInOrder(t *testing.T) {
	b := newFakeBroker(t)
	c, s := b.connect(mqtt.Config{})
	done := make(chan int, 2)
	var ids []uint16
	for i := range 2 {
		c.PublishAsync(mqtt.Message{Topic: "t", QoS: 1}, func(error) { done <- i })
		ids = append(ids, expect[*packets.PublishPacket](s).MessageID)
	}
	s.answerTo(packets.Puback, ids[1])
	s.answerTo(packets.Puback, ids[0])
	if first, second := <-done, <-done; first != 0 || second != 1 {
		t.Errorf("told of %d, then of %d", first, second)
	}
}

func TestWindowBoundsWhatIsUnconfirmed(t *testing.T) {
	const window = 256
	b := newFakeBroker(t)
	c, s := b.connect(mqtt.Config{})
	for range window + 1 {
		c.PublishAsync(mqtt.Message{Topic: "t", QoS: 1}, nil)
	}
	var first uint16
	for i := range window {
		if id := expect[*packets.PublishPacket](s).MessageID; i == 0 {
			first = id
		}
	}
	s.silent()
	s.answerTo(packets.Puback, first)
	expect[*packets.PublishPacket](s)
}

// What was written at QoS 0 is done, even if it is not told yet because of an earlier message that is unconfirmed.
func TestSentOnceIsNotSentAgain(t *testing.T) {
	b := newFakeBroker(t)
	c, s := b.connect(mqtt.Config{})
	done := make(chan string, 2)
	for qos := range byte(2) {
		qos = 1 - qos
		c.PublishAsync(mqtt.Message{Topic: "t", QoS: qos}, func(err error) { done <- fmt.Sprint(qos, err) })
		expect[*packets.PublishPacket](s)
	}
	c.PublishAsync(mqtt.Message{Topic: "t", QoS: 1}, nil) // it is written after the others, and noted as such
	expect[*packets.PublishPacket](s)
	_ = s.Close()
	s = b.accept(packets.Accepted)
	for range 2 {
		if p := expect[*packets.PublishPacket](s); p.Qos != 1 {
			t.Errorf("sent again: %s", p)
		} else {
			s.confirm(p)
		}
	}
	if first, second := <-done, <-done; first != "0 <nil>" || second != "1 <nil>" {
		t.Errorf("told of %q, then of %q", first, second)
	}
}

func TestAsksWhetherTheBrokerIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBroker(t)
		down := make(chan error, 1)
		_, s := b.connect(mqtt.Config{KeepAlive: 3 * time.Second, OnDown: func(err error) { down <- err }})
		for range 3 {
			expect[*packets.PingreqPacket](s)
			if _, err := s.Write([]byte{packets.Pingresp << 4, 0}); err != nil {
				t.Fatal(err)
			}
		}
		expect[*packets.PingreqPacket](s) // and no answer
		start := time.Now()
		if err := <-down; err == nil || !strings.Contains(err.Error(), "ping") || time.Since(start) > patience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		b.accept(packets.Accepted)
	})
}

func TestNothingFollowsTheGoodbye(t *testing.T) {
	b := newFakeBroker(t)
	acks := make(chan func(), 1)
	c, s := b.connect(mqtt.Config{OnMessage: func(_ mqtt.Message, ack func()) { acks <- ack }})
	s.publish(nil, 1, 7)
	ack := <-acks
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	expect[*packets.DisconnectPacket](s)
	ack()
	if p, err := packets.ReadPacket(s); !errors.Is(err, io.EOF) {
		t.Errorf("after DISCONNECT came %v, %v", p, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestNewRefusesWhatMQTTCannotSay(t *testing.T) {
	dial := newFakeBroker(t).dial
	long := strings.Repeat("x", 65536)
	for _, cfg := range []mqtt.Config{
		{ClientID: long},
		{ClientID: "a\x00"},
		{ClientID: "a", Username: long},
		{ClientID: "a", Password: long},
		{ClientID: "a", KeepAlive: -time.Second},
		{ClientID: "a", KeepAlive: time.Millisecond},
		{ClientID: "a", KeepAlive: 65536 * time.Second},
		{ClientID: "a", Will: &mqtt.Message{Topic: "t", Payload: []byte(long)}},
	} {
		cfg.Dial = dial
		if _, err := mqtt.New(cfg); err == nil {
			t.Errorf("accepted: %.80v", cfg)
		}
	}
}

// FuzzPublication reads a packet: what is taken for a publication is written as it was read, but for DUP, which nobody
// looks at, and a length that was longer than need be.
func FuzzPublication(f *testing.F) {
	f.Add(mqtt.EncodePublication(mqtt.Message{Topic: "t", Payload: []byte("x"), QoS: 1, Retained: true}, 7))
	const most = 16
	f.Fuzz(func(t *testing.T, data []byte) {
		m, id, ok, err := mqtt.ReadPublication(bytes.NewReader(data), most)
		if err != nil || !ok {
			return
		}
		again, sameID, ok, err := mqtt.ReadPublication(bytes.NewReader(mqtt.EncodePublication(m, id)), 0)
		if err != nil || !ok || sameID != id || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v with %d became %+v with %d, %v", m, id, again, sameID, err)
		}
		p, err := packets.ReadPacket(bytes.NewReader(data))
		if theirs, is := p.(*packets.PublishPacket); err == nil && is && len(theirs.Payload) <= most {
			if theirs.TopicName != m.Topic || !bytes.Equal(theirs.Payload, m.Payload) || theirs.MessageID != id || theirs.Qos != m.QoS {
				t.Errorf("paho reads %s, we read %+v with %d", theirs, m, id)
			}
		}
	})
}

func TestFuzzSeeds(t *testing.T) {
	if seeds, err := filepath.Glob("testdata/fuzz/FuzzPublication/*"); err != nil || len(seeds) < 3 {
		t.Fatalf("%d seeds, want 3 or more", len(seeds))
	}
}
