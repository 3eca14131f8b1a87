package signing

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const pemSuffix = ".pem"

// Signer is a trusted key and the name of the party it belongs to. A party may
// have several keys, during a rotation for example.
type Signer struct {
	Name string
	Key  *PublicKey
}

// Keyring is the set of trusted keys, looked up by kid. It does not change and
// is safe for concurrent use.
type Keyring struct {
	byKID  map[string]Signer
	sorted []Signer
}

// NewKeyring makes a keyring. A key given twice is an error: under two names it
// would be unclear who speaks.
func NewKeyring(signers ...Signer) (*Keyring, error) {
	r := &Keyring{byKID: make(map[string]Signer, len(signers)), sorted: slices.Clone(signers)}
	for _, s := range signers {
		if s.Key == nil {
			return nil, fmt.Errorf("signer %s has no key", s.Name)
		}
		if other, ok := r.byKID[s.Key.ID()]; ok {
			return nil, fmt.Errorf("the key %s is given twice, for %s and for %s", s.Key.ID(), other.Name, s.Name)
		}
		r.byKID[s.Key.ID()] = s
	}
	slices.SortFunc(r.sorted, func(a, b Signer) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Key.ID(), b.Key.ID()))
	})
	return r, nil
}

// ReadKeyring reads every file NAME.pem of a folder; each holds the public keys
// of the signer NAME (1 to 64 of A–Z a–z 0–9 _ -). Other files, and those whose
// name begins with a dot, are left alone. Errors name the file.
func ReadKeyring(dir string) (*Keyring, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading signers: %w", err)
	}
	var signers []Signer
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), pemSuffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		file := filepath.Join(dir, entry.Name())
		keys, err := readSigner(file, name)
		if errors.Is(err, fs.ErrNotExist) && entry.Type().IsRegular() { // not a link that leads nowhere
			continue // it has gone since the folder was read: such as one of several that are revoked at the same time
		}
		if err != nil {
			return nil, fmt.Errorf("reading signer %s: %w", file, err)
		}
		signers = append(signers, keys...)
	}
	r, err := NewKeyring(signers...)
	if err != nil {
		return nil, fmt.Errorf("reading signers in %s: %w", dir, err)
	}
	return r, nil
}

func readSigner(file, name string) ([]Signer, error) {
	if len(name) > 64 || strings.Trim(name, base64Alphabet) != "" {
		return nil, errors.New("a signer's name is 1 to 64 of A-Z a-z 0-9 _ -")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	keys, err := ParsePublicKeys(data)
	if err != nil {
		return nil, err
	}
	signers := make([]Signer, len(keys))
	for i, key := range keys {
		signers[i] = Signer{Name: name, Key: key}
	}
	return signers, nil
}

// Lookup returns the signer whose key has this kid.
func (r *Keyring) Lookup(kid string) (Signer, bool) {
	s, ok := r.byKID[kid]
	return s, ok
}

// Signers returns all signers by name, in a slice of the caller's own.
func (r *Keyring) Signers() []Signer { return slices.Clone(r.sorted) }

// Open parses raw, looks its key up, verifies it and checks that it is for
// topic ("" leaves that out). What the signer may do, freshness and replays are
// still to be judged. Every error is a *[RefusedError].
func Open(raw []byte, topic string, r *Keyring) (*Message, Signer, error) {
	sealed, err := Parse(raw)
	if err != nil {
		return nil, Signer{}, err
	}
	signer, ok := r.Lookup(sealed.KeyID())
	if !ok {
		return nil, Signer{}, Refuse(ReasonUnknownKey, "no trusted key has the kid %s", sealed.KeyID())
	}
	message, err := sealed.Verify(signer.Key)
	if err != nil {
		return nil, Signer{}, err
	}
	if topic == "" {
		return message, signer, nil
	}
	if err := message.CheckTopic(topic); err != nil {
		return nil, Signer{}, err
	}
	return message, signer, nil
}
