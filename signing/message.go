package signing

import (
	"crypto/sha256"
	"strconv"
	"time"
)

// Message is a sealed message whose signature has been verified. Only
// [Sealed.Verify] and [Recent.Verify] make one. It does not change and is safe for concurrent use.
type Message struct {
	claims claims
	kid    string
	digest [sha256Size]byte
}

// Verify checks the signature over the received bytes. The algorithm is the one
// of the key; a message that claims the other one is refused like a wrong
// signature (RFC 8725 section 3.1). Every error is a *[RefusedError] with
// [ReasonBadSignature].
func (s *Sealed) Verify(key *PublicKey) (*Message, error) {
	digest, err := s.digestFor(key)
	if err == nil {
		err = s.check(digest, key)
	}
	if err != nil {
		return nil, err
	}
	return s.message(digest), nil
}

// digestFor returns what the key would have signed.
func (s *Sealed) digestFor(key *PublicKey) (digest [sha256Size]byte, err error) {
	if s.algorithm != key.algorithm {
		return digest, Refuse(ReasonBadSignature, "the message says another algorithm than the key's")
	}
	if s.kid != key.id {
		return digest, Refuse(ReasonBadSignature, "the message names another key")
	}
	return sha256.Sum256(s.signed), nil
}

func (s *Sealed) check(digest [sha256Size]byte, key *PublicKey) error {
	if !key.VerifyDigest(digest[:], s.signature[:]) {
		return Refuse(ReasonBadSignature, "the key did not make this signature")
	}
	return nil
}

func (s *Sealed) message(digest [sha256Size]byte) *Message {
	return &Message{claims: s.claims, kid: s.kid, digest: digest}
}

// Topic returns the one topic the message was sealed for.
func (m *Message) Topic() string { return m.claims.topic }

// KeyID returns the kid of the key that signed.
func (m *Message) KeyID() string { return m.kid }

// Sequence returns the sequence number, 0 to [MaxSequence].
func (m *Message) Sequence() uint64 { return m.claims.sequence }

// IssuedAt returns when the sender says it sealed the message, in UTC.
func (m *Message) IssuedAt() time.Time { return m.claims.issuedAt }

// Expires returns from when on the sender no longer wants the message to be
// accepted, in UTC, and whether it said so.
func (m *Message) Expires() (time.Time, bool) {
	return m.claims.expires, !m.claims.expires.IsZero()
}

// Nonce returns the challenge the message answers, "" for none.
func (m *Message) Nonce() string { return m.claims.nonce }

// JSON returns the message itself, one JSON value, exactly as it was received.
// The caller must not change it.
func (m *Message) JSON() []byte { return m.claims.message }

// Digest returns the SHA-256 of the signed bytes. It identifies the message;
// the signature does not.
func (m *Message) Digest() [32]byte { return m.digest }

// CheckTopic refuses a message that was sealed for another topic than the one
// it arrived on, with [ReasonWrongTopic].
func (m *Message) CheckTopic(topic string) error {
	if m.claims.topic != topic {
		return Refuse(ReasonWrongTopic, "sealed for another topic")
	}
	return nil
}

// Window is how far from the receiver's clock the time of sealing may lie. Both
// edges are inside.
type Window struct {
	MaxAge   time.Duration // into the past
	MaxAhead time.Duration // into the future
}

// CheckFresh refuses a message sealed outside the window around now, with
// [ReasonStale] or [ReasonFuture], and one that has expired, with [ReasonStale].
// A message expires at exp, not after it, without leeway (RFC 7519 section
// 4.1.4).
func (m *Message) CheckFresh(now time.Time, w Window) error {
	// Sub stops at the largest duration; negating that would overflow.
	if age := now.Sub(m.claims.issuedAt); age > w.MaxAge {
		return Refuse(ReasonStale, "sealed %s before now, at most %s allowed", seconds(age), seconds(w.MaxAge))
	}
	if ahead := m.claims.issuedAt.Sub(now); ahead > w.MaxAhead {
		return Refuse(ReasonFuture, "sealed %s ahead of now, at most %s allowed", seconds(ahead), seconds(w.MaxAhead))
	}
	if exp, ok := m.Expires(); ok && !now.Before(exp) {
		return Refuse(ReasonStale, "expired %s before now", seconds(now.Sub(exp)))
	}
	return nil
}

// seconds writes a duration the way people compare clocks: "93 s", "0.25 s".
// Duration.Seconds would say 1.1179999999999999 for some.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Round(time.Millisecond).Milliseconds())/1000, 'f', -1, 64) + " s"
}
