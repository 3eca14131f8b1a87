package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

const (
	maxNameBytes     = 64  // X.520 ub-common-name
	maxDNSNameBytes  = 253 // RFC 1035 section 2.3.4, without the final dot
	maxDNSLabelBytes = 63
)

// ValidName reports whether name may name a device, a node or a signer:
// one to 64 of the characters A-Z, a-z, 0-9, '_' and '-'.
func ValidName(name string) bool {
	return len(name) <= maxNameBytes && nameCharacters(name)
}

func nameCharacters(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// Identity returns the name that a certificate gives its holder: the common
// name. It does not verify the certificate. Without a common name, with one
// that is no [ValidName], or with several (libraries disagree which one
// counts) it returns an error.
func Identity(cert *x509.Certificate) (string, error) {
	name, err := commonName(cert.Subject)
	if err != nil {
		return "", fmt.Errorf("certificate's %w", err)
	}
	return name, nil
}

func oidCommonName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 4, 3} }

// commonName returns the one common name of a subject, a [ValidName].
func commonName(subject pkix.Name) (string, error) {
	count := 0
	for _, attribute := range subject.Names {
		if attribute.Type.Equal(oidCommonName()) {
			count++
		}
	}
	switch {
	case count == 0:
		return "", errors.New("subject has no common name")
	case count > 1:
		return "", errors.New("subject has more than one common name")
	case !ValidName(subject.CommonName):
		return "", errInvalidName(subject.CommonName)
	}
	return subject.CommonName, nil
}

func errInvalidName(name string) error {
	return fmt.Errorf("common name %.80q does not match [A-Za-z0-9_-]{1,64}", name)
}

// LocalNames returns what this machine may be called in a server certificate:
// its host name, NAME.local (multicast DNS), localhost, and the address of
// every interface without zone. No entry appears twice.
func LocalNames() ([]string, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("reading the host name: %w", err)
	}
	addresses, err := localAddresses()
	if err != nil {
		return nil, fmt.Errorf("listing network addresses: %w", err)
	}
	// Loopback addresses are named even while the interface is down, as in a
	// container at build time.
	names := append(localHostNames(host), "127.0.0.1", "::1")
	for _, address := range addresses {
		names = append(names, address.Unmap().WithZone("").String())
	}
	return unique(names), nil
}

func localHostNames(host string) []string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	label, _, _ := strings.Cut(host, ".")
	var names []string
	for _, name := range []string{host, label + ".local", "localhost"} {
		// A host name is free text to the kernel; DNS is stricter.
		if checkDNSName(name) == nil {
			names = append(names, name)
		}
	}
	return names
}

// unique drops repetitions and keeps the order of first appearance.
func unique(list []string) []string {
	var kept []string
	for _, s := range list {
		if !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// checkDNSName wants what RFC 1035 allows, and '_', which host names in the
// wild contain; wildcards have no place on a single machine.
func checkDNSName(name string) error {
	if len(name) > maxDNSNameBytes {
		return fmt.Errorf("DNS name %.80q… has more than %d bytes", name, maxDNSNameBytes)
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > maxDNSLabelBytes || !nameCharacters(label) {
			return fmt.Errorf("%.80q is neither a DNS name nor an IP address", name)
		}
	}
	return nil
}
