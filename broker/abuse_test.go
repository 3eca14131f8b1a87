package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
)

func TestAbuseAnnouncedLengths(t *testing.T) {
	attack(t, nil, func(s *site) {
		for range size(1000, 100) {
			s.attackTLS(t).wantEnd(t, "256 MB announced", []byte{0x10, 0xff, 0xff, 0xff, 0x7f})
		}
		if n := s.Stats().ByReason[broker.ReasonTooLarge]; n < 100 {
			t.Errorf("%d counted", n)
		}
	})
}

func TestAbuseSilence(t *testing.T) {
	for name, hello := range map[string]bool{"silent": false, "half a handshake": true} {
		t.Run(name, func(t *testing.T) {
			attack(t, nil, func(s *site) {
				var first []byte
				if hello {
					first = s.clientHello(t)
				}
				for range size(2000, 600) {
					if _, err := s.attackTCP(t).Write(first); err != nil && !hello {
						t.Fatal(err)
					}
				}
				if n, most := s.Stats().Pending, broker.DefaultLimits().MaxPendingPerAddress+1; n > most { // and a visitor
					t.Errorf("%d pending, more than %d", n, most)
				}
			})
		})
	}
}

func TestAbuseSlowConnect(t *testing.T) {
	pace, limit := time.Second, broker.DefaultLimits().ConnectTimeout
	if !fullSize() {
		pace, limit = 100*time.Millisecond, 4*time.Second // in which 50 handshakes have their time on a busy machine
	}
	attack(t, func(c *broker.Config) { c.Limits.ConnectTimeout = limit }, func(s *site) {
		began := time.Now()
		together(t.Context(), 50, 50, func(int) {
			c := s.attackTLS(t)
			for _, b := range connect311(strings.Repeat("x", 100)) {
				if _, err := c.Write([]byte{b}); err != nil {
					break
				}
				time.Sleep(pace) // is the attack, waits for nothing
			}
			c.wantClosed(t)
		})
		if took := time.Since(began); took > 3*limit {
			t.Errorf("the slow ones were let stay %v", took)
		}
	})
}

// golden are packets that pass, each in the version after whose CONNECT it comes. Those that publish do so below golden.
func golden() map[string]struct {
	version byte
	packet  []byte
	flags   [][2]int // byte and bits that are reserved
} {
	type vector = struct {
		version byte
		packet  []byte
		flags   [][2]int
	}
	hello := []byte{0x21, 0, 9, 0x26, 0, 1, 'k', 0, 1, 'v'}
	return map[string]vector{
		"CONNECT 3.1.1":     {0, packet(0x10, str("MQTT"), []byte{4, 0xee, 0, 60}, str("id"), str("golden/will"), str("w"), str("mallory"), str("p")), [][2]int{{0, 15}, {9, 1}}},
		"CONNECT 5":         {0, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, byte(len(hello))}, hello, str("id"), []byte{0}, str("golden/will"), str("w")), [][2]int{{0, 15}, {9, 1}}},
		"PUBLISH 3.1.1":     {4, packet(0x32, str("golden/x"), []byte{0, 7}, []byte("payload")), [][2]int{{0, 6}}},
		"PUBLISH 5":         {5, packet(0x32, str("golden/x"), []byte{0, 7, 7}, []byte{0x26, 0, 1, 'k', 0, 1, 'v'}, []byte("payload")), [][2]int{{0, 6}}},
		"PUBACK 5":          {5, packet(0x40, []byte{0, 7, 0, 0}), [][2]int{{0, 15}}},
		"PUBREC 5":          {5, packet(0x50, []byte{0, 7, 0, 0}), [][2]int{{0, 15}}},
		"PUBREL 3.1.1":      {4, packet(0x62, []byte{0, 7}), [][2]int{{0, 13}}},
		"PUBCOMP 5":         {5, packet(0x70, []byte{0, 7, 0, 0}), [][2]int{{0, 15}}},
		"SUBSCRIBE 3.1.1":   {4, packet(0x82, []byte{0, 7}, str("a/#"), []byte{1}), [][2]int{{0, 13}, {9, 0xfc}}},
		"SUBSCRIBE 5":       {5, packet(0x82, []byte{0, 7, 2, 0x0b, 1}, str("a/#"), []byte{1}), [][2]int{{0, 13}, {12, 0xc0}}},
		"UNSUBSCRIBE 3.1.1": {4, packet(0xa2, []byte{0, 7}, str("a/#")), [][2]int{{0, 13}}},
		"PINGREQ":           {4, []byte{0xc0, 0}, [][2]int{{0, 15}}},
		"DISCONNECT 5":      {5, packet(0xe0, []byte{4, 5, 0x11, 0, 0, 0, 9}), [][2]int{{0, 15}}},
	}
}

