package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/signing"
	"pinseal/signing/replay"
)

type signerCmd struct {
	Add    signerAddCmd    `cmd:"" help:"Trust a public key; a second one for the same name is a rotation."`
	List   signerListCmd   `cmd:"" help:"List who is trusted and what they may do."`
	Show   signerShowCmd   `cmd:"" help:"Print a signer's public keys."`
	Revoke signerRevokeCmd `cmd:"" help:"Trust a signer's keys no longer."`
	Reset  signerResetCmd  `cmd:"" help:"Forget the highest numbers of a signer's keys."`
}

type signerAddCmd struct {
	dirFlag
	Name string `arg:"" help:"Name of the signer."`
	File string `arg:"" help:"Its public key or keys (PEM); - is standard input."`
}

// Run adds the keys of a file to a signer's and has the running node read them.
func (c *signerAddCmd) Run(std streams) error {
	if !pki.ValidName(c.Name) {
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.Name)
	}
	data, err := c.read(std.in)
	if err != nil {
		return err
	}
	if _, err := signing.ParsePrivateKey(data); err == nil {
		return withHint(errors.New("that is a private key: it should never leave its machine"), "openssl pkey -in FILE -pubout gives the public one")
	}
	l := c.placed()
	if !exists(l.config) {
		return noConfiguration(l.config)
	}
	if _, err := makeFolder(l.signers); err != nil {
		return err
	}
	var keys []*signing.PublicKey
	err = alone(l.signers, func() (err error) {
		keys, err = c.trust(l, data)
		return err
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		fmt.Fprintf(std.out, "%s is trusted with key %s (%s)\n", c.Name, key.ID(), key.Algorithm())
	}
	return tellNode(std, l, c.dirFlag)
}

// trust writes the keys behind those that the signer has.
func (c *signerAddCmd) trust(l layout, data []byte) ([]*signing.PublicKey, error) {
	keys, err := newKeys(l, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	if err := notForEncryption(l.encryption(), c.Name, keys); err != nil {
		return nil, err
	}
	denied, err := readDenied(l)
	if err != nil {
		return nil, err
	}
	if _, is := denied.Since(c.Name); is {
		return nil, withHint(fmt.Errorf("%s was revoked, its keys are not trusted", c.Name), "admit it first: %s", c.command("device add "+c.Name))
	}
	var text []byte
	if old, err := os.ReadFile(l.signer(c.Name)); err == nil {
		text = old
	}
	for _, key := range keys {
		text = append(text, key.PEM()...)
	}
	return keys, atomicfile.Write(l.signer(c.Name), text, 0o644)
}

func (c *signerAddCmd) read(in io.Reader) ([]byte, error) {
	if c.File == "-" {
		return io.ReadAll(io.LimitReader(in, 1<<20))
	}
	data, err := os.ReadFile(c.File)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	return data, nil
}

// newKeys parses the keys and refuses those that are trusted already, under whatever name.
func newKeys(l layout, data []byte) ([]*signing.PublicKey, error) {
	keys, err := signing.ParsePublicKeys(data)
	if err != nil {
		return nil, withHint(err, "a PUBLIC KEY block of a P-256 or secp256k1 key, as openssl pkey -pubout writes it")
	}
	keyring, err := readKeyring(l)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if known, ok := keyring.Lookup(key.ID()); ok {
			return nil, fmt.Errorf("the key %s is trusted already, as %s", key.ID(), known.Name)
		}
		if exists(revokedKey(l, key.ID())) {
			return nil, withHint(fmt.Errorf("the key %s was revoked", key.ID()), "make a new key; or, if it was revoked by mistake, remove %s", revokedKey(l, key.ID()))
		}
	}
	return keys, nil
}

// notForEncryption refuses to trust a key for signing that others encrypt to: it would open messages and vouch for them.
func notForEncryption(files encryptionFiles, signer string, keys []*signing.PublicKey) error {
	var signers []signing.Signer
	for _, key := range keys {
		signers = append(signers, signing.Signer{Name: signer, Key: key})
	}
	keyring, err := signing.NewKeyring(signers...)
	if err != nil {
		return err
	}
	ids, err := files.publicIDs()
	if err != nil {
		return err
	}
	return separate(ids, keyring)
}

// readKeyring reads the signers that the operator trusts and the devices that joined. Who took the node over cannot pass
// for one of the former: where both have a file of a name, the operator's counts.
func readKeyring(l layout) (*signing.Keyring, error) {
	var all []signing.Signer
	// With --dir both are one folder.
	for _, dir := range slices.Compact([]string{l.signers, l.joined()}) {
		if !exists(dir) {
			continue
		}
		keyring, err := signing.ReadKeyring(dir)
		if err != nil {
			return nil, err
		}
		for _, s := range keyring.Signers() {
			if l.signer(s.Name) == filepath.Join(dir, s.Name+".pem") {
				all = append(all, s)
			}
		}
	}
	return signing.NewKeyring(all...)
}

