package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/pki/renewal"
)

const (
	// lookAfter is how often the node looks whether its certificate still fits.
	lookAfter = time.Minute
	// maxServerNames bounds what a certificate collects over the years.
	maxServerNames = 64
	// serverProfile is what the journal calls the broker's certificates.
	serverProfile = "broker"
)

// caretaker keeps the broker's certificate good: renewed in time, and issued anew when the machine is called otherwise or
// the authority is another.
type caretaker struct {
	*node
	holder  *renewal.Holder
	names   []string // of the certificate that is being obtained
	missing []string // names that were missing the last time: they must stay for two looks
	refused []string // names that the authority may not certify, of which the log has told
}

// newCaretaker is nil where the certificate is not the node's to renew: it is named in the configuration, or systemd's, or
// the authority's key is elsewhere.
func (n *node) newCaretaker() *caretaker {
	if !n.ownsCertificate() {
		return nil
	}
	if _, err := n.authority(); err != nil {
		return nil
	}
	c := &caretaker{node: n}
	folder := filepath.Dir(n.layout.signKey())
	c.holder = &renewal.Holder{
		Files:  pki.Files{Certificate: filepath.Join(folder, "broker.crt"), Key: filepath.Join(folder, "broker.key")},
		Obtain: c.obtain, Try: c.try, Now: n.clock.FloorNow,
	}
	return c
}

// ownsCertificate reports whether the broker's certificate is where the node may put another one.
func (n *node) ownsCertificate() bool {
	return n.config.Agent.Broker == "" && n.config.TLS.Certificate == "" && n.config.TLS.Key == "" && credential(brokerCredential, "") == ""
}

// settleCertificate finishes an exchange of the broker's certificate that a power cut has cut short, and renews one that has
// expired while the node was off: without that it would not start.
func (n *node) settleCertificate() error {
	if holder, err := n.bundleHolder(); holder != nil || err != nil {
		return errors.Join(err, n.settleBundle(holder))
	}
	c := n.newCaretaker()
	if c == nil {
		return nil
	}
	if exists(c.holder.Files.Certificate) {
		if err := c.holder.Settle(); err != nil {
			return err
		}
	}
	if current, err := readCertificate(n.layout.brokerCert()); err == nil && n.clock.FloorNow().After(current.NotAfter) {
		if err := c.look(context.Background()); err != nil { // the start tells what it means
			n.log.Error("the broker's certificate has expired and was not renewed", "error", err)
		}
	}
	return nil
}

// settleBundle also renews what has expired while the node was off: without that it would not start.
func (n *node) settleBundle(h *renewal.Holder) error {
	if h == nil {
		return nil
	}
	if err := h.Settle(); err != nil {
		return err
	}
	if current, err := h.Current(); err == nil && n.clock.FloorNow().After(current.NotAfter) {
		ctx, cancel := context.WithTimeout(context.Background(), renewPatience)
		defer cancel()
		if err := h.Renew(ctx); err != nil {
			n.log.Warn("the node's certificate has expired and was not renewed", "error", err)
		}
	}
	return nil
}

// bundleHolder renews the node's certificate at a broker elsewhere, if a bundle says where; else it is nil.
func (n *node) bundleHolder() (*renewal.Holder, error) {
	if n.config.Agent.Bundle == "" {
		return nil, nil
	}
	b, err := readBundle(n.config.Agent.Bundle)
	if err != nil {
		return nil, err
	}
	return b.newRenewal(n.clock.FloorNow), nil
}

// keepBundle renews until ctx ends.
func (n *node) keepBundle(ctx context.Context) {
	holder, err := n.bundleHolder()
	if err != nil || holder == nil {
		return // it was read at the start, too
	}
	holder.Run(ctx,
		func() { n.log.Info("the node's certificate was renewed") },
		func(err error, end time.Time) {
			n.log.Warn("the node's certificate was not renewed, trying again", "until", end, "error", err)
		})
}

// takeOver copies what init wrote to where the node may exchange it; the key first, because the certificate decides.
func (c *caretaker) takeOver() error {
	if exists(c.holder.Files.Certificate) {
		return nil
	}
	key, err := os.ReadFile(c.layout.brokerKey())
	if err != nil {
		return fmt.Errorf("reading the broker's key: %w", err)
	}
	if err := atomicfile.WriteFor(c.layout.brokerKey(), c.holder.Files.Key, key, 0o600); err != nil {
		return err
	}
	certificate, err := os.ReadFile(c.layout.brokerCert())
	if err != nil {
		return fmt.Errorf("reading the broker's certificate: %w", err)
	}
	return atomicfile.WriteFor(c.layout.brokerKey(), c.holder.Files.Certificate, certificate, 0o644)
}

// keepCertified runs until ctx ends.
func (n *node) keepCertified(ctx context.Context) {
	c := n.newCaretaker()
	warned := time.Time{}
	for {
		if c != nil {
			if err := c.look(ctx); err != nil && ctx.Err() == nil {
				n.log.Error("the broker's certificate was not renewed, trying again", "error", err)
			}
		}
		if time.Since(warned) >= warnEvery {
			warned = time.Now()
			n.warnOfExpiry(n.clock.FloorNow())
		}
		select {
		case <-time.After(lookAfter):
		case <-n.reloaded:
		case <-ctx.Done():
			return
		}
	}
}