func helloOf(version byte) []byte {
	switch version {
	case 4:
		return connect311("golden")
	case 5:
		return connect5("golden")
	}
	return nil
}

func TestAbuseGoldenPackets(t *testing.T) {
	attack(t, nil, func(s *site) {
		stop := s.quiet(t)
		for name, v := range golden() {
			hello := helloOf(v.version)
			for cut := 1; cut < len(v.packet); cut++ {
				s.attackTLS(t).wantEnd(t, fmt.Sprintf("%s cut after %d bytes", name, cut), hello, v.packet[:cut])
			}
			before := s.Stats().ByReason[broker.ReasonMalformed]
			count := uint64(0)
			for _, f := range v.flags {
				for bit := 1; bit < 256; bit <<= 1 {
					if f[1]&bit == 0 {
						continue
					}
					broken := slices.Clone(v.packet)
					if name[:4] == "PUBL" {
						broken[f[0]] |= 6 // quality of service 3
					} else {
						broken[f[0]] ^= byte(bit)
					}
					s.attackTLS(t).wantEnd(t, fmt.Sprintf("%s with bit %#x of byte %d", name, bit, f[0]), hello, broken)
					count++
				}
			}
			if n := s.Stats().ByReason[broker.ReasonMalformed] - before; n != count {
				t.Errorf("%s: %d of %d reserved bits counted as malformed", name, n, count)
			}
		}
		stop()
	})
}

func TestAbuseFiveByteLengths(t *testing.T) {
	attack(t, nil, func(s *site) {
		for first := range 256 {
			long := []byte{byte(first), 0x80, 0x80, 0x80, 0x80, 1}
			s.attackTLS(t).wantEnd(t, fmt.Sprintf("% x at once", long), long)
			if first%16 == 0 || fullSize() {
				s.attackTLS(t).wantEnd(t, fmt.Sprintf("% x", long), connect5("id"), long)
			}
		}
	})
}

// property is a list of properties of at most 127 bytes.
func property(p ...[]byte) []byte {
	list := slices.Concat(p...)
	return append([]byte{byte(len(list))}, list...)
}

