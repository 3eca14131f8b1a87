package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/signing/encryption"
)

type recipientCmd struct {
	List   recipientListCmd   `cmd:"" help:"List who can be encrypted to, and the keys that are here."`
	Add    recipientAddCmd    `cmd:"" help:"Encrypt to a public key; a second one for the same name is a rotation."`
	Show   recipientShowCmd   `cmd:"" help:"Print a recipient's public keys."`
	Remove recipientRemoveCmd `cmd:"" help:"Encrypt to a recipient, or with a shared key, no longer."`
	Rotate recipientRotateCmd `cmd:"" help:"Make a new private key; the old ones still open. Prints the public one."`
	Share  recipientShareCmd  `cmd:"" help:"Make a shared key, or a further one that takes its place; the old ones still open."`
}

// keyPlace says whose keys: the node's, or those of a bundle.
type keyPlace struct {
	dirFlag
	Bundle string `help:"The keys of this bundle instead of the node's." placeholder:"FOLDER"`
}

// files also gives the name of the party that the keys are of.
func (p keyPlace) files() (files encryptionFiles, self string, err error) {
	if p.Bundle != "" {
		b, err := readBundle(p.Bundle)
		return b.encryption(), string(b.client.Name), err
	}
	cfg, err := readConfig(p.layout().config)
	if err != nil {
		return files, "", withHint(err, "on the node; or --bundle FOLDER for the keys of a bundle")
	}
	return cfg.place(p.layout()).encryption(), string(cfg.Node), nil
}

// done has the node's service own what was written, and the running node read it.
func (p keyPlace) done(std streams) error {
	if p.Bundle != "" {
		return nil
	}
	if err := p.share(); err != nil {
		return err
	}
	return tellNode(std, p.layout(), p.dirFlag)
}

// alone changes keys while nobody else does.
func (p keyPlace) alone(files encryptionFiles, change func() error) error {
	if _, err := makeFolder(files.others); err != nil {
		return err
	}
	return alone(files.others, change)
}

// write writes a file of keys.
func (p keyPlace) write(path string, data []byte, perm os.FileMode) error {
	if _, err := makeFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return atomicfile.Write(path, data, perm)
}

type recipientListCmd struct {
	keyPlace
	listFlag
}

// Run lists names and keys, the one that is encrypted to last.
func (c *recipientListCmd) Run(std streams) error {
	files, self, err := c.files()
	if err != nil {
		return err
	}
	table := c.table(std.out, "RECIPIENT", "KIND", "KEY")
	private, err := readKeys(files.own, encryption.ParsePrivateKeys)
	if err != nil {
		return err
	}
	for _, key := range private {
		table.row(self, "private", key.Public().ID())
	}
	for _, name := range files.publicNames() {
		keys, err := readKeys(files.publicKey(name), encryption.ParsePublicKeys)
		if err != nil {
			return err
		}
		for _, key := range keys {
			table.row(name, "public", key.ID())
		}
	}
	for _, name := range files.sharedNames() {
		keys, err := readKeys(files.sharedKey(name), encryption.ParseSharedKeys)
		if err != nil {
			return err
		}
		for _, key := range keys {
			table.row(name, "shared", key.ID())
		}
	}
	return table.flush()
}

type recipientAddCmd struct {
	keyPlace
	Name string `arg:"" help:"Name of the recipient."`
	File string `arg:"" help:"Its public key or keys (PEM; P-256 or X25519); - is standard input."`
}

// Run adds the keys of a file behind those that are known.
func (c *recipientAddCmd) Run(std streams) error {
	if !pki.ValidName(c.Name) {
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.Name)
	}
	files, _, err := c.files()
	if err != nil {
		return err
	}
	data, err := c.read(std.in)
	if err != nil {
		return fmt.Errorf("reading the key: %w", err)
	}
	if _, err := encryption.ParsePrivateKeys(data); err == nil {
		return withHint(errors.New("that is a private key: it should never leave its machine"), "openssl pkey -in FILE -pubout gives the public one")
	}
	added, err := encryption.ParsePublicKeys(data)
	if err != nil {
		return withHint(err, "a PUBLIC KEY block of P-256 or X25519, as pinseal recipient show prints it")
	}
	err = c.alone(files, func() error {
		known, err := readKeys(files.publicKey(c.Name), encryption.ParsePublicKeys)
		if err != nil {
			return err
		}
		var text []byte
		for _, key := range append(known, added...) {
			text = append(text, key.PEM()...)
		}
		return c.write(files.publicKey(c.Name), text, 0o644)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "messages to %s are encrypted to key %s\n", c.Name, added[len(added)-1].ID())
	return c.done(std)
}

func (c *recipientAddCmd) read(in io.Reader) ([]byte, error) {
	if c.File == "-" {
		return io.ReadAll(io.LimitReader(in, 1<<20))
	}
	return os.ReadFile(c.File)
}

