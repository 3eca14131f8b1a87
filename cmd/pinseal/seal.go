package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"pinseal/signing"
)

type sealCmd struct {
	encryptFlag
	Bundle  string  `help:"Folder with everything a client needs." env:"PINSEAL_BUNDLE" placeholder:"FOLDER"`
	Key     string  `help:"Private signing key." type:"existingfile" placeholder:"FILE"`
	Topic   string  `short:"t" required:"" help:"Topic it is for." placeholder:"TOPIC"`
	Seq     *uint64 `help:"Sequence number; default: the next of this key." placeholder:"N"`
	IAT     string  `name:"iat" help:"When it was sealed, in RFC 3339 or Unix seconds; default: now." placeholder:"TIME"`
	Exp     string  `name:"exp" help:"When it ends to be valid, likewise." placeholder:"TIME"`
	Nonce   string  `help:"The node's challenge." placeholder:"TEXT"`
	Message string  `arg:"" help:"Message: a JSON value, or any text."`
}

// Run prints one sealed message.
func (c *sealCmd) Run(std streams) error {
	if !signing.ValidTopic(c.Topic) {
		return notATopic(c.Topic)
	}
	path, err := c.keyPath()
	if err != nil {
		return err
	}
	key, err := readSignKey(path)
	if err != nil {
		return err
	}
	claims, err := c.claims(time.Now())
	if err != nil {
		return err
	}
	if claims.Sequence, err = c.number(path); err != nil {
		return err
	}
	secrets, err := c.secrets()
	if err != nil {
		return err
	}
	raw, err := secrets.seal(key, claims)
	if err != nil {
		return usageError(err)
	}
	_, err = fmt.Fprintf(std.out, "%s\n", raw)
	return err
}

func (c *sealCmd) keyPath() (string, error) {
	switch {
	case c.Key != "":
		return c.Key, nil
	case c.bundle() != "":
		return bundle{dir: c.bundle()}.signKey(), nil
	default:
		return "", usageError(withHint(errors.New("no signing key"), "--bundle FOLDER or --key FILE"))
	}
}

// bundle is the given one, or the first operator's on the node itself; "" is none.
func (c *sealCmd) bundle() string {
	if c.Bundle == "" && c.Key == "" {
		return localBundle()
	}
	return c.Bundle
}

// secrets encrypts as the bundle says, unless --encrypt-to says otherwise.
func (c *sealCmd) secrets() (*cryptor, error) {
	if c.bundle() == "" {
		return newCryptor(encryptionFiles{}, nil, c.EncryptTo)
	}
	b, err := readBundle(c.bundle())
	if err != nil {
		return nil, err
	}
	return newCryptor(b.encryption(), b.client.Encrypt, c.EncryptTo)
}

func (c *sealCmd) claims(now time.Time) (signing.Claims, error) {
	claims := signing.Claims{Topic: c.Topic, IssuedAt: now, Message: messageJSON([]byte(c.Message)), Nonce: c.Nonce}
	for _, given := range []struct {
		text string
		to   *time.Time
	}{{c.IAT, &claims.IssuedAt}, {c.Exp, &claims.Expires}} {
		if given.text == "" {
			continue
		}
		at, err := parseTime(given.text)
		if err != nil {
			return claims, err
		}
		*given.to = at
	}
	return claims, nil
}

// number is the given one, or the next of the key; it follows the clock, not --iat.
func (c *sealCmd) number(key string) (uint64, error) {
	if c.Seq != nil {
		return *c.Seq, nil
	}
	numbers, err := openNumbers(key)
	if err != nil {
		return 0, withHint(err, "the numbers used are kept beside the key, in %s; or give one with --seq", filepath.Dir(key))
	}
	defer numbers.Close() //nolint:errcheck // every number is safe before Next returns
	return numbers.Next(time.Now())
}

func parseTime(text string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	var seconds float64
	var rest string
	if n, _ := fmt.Sscanf(text+" .", "%f %s", &seconds, &rest); n == 2 && rest == "." {
		return time.UnixMicro(int64(seconds * 1e6)), nil
	}
	return time.Time{}, usagef("%q is not a time: 2026-01-02T15:04:05Z or Unix seconds", text)
}

