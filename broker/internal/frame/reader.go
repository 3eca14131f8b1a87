package frame

import "io"

// initialBytes is what an idle connection holds; the buffer grows with the bytes that really arrive, never with the
// length that a header announces.
const initialBytes = 512

// keptBytes is how far a buffer may have grown and still be kept between packets.
const keptBytes = 16 << 10

// Packet is one whole, well-formed packet.
type Packet struct {
	Whole []byte // with its fixed header
	Body  []byte // without
}

// First is the byte with the packet's type and flags.
func (p Packet) First() byte { return p.Whole[0] }

// Reader takes the whole, well-formed packets out of a byte stream. It is not safe for concurrent use.
type Reader struct {
	// Hold, unless nil, is asked before a packet that has come in part takes so many bytes, of more than 16 KiB. It is told,
	// by fewer, when that is over.
	Hold func(bytes int) bool

	src     io.Reader
	checker checker
	buf     []byte
	start   int // buf[start:end] was read and is not yet part of a packet that was returned
	end     int
	err     error
	busy    bool // the last read filled the buffer: there may be more
}

// NewReader returns a Reader of src.
func NewReader(src io.Reader, limits Limits) *Reader {
	return &Reader{src: src, checker: checker{limits: limits}, buf: make([]byte, initialBytes)}
}

// Version is the protocol level of the CONNECT that was let through, or 0.
func (r *Reader) Version() byte { return r.checker.version }

// DisconnectReason is the reason code of the client's DISCONNECT.
func (r *Reader) DisconnectReason() byte { return r.checker.reason }

// Next returns the next packet, whose bytes are valid until Next is called again. It reads from the source only when
// there is no whole packet left of what it has read before. The first bad packet yields an *Error; from then on every
// Next does.
func (r *Reader) Next() (Packet, error) {
	for r.err == nil {
		if p, ok := r.take(); ok {
			return p, nil
		}
		if r.err == nil {
			r.fill()
		}
	}
	return Packet{}, r.err
}

// take takes a packet out of the buffer, if a whole one is there and it is good.
func (r *Reader) take() (p Packet, ok bool) {
	rest := r.buf[r.start:r.end]
	size, body, err := header(rest)
	switch {
	case err != nil:
		r.err = err
	case size > r.checker.limits.PacketBytes:
		r.err = &Error{CodeTooLarge, "packet too large"}
	case size == 0 || size > len(rest):
		// A first byte that is wrong is wrong whatever follows.
		if len(rest) > 0 {
			r.err = r.checker.early(rest[0])
		}
	default:
		p = Packet{rest[:size:size], rest[body:size:size]}
		r.err = r.checker.packet(rest[0], p.Body)
		r.start += size
		return p, r.err == nil
	}
	return Packet{}, false
}

// early judges what the first byte alone tells, so that nothing is collected for a packet that cannot be good.
func (k *checker) early(first byte) error {
	if err := k.order(first >> 4); err != nil {
		return err
	}
	return checkFlags(first>>4, first&0x0f)
}

// fill reads once. All whole packets have been returned.
func (r *Reader) fill() {
	if !r.makeRoom() {
		r.err = ErrNoRoom
		return
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	r.busy = r.end == len(r.buf)
	if err != nil && n == 0 {
		r.err = err
		if err == io.EOF && r.end > 0 {
			r.err = io.ErrUnexpectedEOF
		}
	}
}

func (r *Reader) makeRoom() bool {
	pending := r.end - r.start
	switch {
	case pending == 0 && len(r.buf) > keptBytes:
		r.buf = make([]byte, initialBytes)
		if r.Hold != nil {
			r.Hold(initialBytes)
		}
	case pending == len(r.buf), r.busy && len(r.buf) < keptBytes:
		size := min(2*len(r.buf), max(r.checker.limits.PacketBytes, keptBytes))
		if size > keptBytes && r.Hold != nil && !r.Hold(size) {
			return false
		}
		bigger := make([]byte, size)
		copy(bigger, r.buf[r.start:r.end])
		r.buf = bigger
	case r.start > 0:
		copy(r.buf, r.buf[r.start:r.end])
	}
	r.start, r.end = 0, pending
	return true
}
