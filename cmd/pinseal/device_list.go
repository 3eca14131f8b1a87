package main

import (
	"crypto/x509"
	"maps"
	"slices"
	"time"

	"pinseal/pki"
)

type deviceListCmd struct {
	dirFlag
	listFlag
}

// Run lists what was certified here, and who is denied.
func (c *deviceListCmd) Run(std streams) error {
	l := c.layout()
	if err := l.checkNode(); err != nil {
		return err
	}
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
	table := c.table(std.out, "DEVICE", "CERTIFICATE", "UNTIL", "SIGNS", "SERIAL")
	for _, name := range slices.Sorted(maps.Keys(issued)) {
		newest := newestGood(issued[name], denied)
		state, until := deviceState(name, newest, denied, std.clock()())
		signs, serial := "", ""
		if exists(l.signer(name)) {
			signs = "yes"
		}
		if newest != nil {
			serial = pki.SerialText(newest)
		}
		table.row(name, state, until, signs, serial)
	}
	return table.flush()
}

// newestGood is the certificate that was issued last, of those that are not denied; nil without one. Its holder uses it,
// however long the one before would have been good.
func newestGood(certificates []*x509.Certificate, denied *pki.DenyList) *x509.Certificate {
	for _, certificate := range slices.Backward(certificates) {
		if !denied.Denies(certificate) {
			return certificate
		}
	}
	return nil
}

func deviceState(name string, newest *x509.Certificate, denied *pki.DenyList, now time.Time) (state, until string) {
	if since, ok := denied.Since(name); ok {
		return "revoked", "since " + since.Format(time.DateOnly)
	}
	if newest == nil {
		return "revoked", ""
	}
	switch end := newest.NotAfter; {
	case now.After(end):
		state = "expired"
	case end.Sub(now) < expiryNotice:
		state = "expires soon"
	default:
		state = "good"
	}
	return state, newest.NotAfter.Format(time.DateOnly)
}
