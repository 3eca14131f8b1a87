package broker_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"pinseal/broker"
)

// allow lets everyone do everything.
type allow struct{ mqtt.HookBase }

func (*allow) ID() string { return "allow" }
func (*allow) Provides(event byte) bool {
	return event == mqtt.OnConnectAuthenticate || event == mqtt.OnACLCheck
}
func (*allow) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (*allow) OnACLCheck(*mqtt.Client, string, bool) bool              { return true }

// bareMochi serves without any of this package, for comparison.
func bareMochi(b *testing.B, s *site) string {
	b.Helper()
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := server.AddHook(new(allow), nil); err != nil {
		b.Fatal(err)
	}
	l := must((&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0"))(b)
	if err := server.AddListener(listeners.NewNet("bare", tls.NewListener(l, s.serverTLS(b)))); err != nil {
		b.Fatal(err)
	}
	go func() { _ = server.Serve() }()
	return l.Addr().String()
}

// BenchmarkDelivery measures messages from one publisher to one subscriber, over mutual TLS.
func BenchmarkDelivery(b *testing.B) {
	for _, size := range []int{64, 1024} {
		for qos := range byte(2) {
			for _, bare := range []bool{false, true} {
				b.Run(fmt.Sprintf("%dB/qos%d/bare=%v", size, qos, bare), func(b *testing.B) {
					s := start(b, func(c *broker.Config) { c.Limits.MaxPublishRate, c.Limits.MaxPublishBytesRate = 1<<30, 1<<30 })
					if bare {
						s.addr = bareMochi(b, s)
					}
					deliver(b, s, qos, make([]byte, size))
				})
			}
		}
	}
}

// windowMessages are on the way at a time.
const windowMessages = 100

func deliver(b *testing.B, s *site, qos byte, payload []byte) {
	b.Helper()
	sub, pub := s.dialRaw(b, "alice"), s.dialRaw(b, "bob")
	for _, c := range []raw{sub, pub} {
		if err := c.SetDeadline(time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
	sub.send(b, connect311("sub"), packet(0x82, []byte{0, 1}, str("telemetry/x"), []byte{qos}))
	sub.read(b)
	sub.read(b)
	pub.send(b, connect311("pub"))
	pub.read(b)
	message := packet(0x30, str("telemetry/x"), payload)
	if qos == 1 {
		message = packet(0x32, str("telemetry/x"), []byte{0, 9}, payload)
		go func() { _, _ = bufio.NewReader(pub).WriteTo(discard{}) }() // PUBACKs
	}
	in := bufio.NewReaderSize(sub, 64<<10)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		n := min(windowMessages, b.N-done)
		burst := make([]byte, 0, n*len(message))
		for range n {
			burst = append(burst, message...)
		}
		pub.send(b, burst)
		var acks []byte
		for range n {
			m, err := readPacket(in)
			if err != nil {
				b.Fatal(err)
			}
			if qos == 1 {
				acks = append(acks, 0x40, 2, m[len(m)-len(payload)-2], m[len(m)-len(payload)-1])
			}
		}
		if qos == 1 {
			sub.send(b, acks)
		}
		done += n
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
