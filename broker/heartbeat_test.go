package broker_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"pinseal/broker"
)

// fullSize says whether the attacks have the size at which they once succeeded against bare mochi, which takes minutes.
// Otherwise they are what every test run can afford.
func fullSize() bool { return os.Getenv("PINSEAL_ABUSE") == "full" }

func size(full, short int) int {
	if fullSize() {
		return full
	}
	return short
}

const (
	// inTime is how long a message of a bystander may take during an attack, on a machine that does other things too.
	inTime = 5 * time.Second
	// heapBound is what an attack may add to the heap, that of the attackers, who are in the same process, included.
	heapBound = 128 << 20
)

// attack runs a broker, a heartbeat and an attack. Attackers come from an address of their own.
func attack(t *testing.T, change func(*broker.Config), attackers func(*site)) {
	t.Helper()
	s := start(t, func(c *broker.Config) {
		c.Limits.MaxConnectRate = 1 << 30 // the other defences are tried
		if change != nil {
			change(c)
		}
	})
	stop := s.heartbeat(t)
	attackers(s)
	stop()
	if n := s.Stats().ByReason[broker.ReasonPanic]; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// heartbeat sends messages to itself, one after the other, until the returned function is called. Each must come back in
// time; now and then somebody who has not been there yet must be let in as fast. The heap must stay within its bound.
func (s *site) heartbeat(t *testing.T) (stop func()) {
	t.Helper()
	heart := s.connect(t, "heart", "heart")
	heart.subscribe(t, "beat", 1)
	runtime.GC()
	baseline := heap()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var longest time.Duration
		var most uint64
		beats := 0
		for alive := true; alive; beats++ {
			select {
			case <-end:
				alive = false // after one last beat
			case <-time.After(10 * time.Millisecond): // the pace
			}
			began := time.Now()
			if err := heart.beat(beats); err != nil {
				t.Errorf("heartbeat %d: %v", beats, err)
				return
			}
			if beats%10 == 0 {
				if err := s.visit(t); err != nil {
					t.Errorf("somebody new: %v", err)
					return
				}
			}
			longest, most = max(longest, time.Since(began)), max(most, heap())
		}
		t.Logf("%d heartbeats, the longest took %v; the heap grew by %d KiB at most", beats, longest, (max(most, baseline)-baseline)>>10)
		if most > baseline+heapBound {
			t.Errorf("the heap grew from %d to %d bytes", baseline, most)
		}
	}()
	return func() {
		t.Helper()
		close(end)
		<-ended
	}
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func (c *client) beat(n int) error {
	limit := time.NewTimer(inTime)
	defer limit.Stop()
	token := c.Publish("beat", 1, false, fmt.Sprint(n))
	select {
	case m := <-c.messages:
		if m.payload != fmt.Sprint(n) {
			return fmt.Errorf("received %q", m.payload)
		}
	case <-c.lost:
		return errors.New("the connection was lost")
	case <-limit.C:
		return errors.New("not back in time")
	}
	if !token.WaitTimeout(inTime) {
		return errors.New("not acknowledged in time")
	}
	return token.Error()
}

// visit connects, publishes and leaves.
func (s *site) visit(t *testing.T) error {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + s.addr).SetTLSConfig(s.clientTLS(t, "visitor")).
		SetAutoReconnect(false).SetConnectTimeout(inTime).SetProtocolVersion(4))
	for _, step := range []func() paho.Token{c.Connect, func() paho.Token { return c.Publish("visit", 1, false, "x") }} {
		token := step()
		if !token.WaitTimeout(inTime) {
			return errors.New("not in time")
		}
		if token.Error() != nil {
			return token.Error()
		}
	}
	c.Disconnect(0)
	return nil
}

// attackTCP connects from an address that the heartbeat does not share.
func (s *site) attackTCP(t *testing.T) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := d.DialContext(t.Context(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(6 * timeout)); err != nil {
		t.Fatal(err)
	}
	return c
}

// attackTLS has a good certificate. The handshake is done by the time it returns.
func (s *site) attackTLS(t *testing.T) raw {
	t.Helper()
	config := s.clientTLS(t, "mallory").Clone()
	config.ServerName, config.ClientSessionCache = "localhost", s.tickets
	c := tls.Client(s.attackTCP(t), config)
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return raw{c}
}

// attackMQTT is connected as well.
func (s *site) attackMQTT(t *testing.T, hello []byte) raw {
	t.Helper()
	c := s.attackTLS(t)
	c.send(t, hello)
	if ack := c.read(t); ack[0] != 0x20 || ack[3] != 0 {
		t.Fatalf("received % x, want CONNACK", ack)
	}
	return c
}

// wantEnd sends what must end the connection.
func (r raw) wantEnd(t *testing.T, what string, bytes ...[]byte) {
	t.Helper()
	for _, b := range bytes {
		if _, err := r.Write(b); err != nil {
			break // it has ended already
		}
	}
	_ = r.CloseWrite() // a packet that is not complete will never be
	if _, err := io.Copy(io.Discard, r); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the connection stayed open", what)
	}
	_ = r.Close()
}

// quiet wants nothing of what an attack did to reach a subscriber of everything.
func (s *site) quiet(t *testing.T) (stop func()) {
	t.Helper()
	ears := s.connect(t, "ears", "")
	ears.subscribe(t, "golden/#", 0)
	return func() {
		t.Helper()
		s.connect(t, "heart", "end").publish(t, "golden/end", "end", 1)
		if m := ears.receive(t); m.topic != "golden/end" {
			t.Errorf("received %q on %q", m.payload, m.topic)
		}
	}
}

// together runs n of them at a time until ctx ends, or count are done.
func together(ctx context.Context, workers, count int, work func(i int)) {
	next := make(chan int)
	done := make(chan struct{})
	for range workers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range next {
				work(i)
			}
		}()
	}
	for i := range count {
		if ctx.Err() == nil {
			next <- i
		}
	}
	close(next)
	for range workers {
		<-done
	}
}