type signerListCmd struct {
	dirFlag
	listFlag
}

// Run lists name, algorithm, key and rights.
func (c *signerListCmd) Run(std streams) error {
	l := c.placed()
	cfg, err := readConfig(l.config)
	if err != nil {
		return err
	}
	keyring, err := readKeyring(l)
	if err != nil {
		return err
	}
	table := c.table(std.out, "SIGNER", "ALGORITHM", "KEY", "MAY")
	for _, s := range keyring.Signers() {
		table.row(s.Name, string(s.Key.Algorithm()), s.Key.ID(), cfg.rights(s.Name))
	}
	return table.flush()
}

// rights is what a signer may command, in one line.
func (c *config) rights(signer string) string {
	text := ""
	for _, p := range c.Permits {
		if string(p.Signer) != signer {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%s (%s)", p.Output, strings.Trim(fmt.Sprint(p.Actions), "[]"))
	}
	return text
}

type signerShowCmd struct {
	dirFlag
	Name string `arg:"" help:"Name of the signer."`
}

// Run prints the public keys in PEM, ready for signer add elsewhere.
func (c *signerShowCmd) Run(std streams) error {
	keys, err := signerKeys(c.placed(), c.Name)
	if err != nil {
		return err
	}
	for _, key := range keys {
		fmt.Fprintf(std.out, "%s", key.PEM())
	}
	return nil
}

// signerKeys reads the keys of one signer.
func signerKeys(l layout, signer string) ([]*signing.PublicKey, error) {
	if !pki.ValidName(signer) {
		return nil, usagef("%q is not a name", signer)
	}
	data, err := os.ReadFile(l.signer(signer))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(fmt.Errorf("no signer is named %s", signer), "pinseal signer list shows who is trusted")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the signer's keys: %w", err)
	}
	keys, err := signing.ParsePublicKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.signer(signer), err)
	}
	return keys, nil
}

type signerRevokeCmd struct {
	dirFlag
	Name string `arg:"" help:"Name of the signer."`
}

// Run remembers the keys as revoked, then takes them out of the trusted ones.
func (c *signerRevokeCmd) Run(std streams) error {
	l := c.placed()
	if err := revokeSigner(l, c.Name); err != nil {
		return err
	}
	if err := c.share(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s is trusted no longer\n", c.Name)
	return tellNode(std, l, c.dirFlag)
}

func revokeSigner(l layout, name string) error {
	if _, err := signerKeys(l, name); err != nil {
		return err
	}
	if _, err := makeFolder(filepath.Dir(revokedKey(l, ""))); err != nil {
		return err
	}
	return alone(l.signers, func() error {
		keys, err := signerKeys(l, name)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := atomicfile.Write(revokedKey(l, key.ID()), key.PEM(), 0o644); err != nil {
				return err
			}
		}
		if err := os.Remove(l.signer(name)); err != nil {
			return fmt.Errorf("revoking: %w", err)
		}
		return nil
	})
}

// revokedKey is where a revoked key is remembered, beside the trusted ones.
func revokedKey(l layout, keyID string) string {
	return filepath.Join(l.signers, "revoked", keyID+".pem")
}

type signerResetCmd struct {
	dirFlag
	Name string `arg:"" help:"Name of the signer."`
}

// Run has the running node forget, or does it itself when the node is down.
func (c *signerResetCmd) Run(std streams) error {
	l := c.placed()
	keys, err := signerKeys(l, c.Name)
	if err != nil {
		return err
	}
	for _, key := range keys {
		err := askNode(l.control(), "reset", key.ID())
		if errors.Is(err, errNotRunning) {
			err = errors.Join(resetOffline(l, key.ID()), c.share())
		}
		if err != nil {
			return fmt.Errorf("forgetting the numbers of %s: %w", c.Name, err)
		}
	}
	fmt.Fprintf(std.out, "the numbers of %s are forgotten\n", c.Name)
	return nil
}

func resetOffline(l layout, keyID string) error {
	store, err := replay.Open(l.stateDB(), replay.Options{})
	if err != nil {
		return err
	}
	return errors.Join(store.Reset(keyID), store.Close())
}

// tellNode has a running node read signers and policy again; without one there is nothing to do.
func tellNode(std streams, l layout, dir dirFlag) error {
	err := askNode(l.control(), "reload")
	if errors.Is(err, errNotRunning) {
		return nil
	}
	if err != nil {
		return withHint(fmt.Errorf("the files are written, but the running node refused them: %w", err), "mend that, then reload: systemctl reload pinseal, or restart: %s", dir.command("run"))
	}
	fmt.Fprintln(std.out, "the running node knows")
	return nil
}
