package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"pinseal/pki"
	"pinseal/signing"
	"pinseal/signing/encryption"
)

// encryptFlag is the --encrypt-to of pub and seal.
type encryptFlag struct {
	EncryptTo []string `help:"Encrypt to this recipient, by name or by a file with its public key; may be repeated." placeholder:"NAME"`
}

// cryptor encrypts what a client seals and opens what it receives.
type cryptor struct {
	files encryptionFiles
	rules []encryptRule
	to    []string // whatever the rules say
	keys  *encryption.Keys

	mu    sync.Mutex
	known map[string][]encryption.Recipient // by topic
}

// newCryptor reads the keys of a client.
func newCryptor(files encryptionFiles, rules []encryptRule, to []string) (*cryptor, error) {
	c := &cryptor{files: files, rules: rules, to: to, known: map[string][]encryption.Recipient{}}
	var err error
	c.keys, err = files.keys()
	return c, err
}

// recipients is whom a message on this topic is encrypted to; nobody means not at all. Their keys are read once.
func (c *cryptor) recipients(topic string) ([]encryption.Recipient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to, ok := c.known[topic]; ok {
		return to, nil
	}
	names := c.to
	if i := slices.IndexFunc(c.rules, func(r encryptRule) bool { return r.covers(topic) }); i >= 0 && len(names) == 0 {
		names = strs(c.rules[i].To)
	}
	var to []encryption.Recipient
	for _, name := range names {
		r, err := c.recipient(name)
		if err != nil {
			return nil, err
		}
		to = append(to, r)
	}
	c.known[topic] = to
	return to, nil
}

func (c *cryptor) recipient(nameOrFile string) (encryption.Recipient, error) {
	if pki.ValidName(nameOrFile) {
		return c.files.recipient(nameOrFile)
	}
	keys, err := readKeys(nameOrFile, encryption.ParsePublicKeys)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("%s is neither a name nor a file", nameOrFile)
	}
	if err != nil {
		return nil, withHint(err, "a PUBLIC KEY block of P-256 or X25519, as pinseal recipient show prints it")
	}
	return keys[len(keys)-1], nil
}

// seal seals claims whose message is in the clear, encrypted where that is to be.
func (c *cryptor) seal(key *signing.PrivateKey, claims signing.Claims) ([]byte, error) {
	to, err := c.recipients(claims.Topic)
	if err != nil {
		return nil, err
	}
	if len(to) > 0 {
		b := encryption.Binding{Topic: claims.Topic, KeyID: key.Public().ID(), Sequence: claims.Sequence}
		if claims.Message, err = encryption.Encrypt(to, b, claims.Message); err != nil {
			return nil, err
		}
	}
	return signing.Seal(key, claims)
}

// value is what a verified message says.
func (c *cryptor) value(m *signing.Message) ([]byte, error) {
	if !encryption.Encrypted(m.JSON()) {
		return m.JSON(), nil
	}
	value, err := c.keys.Decrypt(m.JSON(), encryption.BindingOf(m))
	if errors.Is(err, encryption.ErrNotForUs) {
		return nil, errOthers
	}
	return value, err
}

var errOthers = errors.New("encrypted to others")
