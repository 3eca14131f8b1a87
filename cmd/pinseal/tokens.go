package main

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/pki/enrol"
)

type deviceTokenCmd struct {
	dirFlag
	Name   string `arg:"" help:"Name of the operator or platform."`
	Revoke bool   `help:"Make its tokens void."`
}

// Run draws a token and prints it, once; what is kept is its hash.
func (c *deviceTokenCmd) Run(std streams) error {
	if !pki.ValidName(c.Name) {
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.Name)
	}
	l := c.layout()
	if _, err := readTokens(l); err != nil { // says best what is wrong
		return err
	}
	return alone(filepath.Dir(l.tokens()), func() error { return c.change(std, l) })
}

func (c *deviceTokenCmd) change(std streams, l layout) error {
	tokens, err := readTokens(l)
	if err != nil {
		return err
	}
	if c.Revoke {
		kept := slices.DeleteFunc(slices.Clone(tokens), func(t operatorToken) bool { return t.name == c.Name })
		if len(kept) == len(tokens) {
			return fmt.Errorf("%s has no token", c.Name)
		}
		if err := kept.write(l); err != nil {
			return err
		}
		fmt.Fprintf(std.out, "the tokens of %s are void\n", c.Name)
		return nil
	}
	secret := enrol.NewCode()
	if err := append(tokens, operatorToken{c.Name, enrol.HashCode(secret)}).write(l); err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, secret)
	return err
}

// operatorToken lets who has it sign for devices. The file has one a line: NAME HASH.
type operatorToken struct{ name, hash string }

type tokenList []operatorToken

func readTokens(l layout) (tokenList, error) {
	data, err := os.ReadFile(l.tokens())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the tokens: %w", err)
	}
	var list tokenList
	for number, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		name, hash, ok := strings.Cut(line, " ")
		if line == "" {
			continue
		}
		if !ok || !pki.ValidName(name) || len(hash) != len(enrol.HashCode("")) {
			return nil, fmt.Errorf("%s:%d: not a name and a hash", l.tokens(), number+1)
		}
		list = append(list, operatorToken{name, hash})
	}
	return list, nil
}

func (t tokenList) write(l layout) error {
	var text strings.Builder
	for _, one := range t {
		fmt.Fprintf(&text, "%s %s\n", one.name, one.hash)
	}
	// A hash of 130 random bits is no secret, and the service has to read it.
	return atomicfile.Write(l.tokens(), []byte(text.String()), 0o644)
}

// owner finds whose token it is; how long that takes depends on none of them.
func (t tokenList) owner(given string) (string, error) {
	found, hash := "", enrol.HashCode(given)
	for _, one := range t {
		if subtle.ConstantTimeCompare([]byte(one.hash), []byte(hash)) == 1 {
			found = one.name
		}
	}
	if found == "" {
		return "", &pki.RefusedError{Reason: enrol.ReasonWrongToken, Err: errors.New("no operator has this token")}
	}
	return found, nil
}
