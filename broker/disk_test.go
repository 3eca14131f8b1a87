package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pinseal/broker"
)

// disk opens files for a store and can be full.
type disk struct {
	mu   sync.Mutex
	file *os.File // opened last
	full bool
}

func (d *disk) open(name string, flag int, perm os.FileMode) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	f, err := os.OpenFile(name, flag, perm)
	d.file = f
	return f, err
}

// fill lets every write to the open file fail, and there is no other.
func (d *disk) fill(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
	f := must(os.OpenFile("/dev/full", os.O_RDWR, 0))(t)
	err := syscall.Dup3(int(f.Fd()), int(d.file.Fd()), syscall.O_CLOEXEC)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) makeRoom() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = false
}

// Nothing is acknowledged that is not on disk, publishers are told, and all goes on when there is room again.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	d := &disk{}
	s := start(t, func(c *broker.Config) {
		keeping(path)(c)
		c.Persistence.OpenFile = d.open
	})
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

	d.fill(t)
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

	d.makeRoom()
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
	path := filepath.Join(t.TempDir(), "broker.db")
	d := &disk{}
	s := start(t, func(c *broker.Config) {
		keeping(path)(c)
		c.Persistence.OpenFile = d.open
	})
	c, _ := s.resume(t, "alice", persistent311("id"))
	c.subscribes(t, 4, "x", 1)
	bob := s.connect(t, "bob", "")
	for n := range 5 {
		bob.publish(t, "x", fmt.Sprint(n), 1)
	}
	d.fill(t)
	for range 3 {
		c.send(t, packet(0x40, c.read(t)[5:7]))
	}
	c.nothingMoreBut(t, 2)
	d.makeRoom()
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
