package frame

import "io"

// initialBytes is what an idle connection holds; the buffer grows with the bytes that really arrive, never with the
// length that a header announces.
const initialBytes = 512

// keptBytes is how far a buffer may have grown and still be kept between packets.
const keptBytes = 16 << 10

// Reader passes on the whole, well-formed packets of a byte stream. It is not safe for concurrent use.
type Reader struct {
	src     io.Reader
	checker checker
	buf     []byte
	start   int // buf[start:checked] may be handed out
	checked int
	end     int // buf[checked:end] has not been checked yet
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

// Read hands out bytes of packets that were found good, whole packets before anything of the next one. The first bad
// packet yields an *Error, after all that was good before it; from then on every Read does.
func (r *Reader) Read(p []byte) (int, error) {
	for r.start == r.checked {
		if r.err != nil {
			return 0, r.err
		}
		if r.check(); r.start == r.checked && r.err == nil {
			r.fill()
		}
	}
	n := copy(p, r.buf[r.start:r.checked])
	r.start += n
	return n, nil
}

// check moves checked over the packets that are complete and good.
func (r *Reader) check() {
	for {
		rest := r.buf[r.checked:r.end]
		size, body, err := header(rest)
		switch {
		case err != nil:
			r.err = err
			return
		case size > r.checker.limits.PacketBytes:
			r.err = &Error{CodeTooLarge, "packet too large"}
			return
		case size == 0 || size > len(rest):
			// A first byte that is wrong is wrong whatever follows.
			if len(rest) > 0 {
				r.err = r.checker.early(rest[0])
			}
			return
		}
		if r.err = r.checker.packet(rest[0], rest[body:size]); r.err != nil {
			return
		}
		r.checked += size
	}
}

// early judges what the first byte alone tells, so that nothing is collected for a packet that cannot be good.
func (k *checker) early(first byte) error {
	if err := k.order(first >> 4); err != nil {
		return err
	}
	return checkFlags(first>>4, first&0x0f)
}

// fill reads once. Everything checked has been handed out.
func (r *Reader) fill() {
	r.makeRoom()
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	r.busy = r.end == len(r.buf)
	if err != nil && n == 0 {
		r.err = err
		if err == io.EOF && r.end > r.checked {
			r.err = io.ErrUnexpectedEOF
		}
	}
}

func (r *Reader) makeRoom() {
	pending := r.end - r.start
	switch {
	case pending == 0 && len(r.buf) > keptBytes:
		r.buf = make([]byte, initialBytes)
	case pending == len(r.buf), r.busy && len(r.buf) < keptBytes:
		bigger := make([]byte, min(2*len(r.buf), max(r.checker.limits.PacketBytes, keptBytes)))
		copy(bigger, r.buf[r.start:r.end])
		r.buf = bigger
	case r.start > 0:
		copy(r.buf, r.buf[r.start:r.end])
	}
	r.start, r.checked, r.end = 0, 0, pending
}
