package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/signing/encryption"
)

// encryption gives the new device the [[encrypt]] blocks that concern it, and the keys they name.
func (c *deviceAddCmd) encryption(l layout, cfg *config, client *clientConfig) (fileSet, error) {
	w, err := cfg.welcome(l, c.Name, client.Topics)
	if err != nil {
		return nil, err
	}
	client.Encrypt = w.Encrypt
	return w.files(bundle{dir: c.Out}), nil
}

// welcome is what a new device is told about encryption.
type welcome struct {
	Encrypt    []encryptRule     `json:"encrypt"`
	Recipients map[string]string `json:"recipients"` // public keys, PEM, by name
	Shared     map[string]string `json:"shared"`     // shared keys by name
}

// welcome finds the [[encrypt]] blocks that concern a device that may command on topics, and the keys they name.
func (c *config) welcome(l layout, device string, topics []topicName) (welcome, error) {
	w := welcome{Recipients: map[string]string{}, Shared: map[string]string{}}
	names := []string{string(c.Node)}
	for _, r := range c.Encrypt {
		if r.concerns(device, topics) {
			w.Encrypt = append(w.Encrypt, encryptRule{Topics: r.Topics, To: r.To})
			names = append(names, strs(r.To)...)
		}
	}
	slices.Sort(names)
	here := l.encryption()
	for _, name := range slices.Compact(names) {
		into, path := w.Recipients, here.publicKey(name)
		if name == device {
			continue
		}
		if !exists(path) {
			into, path = w.Shared, here.sharedKey(name)
		}
		data, err := os.ReadFile(path)
		switch {
		case err == nil:
			into[name] = string(data)
		case !errors.Is(err, fs.ErrNotExist):
			return w, fmt.Errorf("reading the key of a recipient: %w", err)
		case name != string(c.Node): // a node of an earlier version has no key
			_, err := here.recipient(name)
			return w, err
		}
	}
	return w, nil
}

// files are those of the device's bundle.
func (w welcome) files(b bundle) fileSet {
	var files fileSet
	for name, key := range w.Recipients {
		files = append(files, newFile{b.encryption().publicKey(name), []byte(key), 0o644})
	}
	for name, key := range w.Shared {
		files = append(files, newFile{b.encryption().sharedKey(name), []byte(key), 0o600})
	}
	return files
}

// check wants of a welcome what a device may write down.
func (w welcome) check() error {
	for _, r := range w.Encrypt {
		for _, filter := range r.Topics {
			if err := filter.check(); err != nil {
				return err
			}
		}
		for _, to := range r.To {
			if err := to.check(); err != nil {
				return err
			}
		}
	}
	for recipient, key := range w.Recipients {
		if _, err := encryption.ParsePublicKeys([]byte(key)); err != nil || !pki.ValidName(recipient) {
			return errors.Join(fmt.Errorf("recipient %.80q is no name, or has no key", recipient), err)
		}
	}
	for shared, key := range w.Shared {
		if _, err := encryption.ParseSharedKeys([]byte(key)); err != nil || !pki.ValidName(shared) {
			return errors.Join(fmt.Errorf("shared key %.80q is no name, or has no key", shared), err)
		}
	}
	return nil
}

// concerns reports whether a rule can cover what a device publishes.
func (r encryptRule) concerns(device string, topics []topicName) bool {
	return slices.ContainsFunc(r.Topics, func(f topicFilter) bool {
		return overlap(string(f), "telemetry/"+device+"/#") ||
			slices.ContainsFunc(topics, func(t topicName) bool { return overlap(string(f), string(t)) })
	})
}

// overlap reports whether some topic matches both filters.
func overlap(a, b string) bool {
	left, right := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; ; i++ {
		switch {
		case i < len(left) && left[i] == "#", i < len(right) && right[i] == "#":
			return true // a/# covers a too
		case i == len(left) || i == len(right):
			return len(left) == len(right)
		case left[i] != right[i] && left[i] != "+" && right[i] != "+":
			return false
		}
	}
}

// addRecipient has the node encrypt to the new device, and no longer to an earlier one of that name.
func (c *deviceAddCmd) addRecipient(l layout, key *encryption.PublicKey) error {
	files := l.encryption()
	if _, err := makeFolder(files.others); err != nil {
		return err
	}
	return atomicfile.Write(files.publicKey(c.Name), key.PEM(), 0o644)
}
