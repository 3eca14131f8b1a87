package auth

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What new hashes cost: the second recommendation of RFC 9106 section 4 with the memory that a Pi Zero can spare.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	saltBytes    = 16
	argonBytes   = 32
)

// What a hash in a file may cost: beyond, a login would take minutes.
const (
	maxIterations  = 10_000_000
	maxArgonTime   = 100
	maxArgonMemory = 1 << 20 // KiB
)

// hash is one hashed password.
type hash struct {
	text   string
	sum    []byte
	derive func(password []byte) []byte
}

// matches compares in constant time.
func (h *hash) matches(password []byte) bool {
	return subtle.ConstantTimeCompare(h.derive(password), h.sum) == 1
}

// NewHash hashes a password with argon2id.
func NewHash(password []byte) string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	sum := argon2.IDKey(password, salt, argonTime, argonMemory, argonThreads, argonBytes)
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, encode(salt), encode(sum))
}

var errHash = errors.New("the hash is none that mosquitto_passwd 2.0 or pinseal passwd writes")

func parseHash(text string) (*hash, error) {
	parts := strings.Split(text, "$")
	switch {
	case len(parts) == 4 && parts[0] == "" && parts[1] == "6":
		return parseSalted(text, parts[2], parts[3])
	case len(parts) == 5 && parts[0] == "" && parts[1] == "7":
		return parsePBKDF2(text, parts[2], parts[3], parts[4])
	case len(parts) == 6 && parts[0] == "" && parts[1] == "argon2id" && parts[2] == fmt.Sprintf("v=%d", argon2.Version):
		return parseArgon(text, parts[3], parts[4], parts[5])
	}
	return nil, errHash
}

// decode takes both halves of a hash out of base64.
func decode(e *base64.Encoding, salt, sum string, size int) (saltBytes, sumBytes []byte, err error) {
	saltBytes, saltErr := e.DecodeString(salt)
	sumBytes, sumErr := e.DecodeString(sum)
	if saltErr != nil || sumErr != nil || len(saltBytes) == 0 || len(sumBytes) != size {
		return nil, nil, errHash
	}
	return saltBytes, sumBytes, nil
}

// parseSalted reads mosquitto's $6$: SHA-512 over password and salt.
func parseSalted(text, saltText, sumText string) (*hash, error) {
	salt, sum, err := decode(base64.StdEncoding, saltText, sumText, sha512.Size)
	if err != nil {
		return nil, err
	}
	return &hash{text, sum, func(password []byte) []byte {
		digest := sha512.New()
		digest.Write(password)
		digest.Write(salt)
		return digest.Sum(nil)
	}}, nil
}

// parsePBKDF2 reads mosquitto's $7$: PBKDF2 with HMAC-SHA-512 (RFC 8018).
func parsePBKDF2(text, iterationsText, saltText, sumText string) (*hash, error) {
	salt, sum, err := decode(base64.StdEncoding, saltText, sumText, sha512.Size)
	if err != nil {
		return nil, err
	}
	iterations, err := strconv.Atoi(iterationsText)
	if err != nil || iterations < 1 || iterations > maxIterations {
		return nil, errHash
	}
	return &hash{text, sum, func(password []byte) []byte {
		key, err := pbkdf2.Key(sha512.New, string(password), salt, iterations, sha512.Size)
		if err != nil { // only in a mode of operation that forbids short salts
			return nil
		}
		return key
	}}, nil
}

func parseArgon(text, costs, saltText, sumText string) (*hash, error) {
	salt, sum, err := decode(base64.RawStdEncoding, saltText, sumText, argonBytes)
	if err != nil {
		return nil, err
	}
	var memory, time uint32
	var threads uint8
	if _, err := fmt.Sscanf(costs, "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil {
		return nil, errHash
	}
	if canonical := fmt.Sprintf("m=%d,t=%d,p=%d", memory, time, threads); canonical != costs ||
		memory == 0 || memory > maxArgonMemory || time == 0 || time > maxArgonTime || threads == 0 {
		return nil, errHash
	}
	return &hash{text, sum, func(password []byte) []byte {
		return argon2.IDKey(password, salt, time, memory, threads, argonBytes)
	}}, nil
}
