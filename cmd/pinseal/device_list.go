package main

import (
	"crypto/x509"
	"maps"
	"slices"
	"time"

	"pinseal/pki"
)

type deviceListCmd struct{ dirFlag }

// Run lists what was certified here, and who is denied.
func (c *deviceListCmd) Run(std streams) error {
	l := c.layout()
	issued, err := issuedCertificates(l)
	if err != nil {
		return err
	}
	denied, err := readDenied(l)
	if err != nil {
		return err
	}
	for _, name := range denied.Names() {
		if issued[name] == nil {
			issued[name] = nil // known by its name alone
		}
	}
	table := newTable(std.out)
	table.row("DEVICE", "CERTIFICATE", "UNTIL", "SIGNS")
	for _, name := range slices.Sorted(maps.Keys(issued)) {
		state, until := deviceState(name, issued[name], denied, time.Now())
		signs := ""
		if exists(l.signer(name)) {
			signs = "yes"
		}
		table.row(name, state, until, signs)
	}
	return table.flush()
}

// deviceState speaks of the certificate that is good for longest.
func deviceState(name string, certificates []*x509.Certificate, denied *pki.DenyList, now time.Time) (state, until string) {
	if since, ok := denied.Since(name); ok {
		return "revoked", "since " + since.Format(time.DateOnly)
	}
	var end time.Time
	for _, certificate := range certificates {
		if !denied.Denies(certificate) && certificate.NotAfter.After(end) {
			end = certificate.NotAfter
		}
	}
	switch {
	case end.IsZero():
		return "revoked", ""
	case now.After(end):
		state = "expired"
	case end.Sub(now) < expiryNotice:
		state = "expires soon"
	default:
		state = "good"
	}
	return state, end.Format(time.DateOnly)
}
