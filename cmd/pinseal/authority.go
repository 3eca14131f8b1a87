package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
)

const (
	// passphraseCredential is the systemd credential with the passphrase of the authority's key.
	passphraseCredential = "ca.passphrase"
	// passphraseVariable has it for scripts.
	passphraseVariable = "PINSEAL_CA_PASSPHRASE" //nolint:gosec // its name
)

// openAuthority is an authority whose key was read, and the passphrase it was under, if any.
type openAuthority struct {
	*pki.Authority
	passphrase []byte
}

// keyText is how a key is written that takes the place of this one's.
func (a openAuthority) keyText(of *pki.Authority) ([]byte, error) {
	if a.passphrase == nil {
		return of.KeyPEM()
	}
	return of.KeyUnder(a.passphrase)
}

func readAuthority(l layout) (*pki.Authority, error) {
	opened, err := unlockAuthority(l)
	return opened.Authority, err
}

func unlockAuthority(l layout) (openAuthority, error) {
	certificates, key, err := readAuthorityFiles(l)
	if err != nil {
		return openAuthority{}, err
	}
	return unlock(certificates, key, l.caKey())
}

// unlock reads a key, asking for its passphrase if it has one.
func unlock(certificates, keyText []byte, path string) (openAuthority, error) {
	var passphrase []byte
	key, err := pki.ParseKey(keyText)
	if errors.Is(err, pki.ErrEncrypted) {
		if passphrase, err = readPassphrase(); err != nil {
			return openAuthority{}, err
		}
		key, err = pki.DecryptKey(keyText, passphrase)
	}
	if err != nil {
		return openAuthority{}, fmt.Errorf("%s: %w", path, err)
	}
	authority, err := pki.NewAuthority(certificates, key)
	return openAuthority{authority, passphrase}, err
}

func readAuthorityFiles(l layout) (certificates, key []byte, err error) {
	certificates, err = os.ReadFile(l.caCert())
	if err != nil {
		return nil, nil, withHint(fmt.Errorf("reading the authority: %w", err), "devices are added on the node; pinseal init made its authority")
	}
	key, err = os.ReadFile(keyForCommands(authorityCredential, l.caKey()))
	if err != nil {
		return nil, nil, withHint(fmt.Errorf("reading the authority's key: %w", err), "it must be readable: for the service, sudo pinseal install hands it over while [enrol] is on; for a command, sudo")
	}
	return certificates, key, nil
}

// readPassphrase asks systemd, the environment, and whoever sits at the terminal.
func readPassphrase() ([]byte, error) {
	if path := keyForCommands(passphraseCredential, ""); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		return bytes.TrimRight(text, "\r\n"), nil
	}
	if text := os.Getenv(passphraseVariable); text != "" {
		return []byte(text), nil
	}
	if _, ok := terminal(os.Stdin); !ok {
		return nil, withHint(errors.New("the authority's key is under a passphrase"), "give it as systemd's credential %s, or in %s", passphraseCredential, passphraseVariable)
	}
	fmt.Fprint(os.Stderr, "Passphrase of the authority's key: ")
	text, err := readUnseen(os.Stdin)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	return text, nil
}

// authorityCache keeps a node from asking for the passphrase again, and from spending seconds on it, while the files are
// the same.
type authorityCache struct {
	mu        sync.Mutex
	sum       [sha256.Size]byte
	authority *pki.Authority
}

// authority is that of the node's files.
func (n *node) authority() (*pki.Authority, error) {
	certificates, key, err := readAuthorityFiles(n.layout)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(bytes.Join([][]byte{certificates, key}, []byte{0}))
	c := &n.opened
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.authority == nil || c.sum != sum {
		authority, err := readAuthority(n.layout)
		if err != nil {
			return nil, err
		}
		c.authority, c.sum = authority, sum
	}
	return c.authority, nil
}

type caProtectCmd struct {
	dirFlag
	Remove bool `help:"Take the passphrase away."`
}

// Run writes the authority's key anew, under a passphrase or without.
func (c *caProtectCmd) Run(std streams) error {
	l := c.layout()
	opened, err := unlockAuthority(l)
	if err != nil {
		return err
	}
	text, err := opened.KeyPEM()
	if !c.Remove {
		passphrase, readErr := readPassword(std)
		if readErr != nil {
			return readErr
		}
		text, err = opened.KeyUnder([]byte(passphrase))
	}
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFor(l.caKey(), l.caKey(), text, 0o600); err != nil {
		return err
	}
	if err := c.share(); err != nil {
		return err
	}
	if c.Remove {
		fmt.Fprintln(std.out, "the authority's key is under no passphrase")
		return nil
	}
	fmt.Fprintln(std.out, "the authority's key is under the passphrase; what was on this disk before may still be found there")
	fmt.Fprintf(std.out, "next: where devices join, the service needs it: systemd-creds encrypt - /etc/credstore.encrypted/%s, and LoadCredentialEncrypted=%s in a drop-in\n", passphraseCredential, passphraseCredential)
	return nil
}
