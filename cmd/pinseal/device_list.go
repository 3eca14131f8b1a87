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
	table.row("DEVICE", "CERTIFICATE", "UNTIL", "SIGNS", "SERIAL")
	for _, name := range slices.Sorted(maps.Keys(issued)) {
		longest := longestGood(issued[name], denied)
		state, until := deviceState(name, longest, denied, time.Now())
		signs, serial := "", ""
		if exists(l.signer(name)) {
			signs = "yes"
		}
		if longest != nil {
			serial = pki.SerialText(longest)
		}
		table.row(name, state, until, signs, serial)
	}
	return table.flush()
}

// longestGood is the certificate that is good for longest, of those that are not denied; nil without one.
func longestGood(certificates []*x509.Certificate, denied *pki.DenyList) *x509.Certificate {
	var longest *x509.Certificate
	for _, certificate := range certificates {
		if !denied.Denies(certificate) && (longest == nil || certificate.NotAfter.After(longest.NotAfter)) {
			longest = certificate
		}
	}
	return longest
}

func deviceState(name string, longest *x509.Certificate, denied *pki.DenyList, now time.Time) (state, until string) {
	if since, ok := denied.Since(name); ok {
		return "revoked", "since " + since.Format(time.DateOnly)
	}
	if longest == nil {
		return "revoked", ""
	}
	switch end := longest.NotAfter; {
	case now.After(end):
		state = "expired"
	case end.Sub(now) < expiryNotice:
		state = "expires soon"
	default:
		state = "good"
	}
	return state, longest.NotAfter.Format(time.DateOnly)
}