type recipientShowCmd struct {
	keyPlace
	Name string `arg:"" help:"Name of the recipient."`
	JWK  bool   `name:"jwk" help:"As JSON Web Keys, one a line, for other software."`
}

// Run prints the public keys, the one that is encrypted to last.
func (c *recipientShowCmd) Run(std streams) error {
	files, _, err := c.files()
	if err != nil {
		return err
	}
	keys, err := readKeys(files.publicKey(c.Name), encryption.ParsePublicKeys)
	if err == nil && len(keys) == 0 {
		err = withHint(fmt.Errorf("no public key of %s is here", c.Name), "pinseal recipient list shows what is; shared keys are secret, and not shown")
	}
	if err != nil {
		return err
	}
	for _, key := range keys {
		text := string(key.PEM())
		if c.JWK {
			text = key.JWK() + "\n"
		}
		fmt.Fprint(std.out, text)
	}
	return nil
}

type recipientRemoveCmd struct {
	keyPlace
	Name string `arg:"" help:"Name of the recipient, or of the shared key."`
}

// Run removes the keys of a name that no [[encrypt]] block needs.
func (c *recipientRemoveCmd) Run(std streams) error {
	files, self, err := c.files()
	if err != nil {
		return err
	}
	if c.Name == self {
		return usagef("%q is the owner of these keys", c.Name)
	}
	for _, path := range []string{files.publicKey(c.Name), files.sharedKey(c.Name)} {
		if !pki.ValidName(c.Name) || !exists(path) {
			continue
		}
		if err := c.unused(); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing a recipient: %w", err)
		}
		fmt.Fprintf(std.out, "nothing is encrypted to %s any more\n", c.Name)
		return c.done(std)
	}
	return withHint(fmt.Errorf("no recipient is named %s", c.Name), "pinseal recipient list shows them")
}

// unused refuses what would leave a configuration without a key it names.
func (c *recipientRemoveCmd) unused() error {
	rules, where := []encryptRule(nil), c.layout().config
	if c.Bundle != "" {
		b, err := readBundle(c.Bundle)
		if err != nil {
			return err
		}
		rules, where = b.client.Encrypt, filepath.Join(c.Bundle, "client.toml")
	} else {
		cfg, err := readConfig(where)
		if err != nil {
			return err
		}
		rules = cfg.Encrypt
	}
	for _, r := range rules {
		for _, to := range r.To {
			if string(to) == c.Name {
				return fmt.Errorf("an [[encrypt]] block of %s names %s: take it out there first", where, c.Name)
			}
		}
	}
	return nil
}

type recipientRotateCmd struct {
	keyPlace
	Curve string `help:"${enum}. Who encrypts must know the new one too: programs from before X25519 do not." enum:"P-256,X25519" default:"P-256" placeholder:"CURVE"`
}

// Run writes the new private key behind the old ones, and its public half behind theirs.
func (c *recipientRotateCmd) Run(std streams) error {
	files, self, err := c.files()
	if err != nil {
		return err
	}
	generate := encryption.GenerateKey
	if c.Curve == "X25519" {
		generate = encryption.GenerateX25519Key
	}
	key, err := generate()
	if err != nil {
		return err
	}
	err = c.alone(files, func() error {
		private, err := readKeys(files.own, encryption.ParsePrivateKeys)
		if err != nil {
			return err
		}
		var secret, public []byte
		for _, k := range append(private, key) {
			secret, public = append(secret, k.PEM()...), append(public, k.Public().PEM()...)
		}
		// The private one first: nobody must be told of a key that does not open.
		if err := c.write(files.own, secret, 0o600); err != nil {
			return err
		}
		return c.write(files.publicKey(self), public, 0o644)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(std.err, "%s has a new key; whoever encrypts to it needs: pinseal recipient add %s FILE\n", self, self)
	fmt.Fprintf(std.out, "%s", key.Public().PEM())
	return c.done(streams{in: std.in, out: std.err, err: std.err, now: std.now})
}

type recipientShareCmd struct {
	keyPlace
	Name string `arg:"" help:"Name of the shared key."`
}

// Run makes a shared key, behind those of the same name.
func (c *recipientShareCmd) Run(std streams) error {
	if !pki.ValidName(c.Name) {
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.Name)
	}
	files, _, err := c.files()
	if err != nil {
		return err
	}
	err = c.alone(files, func() error {
		if exists(files.publicKey(c.Name)) {
			return fmt.Errorf("%s is a recipient with a key of its own", c.Name)
		}
		keys, err := readKeys(files.sharedKey(c.Name), encryption.ParseSharedKeys)
		if err != nil {
			return err
		}
		var text []byte
		for _, key := range append(keys, encryption.GenerateSharedKey()) {
			text = append(text, key.PEM()...)
		}
		return c.write(files.sharedKey(c.Name), text, 0o600)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "the key is %s; whoever shares it needs a copy\n", files.sharedKey(c.Name))
	return c.done(std)
}
