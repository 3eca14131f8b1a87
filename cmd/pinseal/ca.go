package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
)

type caCmd struct {
	Show    caShowCmd    `cmd:"" help:"Show whom the node's clients trust, and until when."`
	Protect caProtectCmd `cmd:"" help:"Encrypt the authority's key with a passphrase, read from the terminal or standard input."`
	Create  caCreateCmd  `cmd:"" help:"On the operator's machine: make a root of trust for nodes whose authority is elsewhere."`
	Sign    caSignCmd    `cmd:"" help:"On the operator's machine: sign a node's authority."`
	Renew   caRenewCmd   `cmd:"" help:"Issue the broker's certificate anew, for the names and addresses that this machine has now, and those of the bundles kept here that cannot be renewed otherwise."`
	Rotate  caRotateCmd  `cmd:"" help:"Replace the authority by a new one; both are trusted until the old one is retired."`
	Retire  caRetireCmd  `cmd:"" help:"Trust the authority that was replaced no longer, once nobody depends on it."`
}

type caShowCmd struct {
	dirFlag
	listFlag
}

// Run lists the trusted authorities, the one that issues first.
func (c *caShowCmd) Run(std streams) error {
	certs, err := readAnchors(c.layout())
	if err != nil {
		return err
	}
	table := c.table(std.out, "AUTHORITY", "UNTIL", "FINGERPRINT")
	for _, cert := range certs {
		table.row(cert.Subject.CommonName, cert.NotAfter.Format(time.DateOnly), pki.Fingerprint(cert))
	}
	return table.flush()
}

func readAnchors(l layout) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(l.caCert())
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the authority: %w", err), "pinseal init makes one")
	}
	certs, err := pki.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.caCert(), err)
	}
	return certs, nil
}

type caRetireCmd struct {
	dirFlag
	Force bool `help:"Even if devices depend on it: they have to join again."`
}

// Run takes the old authority out of what is trusted, unless somebody would be locked out by it.
func (c *caRetireCmd) Run(std streams) error {
	l := c.layout()
	if !l.rotating() {
		return errors.New("there is no old authority to retire")
	}
	authority, err := readAuthority(l)
	if err != nil {
		return err
	}
	depending, err := dependOnOld(l, authority.Certificate(), std.clock()())
	if err != nil {
		return err
	}
	if len(depending) > 0 && !c.Force {
		return withHint(fmt.Errorf("these have not renewed their certificates yet: %s", strings.Join(depending, ", ")), "wait until they have, revoke those that are gone, or --force")
	}
	if err := atomicfile.Write(l.caCert(), authority.CertificatePEM(), 0o644); err != nil {
		return err
	}
	for _, path := range []string{l.caCross(), l.caCrossOld(), l.caOldKey()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what belonged to the old authority: %w", err)
		}
	}
	fmt.Fprintln(std.out, "the old authority is trusted no longer")
	return tellNode(std, l, c.dirFlag)
}

// dependOnOld are those whose newest certificate another authority has issued and is still good, and the broker.
func dependOnOld(l layout, authority *x509.Certificate, now time.Time) ([]string, error) {
	issued, err := issuedCertificates(l)
	if err != nil {
		return nil, err
	}
	denied, err := readDenied(l)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, certificates := range issued {
		newest := certificates[len(certificates)-1]
		_, revoked := denied.Since(name)
		if !revoked && !now.After(newest.NotAfter.Add(defaultGrace)) && newest.CheckSignatureFrom(authority) != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
