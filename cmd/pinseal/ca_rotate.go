package main

import (
	"context"
	"crypto"
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

type caRotateCmd struct {
	dirFlag
	Answer string `arg:"" optional:"" help:"Where the root is elsewhere: what pinseal ca sign has made of the request. Without it the request is made." type:"existingfile"`
}

// Run replaces the authority at once, or, if its root is elsewhere, in two steps: request and answer are carried by hand.
func (c *caRotateCmd) Run(ctx context.Context, std streams) error {
	l := c.layout()
	if err := c.checkRetired(l); err != nil {
		return err
	}
	old, err := unlockAuthority(l)
	if err != nil {
		return err
	}
	now := std.clock()()
	if !old.Below() {
		if c.Answer != "" {
			return usagef("this node's authority is its own root: ca rotate needs no answer")
		}
		next, err := old.succeed(now)
		if err != nil {
			return err
		}
		return c.install(ctx, std, old, next, now)
	}
	if c.Answer == "" {
		return alone(filepath.Dir(l.caRequest()), func() error { return c.request(std, old, now) })
	}
	next, err := c.takeAnswer(old, now)
	if err != nil {
		return err
	}
	if err := c.install(ctx, std, old, next, now); err != nil {
		return err
	}
	return errors.Join(os.Remove(l.caNextKey()), os.Remove(l.caRequest()))
}

func (c *caRotateCmd) checkRetired(l layout) error {
	if l.rotating() {
		return withHint(errors.New("the authority before this one is still trusted"), "retire it first: %s", c.command("ca retire"))
	}
	return nil
}

// maxAuthorityName is X.520's ub-common-name.
const maxAuthorityName = 64

// authorityOf is the name of a node's first authority; a long one of the node's is cut.
func authorityOf(node string) string { return named(node, " authority") }

// successor is a name for who replaces an authority. Two of one name could not be told apart by all programs.
func successor(authority *pki.Authority, now time.Time) string {
	base, _, _ := strings.Cut(authority.Certificate().Subject.CommonName, " since ")
	return named(base, now.UTC().Format(" since 2006-01-02 15:04:05"))
}

func named(base, what string) string {
	return fmt.Sprintf("%.*s%s", maxAuthorityName-len(what), base, what)
}

// succeed makes a root of the node's own.
func (a openAuthority) succeed(now time.Time) (*pki.Succession, error) {
	made, err := pki.CreateAuthority(successor(a.Authority, now), now)
	if err != nil {
		return nil, err
	}
	next := &pki.Succession{Authority: made}
	next.Cross, next.Former, err = crossings(a.Authority, made, now)
	return next, err
}

// crossings are the certificates that two roots give each other, the new one's by the old one first.
func crossings(old, made *pki.Authority, now time.Time) (cross, former []*x509.Certificate, err error) {
	newWithOld, err := old.Cross(made, now)
	if err != nil {
		return nil, nil, err
	}
	oldWithNew, err := made.Cross(old, now)
	return []*x509.Certificate{newWithOld}, []*x509.Certificate{oldWithNew}, err
}

// install writes in an order in which a power cut leaves an authority whose key and certificate belong together: who issues
// is the one whose key is in force.
func (c *caRotateCmd) install(ctx context.Context, std streams, old openAuthority, next *pki.Succession, now time.Time) error {
	l := c.layout()
	trusted, err := readAnchors(l)
	if err != nil {
		return err
	}
	oldKey, err := old.keyText(old.Authority)
	if err != nil {
		return err
	}
	newKey, err := old.keyText(next.Authority)
	if err != nil {
		return err
	}
	files := []newFile{
		{l.caOldKey(), oldKey, 0o600},
		{l.caCross(), pki.EncodeCertificates(next.Cross...), 0o644},
		{l.caCrossOld(), pki.EncodeCertificates(next.Former...), 0o644},
		{l.caCert(), pki.EncodeCertificates(bothTrusted(next.Authority, trusted)...), 0o644},
		{l.caKey(), newKey, 0o600},
	}
	err = alone(filepath.Dir(l.caKey()), func() error {
		if err := c.checkRetired(l); err != nil {
			return err
		}
		for _, f := range files {
			if len(f.data) == 0 {
				continue // above both is the same root
			}
			if err := atomicfile.Write(f.path, f.data, f.perm); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.share(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "new authority: %s\n", next.Authority.Certificate().Subject.CommonName)
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

// bothTrusted are the new authority and who is above it, and then those from before.
func bothTrusted(authority *pki.Authority, before []*x509.Certificate) []*x509.Certificate {
	all := authority.Anchors()
	for _, cert := range before {
		if !slices.ContainsFunc(all, cert.Equal) {
			all = append(all, cert)
		}
	}
	return all
}

// request makes the key of the next authority, and asks for its certificate; a second time it is made anew for the same key.
func (c *caRotateCmd) request(std streams, old openAuthority, now time.Time) error {
	l := c.layout()
	key, err := old.nextKey(l)
	if err != nil {
		return err
	}
	local, err := pki.LocalNames()
	if err != nil {
		return err
	}
	// Clients know the node by the names that it had, too.
	names := append(local, old.Certificate().PermittedDNSDomains...)
	text, err := pki.AuthorityRequest(successor(old.Authority, now), names, key)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(l.caRequest(), text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "request: %s\n", l.caRequest())
	fmt.Fprintln(std.out, "next: on the machine with the root: pinseal ca sign --root ROOT ca.csr --out ca.crt")
	fmt.Fprintf(std.out, "then, here: %s\n", c.command("ca rotate ca.crt"))
	return nil
}

// nextKey makes a key, under the passphrase that the present one is under, or finds the one that was made before.
func (a openAuthority) nextKey(l layout) (crypto.Signer, error) {
	if exists(l.caNextKey()) {
		return a.readNextKey(l)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	text, err := pki.MarshalKey(key)
	if a.passphrase != nil {
		text, err = pki.EncryptKey(key, a.passphrase)
	}
	if err != nil {
		return nil, err
	}
	return key, atomicfile.Write(l.caNextKey(), text, 0o600)
}

func (a openAuthority) readNextKey(l layout) (crypto.Signer, error) {
	text, err := os.ReadFile(l.caNextKey())
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the next authority's key: %w", err), "pinseal ca rotate, without a file, makes it, and the request that is signed")
	}
	key, err := pki.ParseKey(text)
	if errors.Is(err, pki.ErrEncrypted) {
		key, err = pki.DecryptKey(text, a.passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.caNextKey(), err)
	}
	return key, nil
}

// takeAnswer believes what comes back if those who trust the present authorities can.
func (c *caRotateCmd) takeAnswer(old openAuthority, now time.Time) (*pki.Succession, error) {
	l := c.layout()
	key, err := old.readNextKey(l)
	if err != nil {
		return nil, err
	}
	answer, err := os.ReadFile(c.Answer)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	authority, err := pki.NewAuthority(answer, key)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", c.Answer, err), "it must be signed for the request in %s, the last that was made", l.caRequest())
	}
	anchors, err := readAnchors(l)
	if err != nil {
		return nil, err
	}
	next, err := pki.NewSuccession(authority, answer, anchors, now)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", c.Answer, err), "another root must be one that was made with pinseal ca create --after THE-OLD-ROOT")
	}
	return next, nil
}

// crosses are what the trusted authorities have certified of each other: the new one by the old one, for the broker's chain,
// and the other way round.
func (l layout) crosses() ([]*x509.Certificate, error) {
	newWithOld, err := readCertificates(l.caCross())
	if err != nil {
		return nil, err
	}
	oldWithNew, err := readCertificates(l.caCrossOld())
	return append(newWithOld, oldWithNew...), err
}

// readCertificates reads a file that need not be there.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	certs, err := pki.ParseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}
