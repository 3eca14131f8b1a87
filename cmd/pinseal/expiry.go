package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pinseal/pki"
)

// warnEvery is how often the log tells of what is about to expire.
const warnEvery = 24 * time.Hour

// expiring is a device whose newest certificate is about to end, or has ended lately.
type expiring struct {
	device string
	end    time.Time
}

// expiringDevices leaves those alone that were revoked, and those that have expired long ago: nobody has missed them.
func expiringDevices(l layout, node string, denied *pki.DenyList, now time.Time) ([]expiring, error) {
	issued, err := issuedCertificates(l)
	if err != nil {
		return nil, err
	}
	var soon []expiring
	for name, certificates := range issued {
		_, revoked := denied.Since(name)
		newest := newestGood(certificates, denied)
		if !revoked && name != node && newest != nil && expiresSoon(newest.NotAfter, now) {
			soon = append(soon, expiring{name, newest.NotAfter})
		}
	}
	slices.SortFunc(soon, func(a, b expiring) int { return cmp.Or(a.end.Compare(b.end), strings.Compare(a.device, b.device)) })
	return soon, nil
}

func expiresSoon(end, now time.Time) bool {
	left := end.Sub(now)
	return left < expiryNotice && left > -expiryNotice
}

// warnOfExpiry tells of everything that will be over within three weeks.
func (n *node) warnOfExpiry(now time.Time) {
	for _, s := range n.servers {
		if s == nil {
			continue
		}
		own, authority := s.Expiry()
		if expiresSoon(own, now) {
			n.log.Warn("the broker's certificate expires soon: pinseal doctor says more", "end", own.UTC().Format(time.RFC3339))
		}
		if authority.Sub(now) < authorityNotice && !n.layout.rotating() {
			n.log.Warn("an authority's certificate expires soon: pinseal ca rotate", "end", authority.UTC().Format(time.RFC3339))
		}
		break // all listeners have the same
	}
	soon, err := expiringDevices(n.layout, string(n.config.Node), n.current.Load().denied, now)
	if err != nil {
		n.log.Warn("the journal cannot be read, so nobody knows which devices expire", "error", err)
		return
	}
	n.expiring.Store(int64(len(soon)))
	for _, d := range soon {
		n.log.Warn("a device's certificate expires soon", "device", d.device, "end", d.end.UTC().Format(time.RFC3339))
	}
}

// devices looks for those that would have to join again.
func (n *nodeChecks) devices(context.Context) (string, error) {
	soon, err := expiringDevices(n.layout, string(n.config.Node), n.config.denied, n.now())
	if err != nil {
		return "", err
	}
	if len(soon) == 0 {
		return "no certificate expires within 21 days", nil
	}
	var names []string
	for _, d := range soon {
		names = append(names, fmt.Sprintf("%s (%s)", d.device, d.end.Format(time.DateOnly)))
	}
	return "", noticef("these expire soon, unless they renew: %s", strings.Join(names, ", "))
}
