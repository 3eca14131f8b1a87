package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pinseal/agent"
	"pinseal/pki"
	"pinseal/signing"
	"pinseal/signing/encryption"
)

// encryptRule is an [[encrypt]] block of pinseal.toml and of client.toml.
type encryptRule struct {
	Topics    []topicFilter `toml:"topics"`
	To        []name        `toml:"to"` // recipients, or shared keys
	Republish bool          `toml:"republish"`

	bundle string // that it came with, and with it its keys
}

func (r encryptRule) covers(topic string) bool {
	return slices.ContainsFunc(r.Topics, func(f topicFilter) bool { return agent.Matches(string(f), topic) })
}

// encryptRule is the block that counts for a topic.
func (c *config) encryptRule(topic string) (encryptRule, bool) {
	for _, r := range c.Encrypt {
		if r.covers(topic) {
			return r, true
		}
	}
	return encryptRule{}, false
}

func (c *config) checkEncrypt(data []byte) error {
	for i, r := range c.Encrypt {
		switch {
		case len(r.Topics) == 0:
			return at(data, place{"encrypt", i, "topics"}, "which topics are to be encrypted?")
		case len(r.To) == 0:
			return at(data, place{"encrypt", i, "to"}, "encrypted to whom? Write to = [\"NAME\", …]")
		}
	}
	return nil
}

// addEncryption gives a policy what the [[encrypt]] blocks say.
func (c *config) addEncryption(p *agent.Policy, files encryptionFiles) error {
	var err error
	if p.Keys, err = files.keys(); err != nil {
		return err
	}
	ids := p.Keys.IDs()
	for _, r := range c.Encrypt {
		files := files
		if r.bundle != "" {
			files = clientFiles(r.bundle)
		}
		to, err := files.recipients(slices.DeleteFunc(strs(r.To), c.denies))
		if err != nil {
			return err
		}
		for _, recipient := range to {
			ids = append(ids, recipient.ID())
		}
		if (r.Republish || c.commands(r)) && !slices.ContainsFunc(to, func(to encryption.Recipient) bool { return p.Keys.Has(to.ID()) }) {
			return withHint(fmt.Errorf("%s: the node cannot open what is encrypted to %v for %v", c.source.path, r.To, r.Topics),
				"commands and what is republished must be encrypted to %s as well", c.Node)
		}
		for _, filter := range r.Topics {
			p.Encryption = append(p.Encryption, agent.EncryptionRule{Filter: string(filter), To: to, Republish: r.Republish})
		}
	}
	return separate(ids, p.Keyring)
}

// separate wants a key to be for one thing: for signing or for encryption.
func separate(ids []string, signers *signing.Keyring) error {
	for _, id := range ids {
		if signer, ok := signers.Lookup(id); ok {
			return withHint(fmt.Errorf("the key %s is for encryption, and %s signs with it", id, signer.Name), "pinseal recipient rotate makes another one for encryption")
		}
	}
	return nil
}

// commands reports whether a block covers a topic that commands an output.
func (c *config) commands(r encryptRule) bool {
	return slices.ContainsFunc(c.Outputs, func(o outputConfig) bool {
		return o.Topic != "" && r.covers(string(o.Topic)) || r.covers(agent.SetTopic(string(c.Node), string(o.Name)))
	})
}

// encryptionFiles is where a party keeps its keys for encryption.
type encryptionFiles struct {
	own    string // private keys, the last one being its present one
	others string // folder of public keys, NAME.pem, its own among them
	shared string // folder of shared keys, shared-NAME.key
	joined string // folder of public keys that devices that joined have handed in; those of others count first
}

func (l layout) decryptKey() string { return filepath.Join(filepath.Dir(l.signKey()), "decrypt.key") }

func (l layout) encryption() encryptionFiles {
	return encryptionFiles{credential(decryptCredential, l.decryptKey()), l.recipients(), filepath.Dir(l.signKey()), l.joinedRecipients()}
}

func (l layout) recipients() string { return filepath.Join(filepath.Dir(l.signers), "recipients") }