func TestAbuseText(t *testing.T) {
	attack(t, nil, func(s *site) {
		stop := s.quiet(t)
		hello := connect5("id")
		for _, bad := range []string{
			"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\x80\xed\xb0\x80", // surrogates
			"\x00", "a\x00b", // NUL
			"\xc0\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", // overlong
			"\xf4\x90\x80\x80", "\xff", "\x80", "\xe2\x82", // beyond Unicode, not UTF-8, cut
		} {
			topic := str("golden/" + bad)
			for place, stream := range map[string][][]byte{
				"client id":           {connect5(bad)},
				"client id 3.1.1":     {connect311(bad)},
				"user name":           {packet(0x10, str("MQTT"), []byte{5, 0x82, 0, 60, 0}, str("id"), str(bad))},
				"will topic":          {packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str("id"), []byte{0}, topic, str("w"))},
				"user property":       {packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, property([]byte{0x26}, str(bad), str("v")), str("id"))},
				"topic":               {hello, packet(0x30, topic, []byte{0})},
				"topic 3.1.1":         {connect311("id"), packet(0x30, topic)},
				"filter":              {hello, packet(0x82, []byte{0, 7, 0}, str(bad), []byte{0})},
				"filter to leave":     {hello, packet(0xa2, []byte{0, 7, 0}, str(bad))},
				"share name":          {hello, packet(0x82, []byte{0, 7, 0}, str("$share/"+bad+"/x"), []byte{0})},
				"key of a publish":    {hello, packet(0x30, str("golden/x"), property([]byte{0x26}, str(bad), str("v")))},
				"value of a publish":  {hello, packet(0x30, str("golden/x"), property([]byte{0x26}, str("k"), str(bad)))},
				"content type":        {hello, packet(0x30, str("golden/x"), property([]byte{3}, str(bad)))},
				"response topic":      {hello, packet(0x30, str("golden/x"), property([]byte{8}, str(bad)))},
				"reason of a goodbye": {hello, packet(0xe0, []byte{0}, property([]byte{0x1f}, str(bad)))},
			} {
				s.attackTLS(t).wantEnd(t, fmt.Sprintf("%q as %s", bad, place), stream...)
			}
		}
		stop()
		if n := s.Stats().ByReason[broker.ReasonMalformed]; n != 13*15 {
			t.Errorf("%d counted as malformed, want %d", n, 13*15)
		}
	})
}

func TestAbuseTopics(t *testing.T) {
	slashes := strings.Repeat("/", 65535)
	attack(t, nil, func(s *site) {
		stop := s.quiet(t)
		hello := connect5("id")
		for range size(100, 5) {
			for name, stream := range map[string][][]byte{
				"#":               {hello, packet(0x30, str("golden/#"), []byte{0})},
				"+":               {hello, packet(0x30, str("golden/+"), []byte{0})},
				"# within":        {hello, packet(0x30, str("golden/a#"), []byte{0})},
				"# in a will":     {packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str("id"), []byte{0}, str("golden/#"), str("w"))},
				"slashes":         {hello, packet(0x30, str(slashes), []byte{0})},
				"retained":        {hello, packet(0x31, str(slashes), []byte{0})},
				"subscribed":      {hello, packet(0x82, []byte{0, 7, 0}, str(slashes), []byte{0})},
				"shared":          {hello, packet(0x82, []byte{0, 7, 0}, str(("$share/g/" + slashes)[:65535]), []byte{0})},
				"left":            {hello, packet(0xa2, []byte{0, 7, 0}, str(slashes))},
				"in a will":       {packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str("id"), []byte{0}, str(slashes), str("w"))},
				"to answer":       {hello, packet(0x30, str("golden/x"), append([]byte{0x82, 0x80, 4, 8}, str(slashes)...))},
				"of plus signs":   {hello, packet(0x82, []byte{0, 7, 0}, str(strings.Repeat("+/", 32767)), []byte{0})},
				"slashes, 3.1.1":  {connect311("id"), packet(0x30, str(slashes))},
				"filter of 3.1.1": {connect311("id"), packet(0x82, []byte{0, 7}, str(slashes), []byte{0})},
			} {
				s.attackTLS(t).wantEnd(t, name, stream...)
			}
		}
		stop()
		if n, want := s.Stats().ByReason[broker.ReasonMalformed], uint64(size(100, 5)*14); n != want {
			t.Errorf("%d counted as malformed, want %d", n, want)
		}
	})
}

func TestAbuseSubscriptions(t *testing.T) {
	attack(t, nil, func(s *site) {
		for client := range size(50, 5) {
			c := s.attackMQTT(t, connect5(fmt.Sprint(client)))
			for n := range size(1000, 50) {
				var filters []byte
				for i := range 64 {
					filters = append(append(filters, str(fmt.Sprintf("%d/+/%d/#", n, i))...), 0)
				}
				c.send(t, packet(0x82, []byte{0, 1, 0}, filters))
				if ack := c.read(t); ack[0] != 0x90 {
					t.Fatalf("received % x, want SUBACK", ack[:4])
				}
			}
			if most := broker.DefaultLimits().MaxSubscriptions*(client+1) + 1; s.Stats().Subscriptions > most {
				t.Errorf("%d subscriptions, more than %d", s.Stats().Subscriptions, most)
			}
		}
	})
}

