package broker_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
)

// brokerGoroutines returns the stacks of goroutines that the broker or mochi started.
func brokerGoroutines() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var found []string
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(stack, "created by pinseal/broker.") || strings.Contains(stack, "created by pinseal/broker/internal") ||
			strings.Contains(stack, "created by github.com/mochi-mqtt") {
			found = append(found, stack)
		}
	}
	return found
}

// mochi's Close hangs on idle and on stalled clients.
func TestShutdownWhateverClientsDo(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Limits.MaxQueuedBytes, c.Limits.MaxWaitingBytes = 64<<10, 1<<30 })
	hello := s.clientHello(t)
	bob := s.connect(t, "bob", "flood")
	for range 7 {
		s.dialTCP(t)                // silent
		half := s.dialTCP(t)        // in the middle of the handshake
		s.dialRaw(t, "alice")       // no CONNECT
		s.connect(t, "alice", "")   // idle, would read
		idle := s.dialRaw(t, "bob") // idle, does not read
		stalled := s.dialRaw(t, "alice")
		cut := s.dialRaw(t, "alice") // in the middle of a packet
		if _, err := half.Write(hello); err != nil {
			t.Fatal(err)
		}
		idle.send(t, connect5(""))
		stalled.send(t, connect311(""), packet(0x82, []byte{0, 1}, str("flood"), []byte{1}))
		stalled.read(t)
		stalled.read(t)
		cut.send(t, connect311(""), []byte{0x30, 0x80, 1, 0})
		cut.read(t)
	}
	s.dialNode(t)
	payload := string(make([]byte, 100<<10))
	for s.Stats().ByReason[broker.ReasonQueueFull] == 0 { // the stalled ones hold all they may
		bob.publish(t, "flood", payload, 1)
	}
	if n := s.Stats().Connections; n != 50 {
		t.Errorf("%d connections, want 50", n)
	}
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if took := time.Since(began); took > timeout/2 { // 1 s where nothing else is done; WriteTimeout is 10 s
		t.Errorf("shutdown took %v", took)
	}
	eventually(t, "no goroutine left", func() bool { return len(brokerGoroutines()) == 0 })
	if st := s.Stats(); st.Connections != 0 || st.Pending != 0 {
		t.Errorf("%d connections, %d pending after shutdown", st.Connections, st.Pending)
	}
}

func TestShutdownTellsMQTT5Clients(t *testing.T) {
	s := start(t, nil)
	five, three := s.dialRaw(t, "alice"), s.dialRaw(t, "alice")
	five.send(t, connect5("5"))
	three.send(t, connect311("3"))
	five.read(t)
	three.read(t)
	eventually(t, "admitted", func() bool { return s.Stats().Accepted == 2 })
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	if bye := five.read(t); bye[0] != 0xe0 || bye[2] != 0x8b {
		t.Errorf("received % x, want DISCONNECT 0x8b", bye)
	}
	if bye, err := readPacket(three); err == nil {
		t.Errorf("the MQTT 3.1.1 client received % x", bye)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
