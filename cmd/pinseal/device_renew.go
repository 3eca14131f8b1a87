package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"pinseal/internal/mqtt"
	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/pki/renewal"
	"pinseal/systemd"
)

type deviceRenewCmd struct {
	Bundle string `help:"The device's folder." env:"PINSEAL_BUNDLE" placeholder:"FOLDER"`
	Due    bool   `help:"Only if two thirds of its lifetime are over, for a timer."`
}

// renewTimeout is how long one attempt may take.
const renewTimeout = time.Minute

// Run renews the certificate of a bundle.
func (c *deviceRenewCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	settings, err := connectFlags{Bundle: c.Bundle}.client(std)
	if err != nil {
		return err
	}
	if settings.renewal == nil {
		return withHint(errors.New("this bundle does not say where its certificate is renewed"), "have the node write [enrol], then write enrol_port = PORT into client.toml")
	}
	if c.Due && !settings.renewalDue() {
		fmt.Fprintln(std.out, "not due yet")
		return nil
	}
	if err := settings.renewPatiently(ctx); err != nil {
		return explainRenewal(err)
	}
	certificate, err := settings.renewal.Current()
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "renewed, until %s\n", certificate.NotAfter.Format(time.DateOnly))
	return nil
}

// renewPatiently tries again what may have been bad luck: a node that reloads ends handshakes that are under way.
func (c *client) renewPatiently(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := c.renew(ctx)
		if _, refused := errors.AsType[*pki.RefusedError](err); err == nil || refused || attempt == renewAttempts {
			return err
		}
		c.log.Info("trying again", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

const renewAttempts = 3

func explainRenewal(err error) error {
	if refused, ok := errors.AsType[*pki.RefusedError](err); ok && refused.Reason == enrol.ReasonRateLimited {
		return withHint(fmt.Errorf("the node refused: %w", refused), "the certificate that it has stays in force; try again later")
	} else if ok {
		return withHint(fmt.Errorf("the node refused: %w", refused), "if it was revoked, or has expired for too long, let it join again: pinseal device add NAME on the node")
	}
	return withHint(fmt.Errorf("renewing: %w", explainTLS(err)), "the old certificate is still in force; try again, or let the device join again: pinseal device add NAME on the node")
}

// newRenewal is how the bundle's certificate is renewed, nil if nobody has told.
func (b bundle) newRenewal(now func() time.Time) *renewal.Holder {
	if b.client.EnrolPort == 0 {
		return nil
	}
	r := &bundleRenewal{bundle: b, now: now}
	return &renewal.Holder{
		Files:  b.tlsFiles(),
		Obtain: r.obtain, Try: r.try, Now: now,
	}
}

func (b bundle) tlsFiles() pki.Files {
	return pki.Files{Certificate: b.clientCert(), Key: b.clientKey(), CA: b.caCert()}
}

type bundleRenewal struct {
	bundle
	now func() time.Time
}

func (r *bundleRenewal) obtain(ctx context.Context, key crypto.Signer) (renewal.Obtained, error) {
	config, err := pki.RenewalConfig(r.tlsFiles(), r.client.Host, r.now)
	if err != nil {
		return renewal.Obtained{}, err
	}
	pki.DoubtClock(config, func() bool { return !systemd.ClockSynchronized() })
	address := net.JoinHostPort(r.client.Host, strconv.Itoa(int(r.client.EnrolPort)))
	chain, anchors, err := enrol.Renew(ctx, address, string(r.client.Name), key, config, dialForJoin)
	return renewal.Obtained{Chain: chain, Anchors: anchors}, err
}

// try goes all the way: the broker must let the new certificate in.
func (r *bundleRenewal) try(ctx context.Context, staged pki.Files) error {
	config, err := pki.ClientConfig(staged, r.client.Host, r.now)
	if err != nil {
		return err
	}
	pki.DoubtClock(config, func() bool { return !systemd.ClockSynchronized() })
	connection, err := mqtt.Connect(ctx, mqtt.Config{
		Dial:         dialTLS(net.JoinHostPort(r.client.Host, strconv.Itoa(int(r.client.Port))), config),
		CleanSession: true, OnMessage: func(_ mqtt.Message, ack func()) { ack() },
	})
	if err != nil {
		return err
	}
	return connection.Close()
}

func (c *client) renewalDue() bool {
	certificate, err := c.renewal.Current()
	return err == nil && !c.now().Before(renewal.Due(certificate))
}

func (c *client) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	return c.renewal.Renew(ctx)
}

// renewExpired renews a certificate that is of no other use any more.
func (c *client) renewExpired(ctx context.Context) {
	if c.renewal == nil {
		return
	}
	if certificate, err := c.renewal.Current(); err == nil && c.now().After(certificate.NotAfter) {
		c.renewQuietly(ctx)
	}
}

// Who calls one command after the other is not to wait each time for a node that does not renew.
const (
	renewPatience = 10 * time.Second
	renewPause    = time.Hour
)

// renewDue is for commands that end: they renew on their way out.
func (c *client) renewDue(ctx context.Context) {
	defer c.warnOfEnd()
	if c.renewal == nil || !c.renewalDue() {
		return
	}
	if last, err := os.Stat(c.renewal.Attempted()); err == nil && c.now().Sub(last.ModTime()) < renewPause {
		return
	}
	c.renewQuietly(ctx)
}

// warnOfEnd tells whoever gives commands that soon none will be taken any more. Where renewals work it never comes to that.
func (c *client) warnOfEnd() {
	certificate, err := readCertificate(c.Cert)
	if err != nil || c.now().After(certificate.NotAfter) || !expiresSoon(certificate.NotAfter, c.now()) {
		return // without a certificate, or with one that is over, connecting says what there is to say
	}
	c.warn(fmt.Sprintf("%s expires on %s: %s", c.Cert, certificate.NotAfter.Format(time.DateOnly), c.renewalCure()))
}

// renewalCure is what to do about a certificate that nobody has renewed.
func (c *client) renewalCure() string {
	switch {
	case c.renewal != nil:
		return "pinseal device renew --bundle " + c.Bundle
	case c.Bundle != "" && filepath.Dir(c.Bundle) == layoutUnder("").bundles():
		return "pinseal ca renew"
	case c.Bundle != "":
		return "pinseal ca renew on the node, if the bundle lies there, and copy it again; otherwise pinseal device add makes another"
	default:
		return "have it issued anew"
	}
}

func (c *client) renewQuietly(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewPatience)
	defer cancel()
	if err := c.renew(ctx); err != nil {
		c.log.Warn("the certificate was not renewed", "error", err)
		return
	}
	c.log.Info("the certificate was renewed")
}

// keepRenewed has the certificate renewed as long as the command runs. One that it cannot renew it tells of at once, so
// that a command that is over soon has told, too.
func (c *client) keepRenewed(ctx context.Context) {
	if c.renewal == nil {
		c.warnOfEnd()
		return
	}
	warned := time.Time{}
	go c.renewal.Run(ctx,
		func() { c.log.Info("the certificate was renewed") },
		func(err error, end time.Time) {
			c.log.Warn("the certificate was not renewed, trying again", "until", end, "error", err)
			if now := c.now(); now.Sub(warned) >= warnEvery {
				warned = now
				c.warnOfEnd()
			}
		})
}
