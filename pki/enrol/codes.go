package enrol

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
)

const (
	// DefaultCodeLifetime is how long a code can be used.
	DefaultCodeLifetime = 15 * time.Minute
	maxCodes            = 4096
	// keepSpent is how long a spent code is remembered, to tell who uses it what is wrong.
	keepSpent = 24 * time.Hour
)

// NewCode draws a one-time code or a token: 26 characters of RFC 4648's base32,
// 130 bits.
func NewCode() string { return rand.Text() }

// HashCode is how codes and tokens are kept. A fast hash will do: nobody guesses
// 130 bits.
func HashCode(code string) string {
	sum := sha256.Sum256([]byte(strings.ToUpper(code)))
	return hex.EncodeToString(sum[:])
}

func sameHash(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// Codes are the one-time codes of devices that are about to join, at most one a
// name, kept hashed in a file. It is safe for concurrent use by one process.
type Codes struct {
	path string

	mu    sync.Mutex
	codes map[string]code // by name
}

type code struct {
	Name    string    `json:"name"`
	Hash    string    `json:"hash"`
	Expires time.Time `json:"expires"`
	Used    bool      `json:"used"`
}

// OpenCodes reads the codes of a file, which the first code creates with mode 0600.
func OpenCodes(path string) (*Codes, error) {
	c := &Codes{path: path, codes: map[string]code{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the join codes: %w", err)
	}
	var list []code
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("reading the join codes %s: %w", path, err)
	}
	for _, one := range list {
		c.codes[one.Name] = one
	}
	return c, nil
}

// Add lets name join once with the code of this hash, until it expires. An
// earlier code of the name is void. When it returns nil, the code is on the disk.
func (c *Codes) Add(name, hash string, expires, now time.Time) error {
	if raw, err := hex.DecodeString(hash); err != nil || len(raw) != sha256.Size || !pki.ValidName(name) {
		return errors.New("not a name and the hash of a code")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, one := range c.codes {
		if now.Sub(one.Expires) > keepSpent {
			delete(c.codes, other)
		}
	}
	if len(c.codes) >= maxCodes {
		return fmt.Errorf("%d devices are about to join already", len(c.codes))
	}
	return c.set(code{name, hash, expires.UTC(), false})
}

// set changes a code on the disk first, then in memory.
func (c *Codes) set(changed code) error {
	list := []code{changed}
	for name, one := range c.codes {
		if name != changed.Name {
			list = append(list, one)
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("writing the join codes: %w", err)
	}
	if err := atomicfile.Write(c.path, data, 0o600); err != nil {
		return fmt.Errorf("writing the join codes: %w", err)
	}
	c.codes[changed.Name] = changed
	return nil
}

// Expects reports whether name can still join with a code that it was given.
func (c *Codes) Expects(name string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, known := c.codes[name]
	return known && !found.Used && !now.After(found.Expires)
}

// Check finds out whether name may join with this code now. Errors are a
// [*pki.RefusedError].
func (c *Codes) Check(name, given string, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.find(name, given, now)
	return err
}

// Use is Check for the one time that the code may be used: when it returns nil,
// it is on the disk that the code is spent.
func (c *Codes) Use(name, given string, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.find(name, given, now)
	if err != nil {
		return err
	}
	found.Used = true
	return c.set(found)
}

// find tells nothing of a code but to who has it.
func (c *Codes) find(name, given string, now time.Time) (code, error) {
	found, known := c.codes[name]
	if !known {
		found.Hash = HashCode("") // no code is empty; it takes as long as with a code
	}
	switch {
	case !sameHash(HashCode(given), found.Hash) || !known:
		return code{}, refuse(ReasonWrongCode, "this is not the code of %.64q", name)
	case found.Used:
		return code{}, refuse(ReasonUsedCode, "the code was used; ask for another one")
	case now.After(found.Expires):
		return code{}, refuse(ReasonExpiredCode, "the code expired at %s; ask for another one", found.Expires.Format("15:04 UTC"))
	}
	return found, nil
}
