package broker

import "sync"

// pile is what waits to be written to a client, in pieces that come from a pool: it grows without being copied, and gives
// back what has been sent. Its owner guards it.
type pile struct {
	pieces [][]byte
	size   int // in bytes
}

const (
	// smallPiece is enough for what a client mostly gets at a time; largePiece is a TLS record (RFC 8446 section 5.1).
	smallPiece, largePiece = 4 << 10, 16 << 10
)

// pieces lends memory to piles.
type pieces struct{ small, large sync.Pool }

// room makes the last piece one that has room for n more bytes.
func (p *pile) room(from *pieces, n int) {
	last := len(p.pieces) - 1
	if last >= 0 && cap(p.pieces[last])-len(p.pieces[last]) >= n {
		return
	}
	p.pieces = append(p.pieces, from.take(n, last < 0))
}

// add copies bytes onto the pile.
func (p *pile) add(from *pieces, b []byte) {
	p.room(from, len(b))
	last := &p.pieces[len(p.pieces)-1]
	*last = append(*last, b...)
	p.size += len(b)
}

func (s *pieces) take(n int, first bool) []byte {
	pool, size := &s.large, largePiece
	if first && n <= smallPiece {
		pool, size = &s.small, smallPiece
	}
	if n > size {
		return make([]byte, 0, n)
	}
	if b, ok := pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, size)
}

// giveBack takes a piece whose bytes nobody needs any more.
func (s *pieces) giveBack(b []byte) {
	switch cap(b) {
	case smallPiece:
		s.small.Put(&b)
	case largePiece:
		s.large.Put(&b)
	}
}
