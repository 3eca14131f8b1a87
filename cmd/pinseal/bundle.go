package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/signing"
	"pinseal/signing/encryption"

	"github.com/pelletier/go-toml/v2"
)

// clientConfig is client.toml of a bundle: where the node is and what its owner may command.
type clientConfig struct {
	Node   name        `toml:"node"`
	Name   name        `toml:"name"`
	Host   string      `toml:"host"`
	Port   uint16      `toml:"port"`
	Topics []topicName `toml:"topics,multiline"` // answered by a verdict

	EnrolPort uint16 `toml:"enrol_port,omitempty"` // where the certificate is renewed; 0: by hand

	Encrypt []encryptRule `toml:"encrypt,omitempty"`
}

// bundle is the folder that makes a machine a client of one node.
type bundle struct {
	dir    string
	client clientConfig
}

func (b bundle) caCert() string     { return filepath.Join(b.dir, "ca.crt") }
func (b bundle) clientCert() string { return filepath.Join(b.dir, "client.crt") }
func (b bundle) clientKey() string  { return filepath.Join(b.dir, "client.key") }
func (b bundle) signKey() string    { return filepath.Join(b.dir, "sign.key") }
func (b bundle) signers() string    { return filepath.Join(b.dir, "signers") }

// readBundle reads the configuration of a bundle; its keys are read by who uses them.
func readBundle(dir string) (bundle, error) {
	b := bundle{dir: dir}
	path := filepath.Join(dir, "client.toml")
	data, err := os.ReadFile(path) //nolint:gosec // the configuration or a flag names the folder
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return b, withHint(fmt.Errorf("%s is not a bundle: it has no client.toml", dir), "pinseal init and pinseal device add write bundles; copy the whole folder")
	}
	if err != nil {
		return b, fmt.Errorf("reading the bundle: %w", err)
	}
	if err := decodeStrict(data, &b.client); err != nil {
		return b, fmt.Errorf("%s:%w", path, err)
	}
	if b.client.Node == "" || b.client.Name == "" || b.client.Host == "" || b.client.Port == 0 {
		return b, fmt.Errorf("%s: node, name, host and port are all needed", path)
	}
	return b, nil
}

// newClient is a client that has just been given its keys and its certificate.
type newClient struct {
	signKey *signing.PublicKey    // for the node to trust
	openKey *encryption.PublicKey // for the node to encrypt to
	entry   pki.Entry             // for the journal
	files   fileSet               // its bundle, all but
	issued  newFile               // its certificate
}

// create writes the certificate last, when it is in the journal, and that when all else could be written: what does not come
// about leaves no trace there.
func (c newClient) create(journal *pki.Journal) error {
	ctx, stop := untilSignal(context.Background())
	defer stop()
	undo, err := c.files.make()
	if err != nil {
		return err
	}
	if err = ctx.Err(); err == nil {
		err = journal.Append(c.entry)
	}
	if err == nil {
		err = fileSet{c.issued}.create()
	}
	if err != nil {
		undo()
	}
	return err
}

