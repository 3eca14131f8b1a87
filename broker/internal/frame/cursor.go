package frame

import "encoding/binary"

// cursor reads the fields of a packet. Reading beyond the end sets short and yields zero values, so that callers may
// look at short once, after several fields.
type cursor struct {
	b     []byte
	short bool
	alias uint16 // the topic alias, after the properties were read
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.short = true
		c.b = nil
		return nil
	}
	field := c.b[:n]
	c.b = c.b[n:]
	return field
}

func (c *cursor) u8() byte {
	if f := c.take(1); f != nil {
		return f[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if f := c.take(2); f != nil {
		return binary.BigEndian.Uint16(f)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if f := c.take(4); f != nil {
		return binary.BigEndian.Uint32(f)
	}
	return 0
}

// bytes reads binary data or the bytes of a string, which follow their length (MQTT 5.0 sections 1.5.4 and 1.5.6).
func (c *cursor) bytes() []byte { return c.take(int(c.u16())) }

// varint reads a variable byte integer (section 1.5.5); ok is false if it is too long or not in its shortest form.
func (c *cursor) varint() (n int, ok bool) {
	for i := range 4 {
		b := c.u8()
		if c.short {
			return 0, false
		}
		n |= int(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			return n, b != 0 || i == 0
		}
	}
	return 0, false
}
