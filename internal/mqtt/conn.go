package mqtt

import (
	"bufio"
	"errors"
	"net"
	"time"
)

// frameConn is the transport under paho. It reads through a buffer, since paho asks for single bytes; it shortens
// publications that are too large before paho allocates their announced size; and it gives every write a deadline,
// since paho gives one to publications only.
type frameConn struct {
	net.Conn
	in   *bufio.Reader
	most int // bytes of a packet after its fixed header; 0 for no limit

	head []byte // of a fixed header, still to be handed on
	pass int    // bytes of the packet to hand on
	skip int    // and then to drop
}

// overhead is what a PUBLISH may hold besides its payload: a topic with its length, and a packet identifier.
const overhead = 2 + 65535 + 2

func newFrameConn(conn net.Conn, maxPayload int) *frameConn {
	c := &frameConn{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
	if maxPayload > 0 {
		c.most = overhead + maxPayload + 1
	}
	return c
}

// Write implements net.Conn.
func (c *frameConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// errConnClosed stands for net.ErrClosed, by whose text paho would conclude that nobody cares.
var errConnClosed = errors.New("the connection was closed on this side")

// Read implements net.Conn.
func (c *frameConn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if errors.Is(err, net.ErrClosed) {
		err = errConnClosed
	}
	return n, err
}

func (c *frameConn) read(p []byte) (int, error) {
	if c.most == 0 {
		return c.in.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.head) == 0 && c.pass == 0 {
		if err := c.nextPacket(); err != nil {
			return 0, err
		}
	}
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := c.in.Read(p[:min(len(p), c.pass)])
	c.pass -= n
	return n, err
}

// nextPacket reads a fixed header (MQTT 3.1.1, 2.2) and decides how much of its packet is handed on.
func (c *frameConn) nextPacket() error {
	if _, err := c.in.Discard(c.skip); err != nil {
		return err
	}
	c.skip = 0
	kind, err := c.in.ReadByte()
	if err != nil {
		return err
	}
	length, err := c.readLength()
	if err != nil {
		return err
	}
	const publish = 3
	c.pass = length
	if length > c.most {
		if kind>>4 != publish {
			return errors.New("the broker sent a packet that is too large")
		}
		c.pass, c.skip = c.most, length-c.most
	}
	c.head = appendLength(append(c.head[:0], kind), c.pass)
	return nil
}

func (c *frameConn) readLength() (int, error) {
	length := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := c.in.ReadByte()
		if err != nil {
			return 0, err
		}
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			return length, nil
		}
	}
	return 0, errors.New("the broker sent a malformed packet length")
}

func appendLength(p []byte, length int) []byte {
	for ; length >= 0x80; length >>= 7 {
		p = append(p, byte(length&0x7f)|0x80)
	}
	return append(p, byte(length&0x7f))
}
