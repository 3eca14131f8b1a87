package broker_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// Where no acknowledgement waits for the disk, only those are told of a full one who publish what is to be stored.
func TestDiskFullWithAnInterval(t *testing.T) {
	d := &disktest.Disk{}
	s := start(t, func(c *broker.Config) {
		c.Persistence = broker.Persistence{Path: filepath.Join(t.TempDir(), "broker.db"), Interval: 10 * time.Millisecond, OpenFile: d.Open}
	})
	c, _ := s.resume(t, "alice", persistent311("id"))
	c.subscribes(t, 4, "x", 2)
	d.Fill(t)
	c.send(t, packet(0x82, []byte{0, 2}, str("y"), []byte{1}))
	if ack := c.read(t); !bytes.Equal(ack, []byte{0x90, 3, 0, 2, 1}) {
		t.Fatalf("received % x, want the SUBACK", ack)
	}
	eventually(t, "a full disk", func() bool { return strings.Contains(s.log.String(), "cannot store") })
	c.send(t, packet(0x82, []byte{0, 3}, str("z"), []byte{1}))
	if ack := c.read(t); !bytes.Equal(ack, []byte{0x90, 3, 0, 3, 1}) {
		t.Fatalf("received % x, want the SUBACK", ack)
	}
	d.MakeRoom()
	eventually(t, "room again", func() bool { return strings.Contains(s.log.String(), "stored again") })
}

// Of a QoS 2 message that its receiver has, no PUBREL goes out before that is on disk, on whatever connection.
func TestReleaseWaitsForTheDisk(t *testing.T) {
	s, d, _ := startOnDisk(t)
	c, _ := s.resume(t, "alice", persistent311("id"))
	c.subscribes(t, 4, "x", 2)
	s.connect(t, "bob", "").publish(t, "x", "once", 2)
	id := c.read(t)[5:7]
	d.Fill(t)
	c.send(t, packet(0x50, id))
	c.nothingMore(t)
	s.leave(t, c)
	c, _ = s.resume(t, "alice", persistent311("id"))
	c.nothingMore(t)
	d.MakeRoom()
	if m := c.read(t); !bytes.Equal(m, packet(0x62, id)) {
		t.Errorf("received % x, want PUBREL", m)
	}
}

// A QoS 2 message that could not be stored is not confirmed to a client that sends it again meanwhile: it is gone.
func TestRepeatedMessageIsNotConfirmedWithoutTheFirst(t *testing.T) {
	s, d, _ := startOnDisk(t)
	absent, _ := s.resume(t, "alice", persistent311("id"))
	absent.subscribes(t, 4, "x", 2)
	s.leave(t, absent)
	c, _ := s.resume(t, "bob", connect5("five"))
	d.Fill(t)
	first := packet(0x34, str("x"), []byte{0, 7, 0}, []byte("text"))
	again := packet(0x3c, str("x"), []byte{0, 7, 0}, []byte("text"))
	c.send(t, first, again)
	for range 2 {
		if ack := c.read(t); !bytes.HasPrefix(ack, []byte{0x50, 14, 0, 7, 0x97}) {
			t.Errorf("received % x, want PUBREC with the reason", ack)
		}
	}
	d.MakeRoom()
	eventually(t, "room again", func() bool { return strings.Contains(s.log.String(), "stored again") })
	c.nothingMore(t)
	c.send(t, first)
	if ack := c.read(t); !bytes.Equal(ack, []byte{0x50, 2, 0, 7}) {
		t.Errorf("received % x, want PUBREC", ack)
	}
}