func TestAbuseRetained(t *testing.T) {
	attack(t, nil, func(s *site) {
		c := s.attackMQTT(t, connect5("id"))
		go func() { _, _ = io.Copy(io.Discard, c) }()
		for n := range size(200_000, 2000) {
			c.send(t, packet(0x31, str(fmt.Sprintf("retained/%d", n)), []byte{0}, make([]byte, 1024)))
		}
	})
}

// A message of quality of service 2 is held until it is released.
func TestAbuseNeverReleased(t *testing.T) {
	attack(t, nil, func(s *site) {
		for range size(20, 3) {
			c := s.attackTLS(t)
			stream := [][]byte{connect5("id")}
			for id := 1; id < 65536; id += size(1, 20) {
				stream = append(stream, packet(0x34, str("x"), []byte{byte(id >> 8), byte(id), 0}, make([]byte, 512)))
			}
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for _, p := range stream {
				if _, err := c.Write(p); err != nil {
					break
				}
			}
			c.wantEnd(t, "messages never released")
		}
	})
}

func TestAbuseProperties(t *testing.T) {
	many := bytes.Repeat([]byte{0x26, 0, 0, 0, 0}, 10_000)
	properties := append([]byte{0xd0, 0x86, 3}, many...)
	attack(t, nil, func(s *site) {
		stop := s.quiet(t)
		for range size(100, 5) {
			for name, stream := range map[string][][]byte{
				"CONNECT":     {packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, properties, str("id"))},
				"will":        {packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str("id"), properties, str("golden/w"), str("w"))},
				"PUBLISH":     {connect5("id"), packet(0x30, str("golden/x"), properties)},
				"SUBSCRIBE":   {connect5("id"), packet(0x82, []byte{0, 7}, properties, str("x"), []byte{0})},
				"UNSUBSCRIBE": {connect5("id"), packet(0xa2, []byte{0, 7}, properties, str("x"))},
				"DISCONNECT":  {connect5("id"), packet(0xe0, []byte{0}, properties)},
			} {
				s.attackTLS(t).wantEnd(t, name, stream...)
			}
		}
		stop()
		if n, want := s.Stats().ByReason[broker.ReasonMalformed], uint64(size(100, 5)*6); n != want {
			t.Errorf("%d counted as malformed, want %d", n, want)
		}
	})
}

func TestAbuseSlowReader(t *testing.T) {
	for qos := range byte(2) {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			attack(t, func(c *broker.Config) {
				if !fullSize() {
					c.Limits.WriteTimeout = 500 * time.Millisecond
				}
			}, func(s *site) {
				reader := s.attackMQTT(t, connect5("reader"))
				reader.send(t, packet(0x82, []byte{0, 1, 0}, str("flood"), []byte{qos}))
				reader.read(t)
				writer := s.attackMQTT(t, connect5("writer"))
				go func() { _, _ = io.Copy(io.Discard, writer) }()
				message := packet(0x30|qos<<1, str("flood"), []byte{0, 7}[:2*qos], []byte{0}, make([]byte, 32<<10))
				for range size(10_000, 600) {
					writer.send(t, message)
				}
				eventually(t, "the slow reader is gone", func() bool { return s.Stats().ByReason[broker.ReasonSlow] == 1 })
			})
		})
	}
}

func TestAbuseTakeOver(t *testing.T) {
	attack(t, nil, func(s *site) {
		for range size(500, 50) {
			c := s.attackMQTT(t, connect5("heart")) // the id of the heartbeat, which would end
			c.send(t, packet(0xe0))
			_ = c.Close()
		}
	})
}