// makeClient makes a client's keys and its certificate, and the files of its bundle in dir. A lifetime of 0 is the longest.
func makeClient(dir string, client clientConfig, authority *pki.Authority, node *signing.PublicKey, by string, lifetime time.Duration, now time.Time) (newClient, error) {
	tlsKey, err := pki.GenerateKey()
	if err != nil {
		return newClient{}, err
	}
	tlsKeyPEM, err := pki.MarshalKey(tlsKey)
	if err != nil {
		return newClient{}, err
	}
	certificate, err := issueClient(authority, string(client.Name), tlsKey, lifetime, now)
	if err != nil {
		return newClient{}, err
	}
	entry, err := issuedEntry(certificate, clientProfile, by, now)
	if err != nil {
		return newClient{}, err
	}
	signKey, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		return newClient{}, err
	}
	openKey, err := encryption.GenerateKey()
	if err != nil {
		return newClient{}, err
	}
	clientTOML, err := toml.Marshal(client)
	if err != nil {
		return newClient{}, fmt.Errorf("writing client.toml: %w", err)
	}
	b := bundle{dir: dir}
	return newClient{signKey.Public(), openKey.Public(), entry, fileSet{
		{b.caCert(), authority.CertificatePEM(), 0o644},
		{b.clientKey(), tlsKeyPEM, 0o600},
		{b.signKey(), signKey.PEM(), 0o600},
		{filepath.Join(b.signers(), string(client.Node)+".pem"), node.PEM(), 0o644},
		{filepath.Join(b.signers(), string(client.Name)+".pem"), signKey.Public().PEM(), 0o644},
		{b.encryption().own, openKey.PEM(), 0o600},
		{b.encryption().publicKey(string(client.Name)), openKey.Public().PEM(), 0o644},
		{filepath.Join(dir, "client.toml"), clientTOML, 0o644},
	}, newFile{b.clientCert(), certificate, 0o644}}, nil
}

// issueClient certifies a key of ours the way those of devices are.
func issueClient(authority *pki.Authority, name string, key crypto.Signer, lifetime time.Duration, now time.Time) ([]byte, error) {
	if lifetime == 0 {
		return authority.IssueClient(name, key.Public(), now)
	}
	der, err := pki.CreateRequest(name, key)
	if err != nil {
		return nil, err
	}
	request, err := pki.ParseRequest(der)
	if err != nil {
		return nil, err
	}
	certificate, err := authority.Sign(request, name, pki.Profile{Lifetime: lifetime}, now)
	if err != nil {
		return nil, err
	}
	return pki.EncodeCertificates(certificate), nil
}

// issuedEntry records a certificate in PEM that was just issued.
func issuedEntry(certificate []byte, profile, by string, now time.Time) (pki.Entry, error) {
	chain, err := pki.ParseCertificates(certificate)
	if err != nil {
		return pki.Entry{}, err
	}
	return pki.Issued(chain[0], profile, by, now), nil
}

// fileSet is a group of new files that are made together or not at all.
type fileSet []newFile

type newFile struct {
	path string
	data []byte
	perm os.FileMode
}

// create writes the files, folders included; it overwrites nothing and removes what it made if one fails.
func (s fileSet) create() error {
	_, err := s.make()
	return err
}

// make is create for who may have to take it back. An interruption is an error as any other.
func (s fileSet) make() (undo func(), err error) {
	ctx, stop := untilSignal(context.Background())
	defer stop()
	var made []string
	takeBack := func() {
		for _, path := range slices.Backward(made) {
			// Best effort: the error that brought us here is the one to tell.
			_ = os.Remove(path)
		}
	}
	defer func() {
		if err != nil {
			takeBack()
		}
	}()
	for _, f := range s {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		folders, err := makeFolder(filepath.Dir(f.path))
		made = append(made, folders...)
		if err != nil {
			return nil, err
		}
		if err := atomicfile.Create(f.path, f.data, f.perm); err != nil {
			if errors.Is(err, os.ErrExist) {
				return nil, withHint(fmt.Errorf("%s exists already, nothing was changed", f.path), "move it away first, or choose another --dir")
			}
			return nil, err
		}
		made = append(made, f.path)
	}
	return takeBack, nil
}

// makeFolder makes a folder and its parents, private to the owner, and names those that were new.
func makeFolder(dir string) ([]string, error) {
	if exists(dir) {
		return nil, nil
	}
	made, err := makeFolder(filepath.Dir(dir))
	if err != nil {
		return made, err
	}
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return made, nil // somebody else has been faster
	}
	if err != nil {
		err = fmt.Errorf("making a folder: %w", err)
		if errors.Is(err, os.ErrPermission) {
			err = withHint(err, "run it with sudo, or choose a folder of your own: --dir DIR")
		}
		return made, err
	}
	return append(made, dir), nil
}