// tellCaretaker has it look at once: the authority may be another.
func (n *node) tellCaretaker() {
	select {
	case n.reloaded <- struct{}{}:
	default: // it is about to
	}
}

// look renews if there is a reason to.
func (c *caretaker) look(ctx context.Context) error {
	current, err := readCertificate(c.layout.brokerCert())
	if err != nil {
		return err
	}
	authority, err := c.authority()
	if err != nil {
		return err
	}
	local, unlisted := c.localNames(authority) // not knowing them is no reason to let the certificate expire
	reason := c.reason(current, authority, local)
	if reason == "" {
		return unlisted
	}
	c.loading.Lock() // key and certificate are exchanged one after the other: a reload in between would find them not to belong together
	defer c.loading.Unlock()
	if err := c.renew(ctx, current, authority, local); err != nil {
		return err
	}
	if err := c.useCertificates(); err != nil {
		return err
	}
	c.files.Set(c.current.Load().files(c.layout))
	c.log.Info("the broker's certificate was renewed, sessions go on", "because", reason)
	return nil
}

// localNames are those of this machine that the authority may certify: with any other name the certificate would be worth nothing.
func (c *caretaker) localNames(authority *pki.Authority) ([]string, error) {
	local, err := pki.LocalNames()
	permitted := slices.DeleteFunc(slices.Clone(local), func(name string) bool { return !authority.Permits(name) })
	refused := slices.DeleteFunc(local, authority.Permits)
	if len(refused) > 0 && !slices.Equal(refused, c.refused) {
		c.log.Warn("the authority may not certify names of this machine, clients cannot use them: pinseal ca rotate asks for one that may", "names", refused)
	}
	c.refused = refused
	return permitted, err
}

// renew has a certificate issued with the present names.
func (c *caretaker) renew(ctx context.Context, current *x509.Certificate, authority *pki.Authority, local []string) error {
	c.names = slices.DeleteFunc(serverNames(current, local), func(name string) bool { return !authority.Permits(name) })
	if err := c.takeOver(); err != nil {
		return err
	}
	return c.holder.Renew(ctx)
}

func (c *caretaker) reason(current *x509.Certificate, authority *pki.Authority, local []string) string {
	missing := missingNames(current, local)
	stayed := slices.DeleteFunc(slices.Clone(missing), func(name string) bool { return !slices.Contains(c.missing, name) })
	c.missing = missing
	switch {
	case !pki.IssuedBy(current, authority):
		return "the authority is another"
	case !c.clock.FloorNow().Before(renewal.Due(current)):
		return "it is due"
	// What is issued in the past could be over once the time is known; what is due is due whenever that is.
	case len(stayed) > 0 && (c.config.Clock.Trust != "auto" || c.clock.Trusted()):
		return "this machine is called otherwise"
	}
	return ""
}

func missingNames(cert *x509.Certificate, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return cert.VerifyHostname(name) == nil })
}

// serverNames are the present names, and those that the certificate had: somebody may have given them by hand. The oldest
// go first when there are too many.
func serverNames(cert *x509.Certificate, local []string) []string {
	var names []string
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	names = slices.DeleteFunc(append(names, cert.DNSNames...), func(name string) bool { return slices.Contains(local, name) })
	if room := max(0, maxServerNames-len(local)); len(names) > room {
		names = names[len(names)-room:]
	}
	return append(names, local...)
}

func (c *caretaker) obtain(_ context.Context, key crypto.Signer) (renewal.Obtained, error) {
	authority, err := c.authority()
	if err != nil {
		return renewal.Obtained{}, err
	}
	now := c.clock.FloorNow()
	cert, err := authority.RenewServer(string(c.config.Node), c.names, key.Public(), pki.DefaultLifetime, now)
	if err != nil {
		return renewal.Obtained{}, err
	}
	if err := pki.OpenJournal(c.layout.journal()).Append(pki.Issued(cert, serverProfile, "renewal", now)); err != nil {
		return renewal.Obtained{}, err
	}
	chain := append([]*x509.Certificate{cert}, authority.Chain()...)
	cross, err := readCertificates(c.layout.caCross())
	return renewal.Obtained{Chain: append(chain, cross...)}, err
}

// try makes a handshake with ourselves, as a client that trusts our authorities would.
func (c *caretaker) try(ctx context.Context, staged pki.Files) error {
	staged.CA = c.config.tlsFiles(c.layout).CA
	server, err := pki.LoadServer(staged, tls.VersionTLS13, c.clock.FloorNow)
	if err != nil {
		return err
	}
	client, err := pki.ClientConfig(pki.Files{CA: c.layout.caCert()}, c.names[len(c.names)-1], c.clock.FloorNow)
	if err != nil {
		return err
	}
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // a pipe
	defer far.Close()  //nolint:errcheck // a pipe
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- tls.Server(far, server.RenewalConfig(0)).HandshakeContext(ctx) }()
	err = tls.Client(near, client).HandshakeContext(ctx)
	if err != nil {
		cancel()
	}
	if other := <-served; err == nil { // that it was broken off is no news
		err = other
	}
	return err
}
