package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"pinseal/pki"
	"pinseal/pki/renewal"
)

type caRenewCmd struct {
	dirFlag
	Due bool `help:"Only what is due, and without a word if nothing is: for a timer."`
}

// Run does by hand, or by a timer, what needs the authority's key: the broker's certificate and those of the bundles kept
// here, which the running node and their users renew by themselves where they can; and the revocation list, which ends, too.
func (c *caRenewCmd) Run(ctx context.Context, std streams) error {
	l := c.layout()
	cfg, err := readConfig(l.config)
	if err != nil {
		return err
	}
	if cfg.denied, err = readDenied(l); err != nil {
		return err
	}
	n := &node{layout: l, config: cfg, log: slog.New(slog.DiscardHandler), now: std.clock()}
	if err := n.openClock(); err != nil {
		return err
	}
	if !c.Due {
		if _, err := readAuthority(l); err != nil {
			return err
		}
	}
	return errors.Join(c.broker(ctx, std, n), c.bundles(ctx, std, n), c.list(std, n))
}

// broker renews the node's own certificate.
func (c *caRenewCmd) broker(ctx context.Context, std streams, n *node) error {
	if !n.ownsCertificate() {
		if c.Due {
			return nil
		}
		return withHint(errors.New("the broker's certificate is not this authority's to renew"), "[tls] certificate in %s names it: whoever issued it renews it", n.layout.config)
	}
	current, err := readCertificate(n.layout.brokerCert())
	if err != nil {
		return err
	}
	care := n.newCaretaker()
	if care == nil { // only when it is due: without it the authority's key was read
		return n.unreadable(current)
	}
	authority, err := n.authority()
	if err != nil {
		return err
	}
	local, unlisted := care.localNames(authority)
	care.missing = missingNames(current, local) // nobody looks a second time
	if reason := care.reason(current, authority, local); c.Due && reason == "" {
		return unlisted
	}
	switch err := care.renew(ctx, current, authority, local); {
	case errors.Is(err, renewal.ErrBusy):
		fmt.Fprintln(std.out, "the running node is renewing the broker's certificate")
		return nil
	case err != nil:
		return err
	}
	if err := c.share(); err != nil {
		return err
	}
	renewed, err := readCertificate(n.layout.brokerCert())
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "the broker's certificate is good until %s\n", renewed.NotAfter.Format(time.DateOnly))
	return tellNode(std, n.layout, c.dirFlag)
}

// unreadable is no error until it has consequences: the running node may have what this process has not, such as the
// passphrase, and renews in time then.
func (n *node) unreadable(current *x509.Certificate) error {
	if !expiresSoon(current.NotAfter, n.clock.FloorNow()) {
		return nil
	}
	_, err := n.authority()
	return withHint(fmt.Errorf("the broker's certificate ends on %s and cannot be renewed: %w", current.NotAfter.Format(time.DateOnly), err),
		"where the key is known: pinseal ca renew")
}

// bundles renews certificates that lie on this machine: those that are due, and without --due those that their users cannot
// renew.
func (c *caRenewCmd) bundles(ctx context.Context, std streams, n *node) error {
	if !isRunning(n.layout) {
		return nil // a certificate is put into force only when the node has let it in
	}
	entries, err := os.ReadDir(n.layout.bundles())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for bundles: %w", err)
	}
	var failed error
	for _, entry := range entries {
		failed = errors.Join(failed, c.bundle(ctx, std, n, n.layout.bundle(entry.Name())))
	}
	return failed
}

func (c *caRenewCmd) bundle(ctx context.Context, std streams, n *node, dir string) error {
	b := bundle{dir: dir}
	if !exists(b.clientCert()) {
		return nil // pinseal flash leaves one that tells only how the node is reached
	}
	b, err := readBundle(dir)
	if err != nil {
		return err
	}
	holder := b.newRenewal(n.clock.FloorNow)
	byHand := holder == nil
	if _, err := n.authority(); err == nil || byHand {
		holder = n.localRenewal(b) // also what is over for so long that the node would refuse it
	}
	current, err := holder.Current()
	if err != nil {
		return err
	}
	due := !n.clock.FloorNow().Before(renewal.Due(current))
	if !due && (c.Due || !byHand) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	switch err := holder.Renew(ctx); {
	case errors.Is(err, renewal.ErrBusy):
		return nil // its user is at it
	case err != nil:
		return fmt.Errorf("%s was not renewed: %w", b.clientCert(), err)
	}
	if current, err = holder.Current(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s is good until %s\n", b.clientCert(), current.NotAfter.Format(time.DateOnly))
	return nil
}

// localRenewal is for a bundle on the node's machine, if nobody renews certificates over the network.
func (n *node) localRenewal(b bundle) *renewal.Holder {
	r := &bundleRenewal{bundle: b, now: n.clock.FloorNow}
	return &renewal.Holder{
		Files: b.tlsFiles(), Try: r.try, Now: n.clock.FloorNow,
		Obtain: func(_ context.Context, key crypto.Signer) (renewal.Obtained, error) { return n.certifyBundle(b, key) },
	}
}

// certifyBundle is what enrolment does for a client that shows its certificate: here it lies in a folder of root's.
func (n *node) certifyBundle(b bundle, key crypto.Signer) (renewal.Obtained, error) {
	former, err := readCertificate(b.clientCert())
	if err != nil {
		return renewal.Obtained{}, err
	}
	who := string(b.client.Name)
	if n.config.denies(who) || n.config.denied.Denies(former) {
		return renewal.Obtained{}, fmt.Errorf("%q was revoked", who)
	}
	authority, err := n.authority()
	if err != nil {
		return renewal.Obtained{}, err
	}
	anchors, err := readAnchors(n.layout)
	if err != nil {
		return renewal.Obtained{}, err
	}
	now, profile := n.clock.FloorNow(), n.renewedProfile(former)
	text, err := issueClient(authority, who, key, profile.Lifetime, now)
	if err != nil {
		return renewal.Obtained{}, err
	}
	chain, err := pki.ParseCertificates(text)
	if err != nil {
		return renewal.Obtained{}, err
	}
	entry := pki.Issued(chain[0], profile.Name, "renewal of "+pki.SerialText(former), now)
	return renewal.Obtained{Chain: chain, Anchors: anchors}, pki.OpenJournal(n.layout.journal()).Append(entry)
}

// listNotice is how long before its end a revocation list is signed anew: who fetches it once a week has time to.
const listNotice = 60 * 24 * time.Hour

// list signs the revocation list anew, if somebody has had one made.
func (c *caRenewCmd) list(std streams, n *node) error {
	last, err := n.layout.publishedList()
	if err != nil || last == nil {
		return err
	}
	now := n.clock.FloorNow()
	if last.NextUpdate.Sub(now) > listNotice {
		return nil
	}
	return publishCRL(std, n.layout, now)
}
