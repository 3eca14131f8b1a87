package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"pinseal/internal/atomicfile"
)

// encryption gives the new device the [[encrypt]] blocks that concern it, and the keys they name.
func (c *deviceAddCmd) encryption(l layout, cfg *config, client *clientConfig) (fileSet, error) {
	names := []string{string(cfg.Node)}
	for _, r := range cfg.Encrypt {
		if !c.concerns(r, client) {
			continue
		}
		client.Encrypt = append(client.Encrypt, encryptRule{Topics: r.Topics, To: r.To})
		names = append(names, strs(r.To)...)
	}
	slices.Sort(names)
	var files fileSet
	here, there := l.encryption(), clientFiles(c.Out)
	for _, name := range slices.Compact(names) {
		switch {
		case name == c.Name:
		case exists(here.publicKey(name)):
			data, err := os.ReadFile(here.publicKey(name))
			if err != nil {
				return nil, fmt.Errorf("reading a recipient: %w", err)
			}
			files = append(files, newFile{there.publicKey(name), data, 0o644})
		case exists(here.sharedKey(name)):
			data, err := os.ReadFile(here.sharedKey(name))
			if err != nil {
				return nil, fmt.Errorf("reading a shared key: %w", err)
			}
			files = append(files, newFile{there.sharedKey(name), data, 0o600})
		case name != string(cfg.Node): // a node of an earlier version has no key
			_, err := here.recipient(name)
			return nil, err
		}
	}
	return files, nil
}

// concerns reports whether a rule can cover what the device publishes.
func (c *deviceAddCmd) concerns(r encryptRule, client *clientConfig) bool {
	return slices.ContainsFunc(r.Topics, func(f topicFilter) bool {
		return overlap(string(f), "telemetry/"+c.Name+"/#") ||
			slices.ContainsFunc(client.Topics, func(t topicName) bool { return overlap(string(f), string(t)) })
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
func (c *deviceAddCmd) addRecipient(l layout) error {
	files := l.encryption()
	if _, err := makeFolder(files.others); err != nil {
		return err
	}
	return atomicfile.Write(files.publicKey(c.Name), c.openKey.PEM(), 0o644)
}