func (b bundle) encryption() encryptionFiles {
	return encryptionFiles{filepath.Join(b.dir, "decrypt.key"), filepath.Join(b.dir, "recipients"), b.dir, ""}
}

// clientFiles are those of the bundle in dir.
func clientFiles(dir string) encryptionFiles { return bundle{dir: dir}.encryption() }

func (f encryptionFiles) publicKey(name string) string {
	path, joined := filepath.Join(f.others, name+".pem"), filepath.Join(f.joined, name+".pem")
	if f.joined != "" && !exists(path) && exists(joined) {
		return joined
	}
	return path
}

func (f encryptionFiles) sharedKey(name string) string {
	return filepath.Join(f.shared, sharedPrefix+name+sharedSuffix)
}

const sharedPrefix, sharedSuffix = "shared-", ".key"

// keys reads everything that messages can be opened with; none at all is fine.
func (f encryptionFiles) keys() (*encryption.Keys, error) {
	private, err := readKeys(f.own, encryption.ParsePrivateKeys)
	if err != nil {
		return nil, err
	}
	var shared []*encryption.SharedKey
	for _, name := range f.sharedNames() {
		keys, err := readKeys(f.sharedKey(name), encryption.ParseSharedKeys)
		if err != nil {
			return nil, err
		}
		shared = append(shared, keys...)
	}
	return encryption.NewKeys(private, shared), nil
}

func (f encryptionFiles) sharedNames() []string { return namesIn(f.shared, sharedPrefix, sharedSuffix) }

func (f encryptionFiles) publicNames() []string {
	names := append(namesIn(f.others, "", ".pem"), namesIn(f.joined, "", ".pem")...)
	slices.Sort(names)
	return slices.Compact(names)
}

// publicIDs are those of all keys that can be encrypted to.
func (f encryptionFiles) publicIDs() ([]string, error) {
	var ids []string
	for _, name := range f.publicNames() {
		known, err := readKeys(f.publicKey(name), encryption.ParsePublicKeys)
		if err != nil {
			return nil, err
		}
		for _, key := range known {
			ids = append(ids, key.ID())
		}
	}
	return ids, nil
}

// namesIn lists the names of files that are named so.
func namesIn(dir, prefix, suffix string) []string {
	if dir == "" {
		return nil
	}
	found, _ := filesIn(dir, prefix+"*"+suffix) // the pattern is well-formed
	var names []string
	for _, path := range found {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), prefix), suffix)
		if pki.ValidName(name) {
			names = append(names, name)
		}
	}
	return names
}

// recipients finds whom to encrypt to by name: the last public key, or the last shared one.
func (f encryptionFiles) recipients(names []string) ([]encryption.Recipient, error) {
	var to []encryption.Recipient
	for _, name := range names {
		r, err := f.recipient(name)
		if err != nil {
			return nil, err
		}
		to = append(to, r)
	}
	return to, nil
}

func (f encryptionFiles) recipient(name string) (encryption.Recipient, error) {
	if f.others == "" {
		return nil, usageError(withHint(fmt.Errorf("where is the key of %s?", name), "--bundle FOLDER has the keys of recipients, or give a file in the place of the name"))
	}
	public, err := readKeys(f.publicKey(name), encryption.ParsePublicKeys)
	if err != nil {
		return nil, err
	}
	shared, err := readKeys(f.sharedKey(name), encryption.ParseSharedKeys)
	switch {
	case err != nil:
		return nil, err
	case len(public) > 0 && len(shared) > 0:
		return nil, fmt.Errorf("%s is a recipient and a shared key: one of %s and %s must go", name, f.publicKey(name), f.sharedKey(name))
	case len(public) > 0:
		return public[len(public)-1], nil
	case len(shared) > 0:
		return shared[len(shared)-1], nil
	}
	return nil, withHint(fmt.Errorf("there is no key to encrypt to %s", name),
		"pinseal recipient add NAME FILE puts a public key into %s; pinseal recipient share NAME makes a shared one", f.others)
}

// readKeys reads a file of keys; one that is missing has none.
func readKeys[K any](path string, parse func([]byte) ([]K, error)) ([]K, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	keys, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}
