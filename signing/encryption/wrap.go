package encryption

import (
	"crypto/aes"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The algorithms of RFC 7518 that the format uses; there is no choice for a
// message to make but which kind of key it is wrapped for.
const (
	algorithmPublic = "ECDH-ES+A256KW" // section 4.6
	algorithmShared = "A256KW"         // section 4.4
	contentCipher   = "A256GCM"        // section 5.3
)

const (
	keyBytes     = 32 // of AES-256
	wrapBlock    = 8  // RFC 3394 section 2
	wrappedBytes = keyBytes + wrapBlock
	wrapSteps    = 6 // RFC 3394 section 2.2.1
)

// errWrapped is the one error of unwrapping.
var errWrapped = errors.New("the wrapped key is not intact")

// wrap is key agreement with a key made for this one message (RFC 7518 section 4.6).
func (k *PublicKey) wrap(random io.Reader, contentKey []byte) (entry, error) {
	ephemeral, err := ephemeralKey(k.key.Curve(), random)
	if err != nil {
		return entry{}, err
	}
	secret, err := ephemeral.ECDH(k.key)
	if err != nil {
		return entry{}, fmt.Errorf("agreeing on a key: %w", err)
	}
	return entry{
		algorithm: algorithmPublic, kid: k.id, ephemeral: ephemeral.PublicKey(), wrapped: wrapKey(agreedKey(secret), contentKey),
	}, nil
}

func (k *SharedKey) wrap(_ io.Reader, contentKey []byte) (entry, error) { //nolint:unparam // as Recipient has it
	return entry{algorithm: algorithmShared, kid: k.id, wrapped: wrapKey(k.key[:], contentKey)}, nil
}

func (k *PrivateKey) unwrap(e entry) ([]byte, error) {
	if e.algorithm != algorithmPublic {
		return nil, errWrapped
	}
	secret, err := k.key.ECDH(e.ephemeral) // fails on another curve, and on the secret zero (RFC 7748 section 6.1)
	if err != nil {
		return nil, errWrapped
	}
	return unwrapKey(agreedKey(secret), e.wrapped)
}

func (k *SharedKey) unwrap(e entry) ([]byte, error) {
	if e.algorithm != algorithmShared {
		return nil, errWrapped
	}
	return unwrapKey(k.key[:], e.wrapped)
}

// ephemeralKey draws a scalar itself, because crypto/ecdh takes no source of
// random numbers that a test could replace.
func ephemeralKey(curve ecdh.Curve, random io.Reader) (*ecdh.PrivateKey, error) {
	scalar := make([]byte, coordinateBytes)
	for {
		if _, err := io.ReadFull(random, scalar); err != nil {
			return nil, fmt.Errorf("reading random bytes: %w", err)
		}
		if key, err := curve.NewPrivateKey(scalar); err == nil {
			return key, nil // else zero, or not below the order of P-256: 2^-32 at most
		}
	}
}

// agreedKey is the Concat KDF of RFC 7518 section 4.6.2 for ECDH-ES+A256KW
// without apu and apv. 256 bits are one round of SHA-256.
func agreedKey(secret []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1)
	b = append(b, secret...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(algorithmPublic)))
	b = append(b, algorithmPublic...)
	b = binary.BigEndian.AppendUint32(b, 0) // PartyUInfo
	b = binary.BigEndian.AppendUint32(b, 0) // PartyVInfo
	b = binary.BigEndian.AppendUint32(b, keyBytes*8)
	key := sha256.Sum256(b)
	return key[:]
}

// wrapKey is the key wrap of RFC 3394 section 2.2.1. key is 16, 24 or 32 bytes
// and plain a multiple of 8.
func wrapKey(key, plain []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the caller's keys have a fixed size
	}
	out := make([]byte, wrapBlock, wrapBlock+len(plain))
	for i := range out {
		out[i] = 0xa6 // RFC 3394 section 2.2.3.1
	}
	out = append(out, plain...)
	buffer := make([]byte, aes.BlockSize)
	blocks := len(plain) / wrapBlock
	for step := range wrapSteps * blocks {
		here := out[(1+step%blocks)*wrapBlock:][:wrapBlock]
		copy(buffer, out[:wrapBlock])
		copy(buffer[wrapBlock:], here)
		block.Encrypt(buffer, buffer)
		binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(buffer)^uint64(step+1))
		copy(here, buffer[wrapBlock:])
	}
	return out
}

// unwrapKey is RFC 3394 section 2.2.2. wrapped is at least 16 bytes and a
// multiple of 8. Every error is errWrapped.
func unwrapKey(key, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errWrapped
	}
	check := append(make([]byte, 0, wrapBlock), wrapped[:wrapBlock]...)
	out := append(make([]byte, 0, len(wrapped)-wrapBlock), wrapped[wrapBlock:]...)
	buffer := make([]byte, aes.BlockSize)
	blocks := len(out) / wrapBlock
	for step := wrapSteps*blocks - 1; step >= 0; step-- {
		here := out[(step%blocks)*wrapBlock:][:wrapBlock]
		binary.BigEndian.PutUint64(buffer, binary.BigEndian.Uint64(check)^uint64(step+1))
		copy(buffer[wrapBlock:], here)
		block.Decrypt(buffer, buffer)
		copy(check, buffer[:wrapBlock])
		copy(here, buffer[wrapBlock:])
	}
	want := [wrapBlock]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}
	if subtle.ConstantTimeCompare(check, want[:]) != 1 {
		return nil, errWrapped
	}
	return out, nil
}
