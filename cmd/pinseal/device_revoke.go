package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
)

type deviceRevokeCmd struct {
	dirFlag
	Name  string `arg:"" help:"Name of the device."`
	Force bool   `help:"Deny the name although no device of that name is known."`
}

// Run writes first who is denied, so that it holds over a power cut, and tells the running node before anything that takes time.
func (c *deviceRevokeCmd) Run(std streams) error {
	l := c.layout()
	cfg, err := readConfig(l.config)
	if err != nil {
		// Whatever is wrong there, a lost device is still to be kept out.
		fmt.Fprintf(std.err, "note: %v\n", err)
	}
	switch {
	case !pki.ValidName(c.Name):
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.Name)
	case cfg != nil && c.Name == string(cfg.Node):
		return usagef("%q is the node itself", c.Name)
	}
	// Without the journal the name alone is denied, which keeps it out here: denyFormer tells below.
	certificates, unknown := issuedTo(l, c.Name)
	if unknown == nil && len(certificates) == 0 && !exists(l.signer(c.Name)) && !c.Force {
		return withHint(fmt.Errorf("no device is named %s", c.Name), "pinseal device list shows them; --force denies the name all the same, such as one that another authority has certified")
	}
	if err := denyCertificates(l, c.Name, certificates, std.clock()()); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s is let in no longer; certificates revoked: %d\n", c.Name, len(certificates))
	var signer error
	if exists(l.signer(c.Name)) {
		signer = revokeSigner(l, c.Name)
	}
	// Whatever went wrong with one does not hinder the others. What the node has issued until it knew is denied by its number, too.
	return errors.Join(c.tell(std, l), signer, denyFormer(l, c.Name, std.clock()()), publishCRL(std, l, std.clock()()))
}

func (c *deviceRevokeCmd) tell(std streams, l layout) error {
	err := askNode(l.control(), "deny")
	switch {
	case errors.Is(err, errNotRunning):
		fmt.Fprintln(std.out, "the node is not running; it will know when it starts")
		return nil
	case err != nil:
		return withHint(fmt.Errorf("the running node could not read everything: %w", err), "mend that, then: systemctl reload pinseal; without an answer, restart it: systemctl restart pinseal, or %s", c.command("run"))
	}
	fmt.Fprintln(std.out, "the running node knows: its connections are closed, its keys are trusted no longer")
	return nil
}

// issuedTo finds the certificates that a name was ever given here.
func issuedTo(l layout, name string) ([]*x509.Certificate, error) {
	all, err := issuedCertificates(l)
	if err != nil {
		return nil, err
	}
	return all[name], nil
}

// issuedCertificates are those of the journal by the names they are for.
func issuedCertificates(l layout) (map[string][]*x509.Certificate, error) {
	history, err := pki.ReadJournal(l.journal())
	if err != nil {
		return nil, err
	}
	found := map[string][]*x509.Certificate{}
	for _, e := range history.Entries {
		if e.Event != pki.EventIssued {
			continue
		}
		certificate, err := e.ParseCertificate()
		if err != nil {
			return nil, fmt.Errorf("reading the journal: %w", err)
		}
		found[e.Name] = append(found[e.Name], certificate)
	}
	return found, nil
}

// publishCRL signs the revocation list anew, for those who go by it. The node itself goes by its deny list.
func publishCRL(std streams, l layout, now time.Time) error {
	authority, err := readAuthority(l)
	if err != nil {
		fmt.Fprintf(std.out, "note: %s is not written anew: %v\n", l.crl(), err)
		return nil
	}
	return changeDenied(l, func(denied *pki.DenyList) error {
		previous, err := os.ReadFile(l.crl())
		if err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("reading the revocation list: %w", err)
		}
		list, err := authority.RevocationList(denied, previous, now)
		if err != nil {
			return err
		}
		return atomicfile.Write(l.crl(), list, 0o644)
	})
}
