package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"pinseal/systemd"
)

// authorityNotice is how long before its end an authority is worth a word: everybody has to renew before.
const authorityNotice = 180 * 24 * time.Hour

// authority looks whether certificates go on being issued: who signs them, until when, and what is half done.
func (n *nodeChecks) authority(ctx context.Context) (string, error) {
	if n.elsewhere() {
		return brokerElsewhere, nil
	}
	anchors, err := readAnchors(n.layout)
	if err != nil {
		return "", err
	}
	for _, look := range []func([]*x509.Certificate) error{n.authorityEnd, n.rotation, n.revocationList} {
		if err := look(anchors); err != nil {
			return "", err
		}
	}
	if err := n.renewals(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, until %s", anchors[0].Subject.CommonName, anchors[0].NotAfter.Format(time.DateOnly)), nil
}

// authorityEnd looks at the one that issues. Its successor is made in the same way wherever its root is.
func (n *nodeChecks) authorityEnd(anchors []*x509.Certificate) error {
	if n.layout.rotating() || exists(n.layout.caNextKey()) {
		return nil // its successor is on the way
	}
	if end := anchors[0].NotAfter; end.Sub(n.now()) < authorityNotice {
		return noticef("%s ends on %s, and with it all that it has certified: %s", anchors[0].Subject.CommonName, end.Format(time.DateOnly), n.command("ca rotate"))
	}
	return nil
}

// rotation looks for a change of the authority that waits for somebody.
func (n *nodeChecks) rotation(anchors []*x509.Certificate) error {
	l := n.layout
	if exists(l.caNextKey()) {
		return noticef("a new authority was asked for, and no answer has come: pinseal ca sign --root ROOT ca.csr --out ca.crt where the root is, with %s; then here: %s", l.caRequest(), n.command("ca rotate ca.crt"))
	}
	if !l.rotating() {
		return nil
	}
	depending, err := dependOnOld(l, anchors[0], n.now())
	if err != nil {
		return err
	}
	who := anchors[0].Subject.CommonName
	if len(depending) > 0 {
		return noticef("the authority before %s is still trusted, because these have not renewed: %s", who, strings.Join(depending, ", "))
	}
	return noticef("the authority before %s is still trusted, and nobody depends on it: %s", who, n.command("ca retire"))
}

// revocationList looks whether others are about to refuse everybody for its sake.
func (n *nodeChecks) revocationList([]*x509.Certificate) error {
	last, err := n.layout.publishedList()
	if err != nil {
		return withHint(err, "if it is damaged, remove the file, then: pinseal device revoke NAME of one who was revoked writes it anew")
	}
	if last == nil {
		return nil
	}
	if end := last.NextUpdate; end.Sub(n.now()) < expiryNotice {
		return noticef("%s ends on %s: %s", n.layout.crl(), end.Format(time.DateOnly), n.command("ca renew"))
	}
	return nil
}

// renewals looks, on a machine with the service, whether those can renew who should: the node, or a timer.
func (n *nodeChecks) renewals(ctx context.Context) error {
	to, installed := serviceOwner()
	if !installed || n.layout.state != layoutUnder("").state {
		return nil
	}
	if n.config.enrols() {
		return readableFor(to, n.layout.caKey())
	}
	if !exists("/run/systemd/system") || exec.CommandContext(ctx, "systemctl", "--quiet", "is-active", systemd.TimerUnit).Run() == nil { //nolint:gosec // constant words
		return nil
	}
	return noticef("without [enrol] a timer renews certificates, and it does not run: sudo systemctl start %s", systemd.TimerUnit)
}

// readableFor wants a private key that the service can read, unless systemd hands it over.
func readableFor(service owner, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it is elsewhere
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != service.uid {
		return withHint(fmt.Errorf("%s belongs to user %d: the service cannot read it, lets nobody join and renews nothing", path, stat.Uid), "sudo chown %s %s, then: sudo systemctl restart pinseal", serviceUser, path)
	}
	return nil
}
