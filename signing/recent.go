package signing

import (
	"crypto/sha256"
	"sync"
)

// recentSignatures is how many signatures a Recent remembers.
const recentSignatures = 1024

// Recent verifies sealed messages and remembers which signatures were good, so
// that another copy of a message costs two hashes instead of a curve operation:
// whoever records a few messages could otherwise keep a receiver busy by sending
// them again and again. It knows good signatures only, for anybody can think of a
// new bad one. What to make of a copy is the caller's, as is whether the key is
// still trusted.
//
// The zero value is ready. It takes up to 80 kB and is safe for concurrent use.
type Recent struct {
	mu   sync.Mutex
	good map[[sha256Size]byte]struct{}
}

// Verify returns what [Sealed.Verify] does.
func (r *Recent) Verify(s *Sealed, key *PublicKey) (*Message, error) {
	digest, err := s.digestFor(key)
	if err != nil {
		return nil, err
	}
	// The key's name, which was compared, is among what was signed.
	var both [sha256Size + signatureSize]byte
	copy(both[copy(both[:], digest[:]):], s.signature[:])
	signature := sha256.Sum256(both[:])
	if !r.has(signature) {
		if err := s.check(digest, key); err != nil {
			return nil, err
		}
		r.add(signature)
	}
	return s.message(digest), nil
}

func (r *Recent) has(signature [sha256Size]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.good[signature]
	return ok
}

// add forgets any other if there are too many: then somebody who sends more
// different copies than fit in turn still meets some that are remembered.
func (r *Recent) add(signature [sha256Size]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.good == nil {
		r.good = make(map[[sha256Size]byte]struct{})
	}
	for other := range r.good {
		if len(r.good) < recentSignatures {
			break
		}
		delete(r.good, other)
	}
	r.good[signature] = struct{}{}
}