// Clients come and go under ever new names, with sessions to keep and without.
func TestAbuseChurn(t *testing.T) {
	attack(t, nil, func(s *site) {
		before, goroutines := s.Stats(), runtime.NumGoroutine()
		keep := []byte{0x11, 0, 0, 0x0e, 0x10}
		together(t.Context(), 8, size(10_000, 400), func(i int) {
			hello := connect5(fmt.Sprint("churn", i))
			if i%4 == 0 {
				hello = connect5(fmt.Sprint("churn", i), keep...)
			}
			c := s.attackMQTT(t, hello)
			c.send(t, packet(0x82, []byte{0, 1, 0}, str(fmt.Sprintf("churn/%d/#", i)), []byte{1}))
			c.read(t)
			if i%2 == 0 {
				c.send(t, packet(0xe0))
			}
			_ = c.Close()
		})
		stored := broker.DefaultLimits().MaxStoredSessions
		eventually(t, "at baseline", func() bool {
			now := s.Stats()
			return now.Connections <= before.Connections+1 && now.Pending <= 1 && // and a visitor
				now.Sessions <= before.Sessions+stored+1 && now.Subscriptions <= before.Subscriptions+stored &&
				runtime.NumGoroutine() <= goroutines+20
		})
	})
}

func TestAbuseWills(t *testing.T) {
	rules := func(wills ...string) *broker.Policy {
		return &broker.Policy{Rules: []broker.Rule{
			{Identity: "heart", Publish: []string{"#"}, Subscribe: []string{"#"}},
			{Identity: "visitor", Publish: []string{"visit"}},
			{Identity: "ears", Subscribe: []string{"golden/#"}},
			{Identity: "mallory", Publish: wills},
		}}
	}
	will := func(properties []byte) []byte {
		expiry := []byte{5, 0x11, 0, 0, 0, 60}
		return packet(0x10, str("MQTT"), []byte{5, 6, 0, 60}, expiry, str("id"), property(properties), str("golden/will"), str("w"))
	}
	delayed := []byte{0x18, 0, 0, 0, 1}
	attack(t, func(c *broker.Config) { c.Policy = rules("other") }, func(s *site) {
		stop := s.quiet(t)
		for range size(500, 20) {
			for _, hello := range [][]byte{
				will(nil), will(delayed),
				packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str("id"), str("golden/will"), str("w")),
				packet(0x10, str("MQTT"), []byte{4, 0x26, 0, 60}, str("id"), str("golden/will"), str("w")),
			} {
				c := s.attackTLS(t)
				c.send(t, hello)
				if ack := c.read(t); ack[0] != 0x20 || ack[3] == 0 {
					t.Fatalf("received % x, want CONNACK with an error", ack)
				}
				_ = c.Close()
			}
		}
		// Allowed at first, but no more when it is due.
		if err := s.SetPolicy(rules("golden/will")); err != nil {
			t.Fatal(err)
		}
		abrupt := s.attackMQTT(t, will(delayed))
		_ = abrupt.Close()
		eventually(t, "the will waits", func() bool { return s.Stats().Connections <= 3 })
		refused := s.Stats().ByReason[broker.ReasonWill]
		if err := s.SetPolicy(rules("other")); err != nil {
			t.Fatal(err)
		}
		// It is the last that is due: the others would have come before it.
		eventually(t, "the will is refused when it is due", func() bool { return s.Stats().ByReason[broker.ReasonWill] > refused })
		stop()
	})
}

// The heartbeat must notice what it is there for.
func TestHeartbeatNotices(t *testing.T) {
	s := start(t, nil)
	heart := s.connect(t, "heart", "heart")
	heart.subscribe(t, "beat", 1)
	if err := heart.beat(1); err != nil {
		t.Error(err)
	}
	s.Disconnect("heart")
	if err := heart.beat(2); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("beat of a client that was thrown out: %v", err)
	}
}
