package signing

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Claims is what a sender seals. Times are kept to the microsecond.
type Claims struct {
	Topic    string    // the exact MQTT topic, see [ValidTopic]
	IssuedAt time.Time // now, by the sender's clock
	Sequence uint64    // 0 to [MaxSequence], above every one the key has sealed
	Message  []byte    // one JSON value, not null
	Expires  time.Time // zero: none
	Nonce    string    // the receiver's challenge, "" for none
}

// Seal makes a sealed message. It refuses to make one that [Parse] would
// refuse; such an error wraps the *[RefusedError]. The same claims and key give
// the same bytes.
func Seal(key *PrivateKey, c Claims) ([]byte, error) {
	// Parse below sees the finished claims, where `1,"exp":2` would pass.
	if !jsontext.Value(c.Message).IsValid() {
		return nil, errors.New("sealing: the message is not one strict JSON value")
	}
	claims, err := c.marshal()
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	header := `{"alg":"` + string(key.public.algorithm) + `","kid":"` + key.public.id + `","typ":"` + headerType + `"}`
	b64 := base64.RawURLEncoding
	signed := b64.AppendEncode(nil, []byte(header))
	signed = b64.AppendEncode(append(signed, '.'), claims)
	digest := sha256.Sum256(signed)
	signature, err := key.SignDigest(digest[:])
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	sealed := b64.AppendEncode(append(signed, '.'), signature)
	if _, err := Parse(sealed); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return sealed, nil
}

// marshal writes the members in a fixed order.
func (c Claims) marshal() ([]byte, error) {
	b, err := jsontext.AppendQuote([]byte(`{"aud":`), c.Topic)
	if err != nil {
		return nil, errors.New("the topic is not UTF-8")
	}
	b = appendTime(append(b, `,"iat":`...), c.IssuedAt)
	b = strconv.AppendUint(append(b, `,"seq":`...), c.Sequence, 10)
	if !c.Expires.IsZero() {
		b = appendTime(append(b, `,"exp":`...), c.Expires)
	}
	if c.Nonce != "" {
		if b, err = jsontext.AppendQuote(append(b, `,"nonce":`...), c.Nonce); err != nil {
			return nil, errors.New("the nonce is not UTF-8")
		}
	}
	b = append(append(b, `,"msg":`...), c.Message...)
	return append(b, '}'), nil
}

// appendTime writes seconds since 1970 with up to six decimals, no trailing
// zeros. A time before 1970 gets a sign, which Parse refuses.
func appendTime(b []byte, t time.Time) []byte {
	b = strconv.AppendInt(b, t.Unix(), 10)
	if micros := t.Nanosecond() / int(time.Microsecond); micros > 0 {
		b = append(b, strings.TrimRight(fmt.Sprintf(".%06d", micros), "0")...)
	}
	return b
}
