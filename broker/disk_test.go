package broker_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/broker"
	"pinseal/internal/boltfile/disktest"
)

// startOnDisk runs a broker that stores at path, on a disk that can be full.
func startOnDisk(t *testing.T) (s *site, d *disktest.Disk, path string) {
	t.Helper()
	path, d = filepath.Join(t.TempDir(), "broker.db"), &disktest.Disk{}
	return start(t, func(c *broker.Config) {
		keeping(path)(c)
		c.Persistence.OpenFile = d.Open
	}), d, path
}

// Nothing is acknowledged that is not on disk, publishers are told, and all goes on when there is room again.
func TestDiskFull(t *testing.T) {
	s, d, path := startOnDisk(t)
	c, _ := s.resume(t, "alice", persistent311("id"))
	c.subscribes(t, 4, "x", 2)
	s.leave(t, c)
	five, _ := s.resume(t, "bob", connect5("five"))
	publish := func(qos byte, text string, want ...byte) {
		t.Helper()
		five.send(t, packet(0x30|qos<<1, str("x"), []byte{0, 7, 0}, []byte(text)))
		if ack := five.read(t); !bytes.HasPrefix(ack, want) {
			t.Errorf("%s: received % x, want % x…", text, ack, want)
		}
	}
	publish(1, "before", 0x40, 2, 0, 7)

	d.Fill(t)
	for _, text := range []string{"refused 1", "refused 2"} {
		publish(1, text, 0x40, 14, 0, 7, 0x97)
		publish(2, text, 0x50, 14, 0, 7, 0x97)
	}
	three, _ := s.resume(t, "bob", connect311("three"))
	three.send(t, packet(0x32, str("x"), []byte{0, 7}, []byte("not acknowledged")))
	if answer, err := readPacket(three); err == nil {
		t.Errorf("the MQTT 3.1.1 client received % x", answer)
	}
	s.connect(t, "carol", "").publish(t, "y", "what needs no disk goes on", 1)

	d.MakeRoom()
	eventually(t, "room again", func() bool { return strings.Contains(s.log.String(), "stored again") })
	publish(1, "after 1", 0x40, 2, 0, 7)
	publish(2, "after 2", 0x50, 2, 0, 7)
	if n := s.Stats().ByReason[broker.ReasonStorage]; n < 5 {
		t.Errorf("%d counted, want at least 5", n)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	s = start(t, keeping(path))
	c, _ = s.resume(t, "alice", persistent311("id"))
	for _, text := range []string{"before", "after 1", "after 2"} {
		if m := c.read(t); !strings.HasSuffix(string(m), text) {
			t.Errorf("received % x, want %q", m, text)
		}
	}
	c.nothingMore(t)
}

// A client that was away has nothing lost of what it acknowledged while the disk was full.
func TestDiskFullForSubscribers(t *testing.T) {
	s, d, path := startOnDisk(t)
	c, _ := s.resume(t, "alice", persistent311("id"))
	c.subscribes(t, 4, "x", 1)
	bob := s.connect(t, "bob", "")
	for n := range 5 {
		bob.publish(t, "x", fmt.Sprint(n), 1)
	}
	d.Fill(t)
	for range 3 {
		c.send(t, packet(0x40, c.read(t)[5:7]))
	}
	c.nothingMoreBut(t, 2)
	d.MakeRoom()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, keeping(path))
	c, _ = s.resume(t, "alice", persistent311("id"))
	for _, text := range []string{"3", "4"} {
		if m := c.read(t); !strings.HasSuffix(string(m), text) {
			t.Errorf("received % x, want %q", m, text)
		}
	}
	c.nothingMore(t)
}

// nothingMoreBut reads so many packets before the answer to a PINGREQ.
func (r raw) nothingMoreBut(t *testing.T, n int) {
	t.Helper()
	for range n {
		r.read(t)
	}
	r.nothingMore(t)
}
