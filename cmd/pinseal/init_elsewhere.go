package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
)

// askForAuthority makes the key of an authority below one that is elsewhere, and the request for it. That is all there is
// until it comes back signed; a second time the request is made anew for the same key.
func (c *initCmd) askForAuthority(p *plan, std streams) error {
	l := p.layout
	if !exists(l.caKey()) {
		key, err := pki.GenerateKey()
		if err != nil {
			return err
		}
		text, err := pki.MarshalKey(key)
		if err != nil {
			return err
		}
		if err := (fileSet{{l.caKey(), text, 0o600}}).create(); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(l.caKey())
	if err != nil {
		return fmt.Errorf("reading the authority's key: %w", err)
	}
	key, err := pki.ParseKey(text)
	if err != nil {
		return fmt.Errorf("%s: %w", l.caKey(), err)
	}
	request, err := pki.AuthorityRequest(authorityOf(p.node), p.names, key)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(l.caRequest(), request, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "request: %s\n", l.caRequest())
	fmt.Fprintln(std.out, "next: on the operator's machine: pinseal ca create ROOT (once), then pinseal ca sign --root ROOT ca.csr --out ca.crt")
	fmt.Fprintf(std.out, "then, here: %s\n", c.command("init --authority ca.crt"))
	return nil
}

// takeAuthority reads what came back, which must be for our key and say who is above.
func (p *plan) takeAuthority(path string) (*pki.Authority, error) {
	certificates, err := os.ReadFile(path)
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the signed authority: %w", err), "--authority is here, elsewhere, or a file")
	}
	key, err := os.ReadFile(p.layout.caKey())
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the authority's key: %w", err), "pinseal init --authority elsewhere makes it, and the request that is signed")
	}
	authority, err := pki.ParseAuthority(certificates, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !authority.Below() {
		return nil, fmt.Errorf("%s: it does not hold the certificate of the authority that has signed ours", path)
	}
	for _, name := range p.names {
		if !authority.Permits(name) {
			return nil, withHint(fmt.Errorf("%s: its authority may not certify %s, as this machine is called", path, name), "ask again, with the same flags: pinseal init --authority elsewhere")
		}
	}
	return authority, nil
}

type caCreateCmd struct {
	Folder string `arg:"" help:"Folder for root.crt and root.key." type:"path"`
	Name   string `help:"Name of the authority, for people; default: pinseal root, or that of the root it replaces, with the time." placeholder:"NAME"`
	After  string `help:"Folder of the root that this one replaces: each certifies the other, so that nobody is locked out." type:"existingdir" placeholder:"FOLDER"`
}

// Run makes an authority for nodes whose own are below it. Its key is written under a passphrase only.
func (c *caCreateCmd) Run(std streams) error {
	now := std.clock()()
	authority, crossing, err := c.create(now)
	if err != nil {
		return err
	}
	passphrase, err := readPassword(std)
	if err != nil {
		return err
	}
	key, err := authority.KeyUnder([]byte(passphrase))
	if err != nil {
		return err
	}
	r := root(c.Folder)
	files := fileSet{{r.certificate(), authority.CertificatePEM(), 0o644}, {r.key(), key, 0o600}}
	if len(crossing) > 0 {
		files = append(files, newFile{r.crossing(), pki.EncodeCertificates(crossing...), 0o644})
	}
	if err := files.create(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "root of trust: %s\nnext: pinseal ca sign --root %s ca.csr --out ca.crt\n", c.Folder, shellWord(c.Folder))
	return nil
}

// create also gives what it and the root before it have certified of each other.
func (c *caCreateCmd) create(now time.Time) (*pki.Authority, []*x509.Certificate, error) {
	if c.After == "" {
		made, err := pki.CreateRoot(orDefault(c.Name, "pinseal root"), now)
		return made, nil, err
	}
	old, err := root(c.After).open()
	if err != nil {
		return nil, nil, err
	}
	if c.Name == old.Certificate().Subject.CommonName {
		return nil, nil, usagef("%q is the name of the root that is replaced: choose another", c.Name)
	}
	made, err := pki.CreateRoot(orDefault(c.Name, successor(old.Authority, now)), now)
	if err != nil {
		return nil, nil, err
	}
	cross, former, err := crossings(old.Authority, made, now)
	return made, append(cross, former...), err
}

// root is the folder of an authority that nodes have theirs from.
type root string

func (r root) certificate() string { return filepath.Join(string(r), "root.crt") }
func (r root) key() string         { return filepath.Join(string(r), "root.key") }

// crossing has what this root and the one before have certified of each other.
func (r root) crossing() string { return filepath.Join(string(r), "cross.crt") }

func (r root) open() (openAuthority, error) {
	certificate, err := os.ReadFile(r.certificate())
	if err != nil {
		return openAuthority{}, withHint(fmt.Errorf("reading the root: %w", err), "pinseal ca create %s makes one", string(r))
	}
	key, err := os.ReadFile(r.key())
	if err != nil {
		return openAuthority{}, fmt.Errorf("reading the root's key: %w", err)
	}
	return unlock(certificate, key, r.key())
}

type caSignCmd struct {
	Root    string `help:"Folder that pinseal ca create has made." required:"" type:"existingdir" placeholder:"FOLDER"`
	Request string `arg:"" help:"The request that pinseal init --authority elsewhere, or pinseal ca rotate, has made on the node." type:"existingfile"`
	Out     string `help:"File for the node." required:"" type:"path" placeholder:"FILE"`
}

// Run signs a node's authority.
func (c *caSignCmd) Run(std streams) error {
	r := root(c.Root)
	opened, err := r.open()
	if err != nil {
		return err
	}
	crossing, err := os.ReadFile(r.crossing())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading what the roots have certified of each other: %w", err)
	}
	request, err := os.ReadFile(c.Request)
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	signed, err := opened.SignAuthority(request, std.clock()())
	if err != nil {
		return fmt.Errorf("%s: %w", c.Request, err)
	}
	if exists(c.Out) {
		return withHint(errors.New(c.Out+" exists already, nothing was changed"), "choose another with --out")
	}
	answer := slices.Concat(pki.EncodeCertificates(signed), opened.CertificatePEM(), crossing)
	if err := (fileSet{{c.Out, answer, 0o644}}).create(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s may certify clients, and servers named %s, until %s\n", signed.Subject.CommonName,
		strings.Join(signed.PermittedDNSDomains, ", "), signed.NotAfter.Format(time.DateOnly))
	return nil
}