type openCmd struct {
	Bundle  string `help:"Folder with everything a client needs." env:"PINSEAL_BUNDLE" placeholder:"FOLDER"`
	Signers string `help:"Folder of public signing keys." type:"existingdir" xor:"keys" placeholder:"FOLDER"`
	Key     string `help:"One public signing key." type:"existingfile" xor:"keys" placeholder:"FILE"`
	Topic   string `short:"t" help:"Topic it arrived on; default: any." placeholder:"TOPIC"`
	Verbose bool   `short:"v" help:"Also tell signer, topic, time and number, on standard error."`
	Raw     bool   `help:"Print an encrypted message as it is."`

	DecryptKey string `help:"Private key or keys for what is encrypted." type:"existingfile" placeholder:"FILE"`
}

// Run verifies one sealed message; whether it is fresh only its receiver can say.
func (c *openCmd) Run(std streams) error {
	if c.Bundle == "" && c.Signers == "" && c.Key == "" {
		c.Bundle = localBundle()
	}
	keyring, err := c.keyring()
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(std.in, signing.MaxSealedBytes+2))
	if err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	message, signer, err := signing.Open(trimLineFeed(raw), c.Topic, keyring)
	if err != nil {
		return withHint(err, "%s", openHint(err))
	}
	if c.Verbose {
		fmt.Fprintf(std.err, "signer %s, key %s, topic %s, sealed %s, number %d\n", signer.Name, message.KeyID(),
			message.Topic(), message.IssuedAt().UTC().Format(time.RFC3339Nano), message.Sequence())
	}
	value, err := c.value(message)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s\n", value)
	return err
}

// openHint is what to try when a message does not open.
func openHint(err error) string {
	refused, _ := errors.AsType[*signing.RefusedError](err)
	switch {
	case refused != nil && refused.Reason == signing.ReasonUnknownKey:
		return "the sender's public key is not here: pinseal signer show NAME on the node prints it, --key FILE names another"
	case refused != nil && refused.Reason == signing.ReasonMalformed:
		return "it has to be one sealed message, such as pinseal seal prints, and nothing else"
	default:
		return "docs/sealed-message-v1.md explains every reason"
	}
}

func (c *openCmd) value(message *signing.Message) ([]byte, error) {
	if c.Raw {
		return message.JSON(), nil
	}
	var files encryptionFiles
	if c.Bundle != "" {
		files = clientFiles(c.Bundle)
	}
	files.own = orDefault(c.DecryptKey, files.own)
	secrets, err := newCryptor(files, nil, nil)
	if err != nil {
		return nil, err
	}
	return secrets.value(message)
}

// trimLineFeed takes away the one line feed that echo and mosquitto_sub add.
func trimLineFeed(raw []byte) []byte {
	if n := len(raw); n > 0 && raw[n-1] == '\n' {
		return raw[:n-1]
	}
	return raw
}

func (c *openCmd) keyring() (*signing.Keyring, error) {
	switch {
	case c.Key != "":
		data, err := os.ReadFile(c.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the public key: %w", err)
		}
		return keyringOf("key", data, c.Key)
	case c.Signers != "":
		return signing.ReadKeyring(c.Signers)
	case c.Bundle != "":
		return signing.ReadKeyring(bundle{dir: c.Bundle}.signers())
	default:
		return nil, usageError(withHint(errors.New("no public keys to verify with"), "--bundle FOLDER, --signers FOLDER or --key FILE"))
	}
}

// keyringOf makes a keyring of the keys in one PEM file, all of one signer.
func keyringOf(signer string, data []byte, path string) (*signing.Keyring, error) {
	keys, err := signing.ParsePublicKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var signers []signing.Signer
	for _, key := range keys {
		signers = append(signers, signing.Signer{Name: signer, Key: key})
	}
	return signing.NewKeyring(signers...)
}
