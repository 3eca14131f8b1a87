package main

import (
	"context"
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

type caRotateCmd struct{ dirFlag }

// Run writes in an order in which a power cut leaves an authority whose key and certificate belong together: who issues is
// the one whose key is in force.
func (c *caRotateCmd) Run(ctx context.Context, std streams) error {
	l := c.layout()
	now := std.clock()()
	if exists(l.caCross()) {
		return withHint(errors.New("the authority before this one is still trusted"), "retire it first: %s", c.command("ca retire"))
	}
	old, err := unlockAuthority(l)
	if err != nil {
		return err
	}
	if old.Below() {
		return withHint(errors.New("this node's authority has its certificate from one elsewhere, which a new one would not have"), "sign it anew there: pinseal ca sign")
	}
	base, _, _ := strings.Cut(old.Certificate().Subject.CommonName, " since ")
	made, err := pki.CreateAuthority(base+" since "+now.UTC().Format("2006-01-02 15:04:05"), now)
	if err != nil {
		return err
	}
	cross, err := old.Cross(made, now)
	if err != nil {
		return err
	}
	oldKey, err := old.keyText(old.Authority)
	if err != nil {
		return err
	}
	newKey, err := old.keyText(made)
	if err != nil {
		return err
	}
	for _, f := range []newFile{
		{l.caOldKey(), oldKey, 0o600},
		{l.caCross(), pki.EncodeCertificates(cross), 0o644},
		{l.caCert(), pki.EncodeCertificates(made.Certificate(), old.Certificate()), 0o644},
		{l.caKey(), newKey, 0o600},
	} {
		if err := atomicfile.Write(f.path, f.data, f.perm); err != nil {
			return err
		}
	}
	if err := c.share(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "new authority: %s\n", made.Certificate().Subject.CommonName)
	fmt.Fprintln(std.out, "both are trusted; devices get to know the new one when they renew, the broker's certificate is issued anew")
	if err := publishCRL(std, l, now); err != nil {
		return err
	}
	if err := tellNode(std, l, c.dirFlag); err != nil {
		return err
	}
	if !l.enrols() { // the service cannot read the key, and nobody can renew over the network
		if err := (&caRenewCmd{dirFlag: c.dirFlag}).Run(ctx, std); err != nil {
			return err
		}
	}
	fmt.Fprintf(std.out, "next: when all devices have renewed, %s\n", c.command("ca retire"))
	return nil
}

type caRetireCmd struct {
	dirFlag
	Force bool `help:"Even if devices depend on it: they have to join again."`
}

// Run takes the old authority out of what is trusted, unless somebody would be locked out by it.
func (c *caRetireCmd) Run(std streams) error {
	l := c.layout()
	if !exists(l.caCross()) {
		return errors.New("there is no old authority to retire")
	}
	authority, err := readAuthority(l)
	if err != nil {
		return err
	}
	depending, err := dependOnOld(l, authority, std.clock()())
	if err != nil {
		return err
	}
	if len(depending) > 0 && !c.Force {
		return withHint(fmt.Errorf("these have not renewed their certificates yet: %s", strings.Join(depending, ", ")), "wait until they have, revoke those that are gone, or --force")
	}
	if err := atomicfile.Write(l.caCert(), authority.CertificatePEM(), 0o644); err != nil {
		return err
	}
	for _, path := range []string{l.caOldKey(), l.caCross()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what belonged to the old authority: %w", err)
		}
	}
	fmt.Fprintln(std.out, "the old authority is trusted no longer")
	return tellNode(std, l, c.dirFlag)
}

// dependOnOld are those whose newest certificate another authority has issued and is still good, and the broker.
func dependOnOld(l layout, authority *pki.Authority, now time.Time) ([]string, error) {
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
		if !revoked && !now.After(newest.NotAfter.Add(defaultGrace)) && !pki.IssuedBy(newest, authority) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
