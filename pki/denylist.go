package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"
)

// DenyList says who is not let in, whatever their certificates say: names,
// until they are admitted anew, and single certificates for good. The zero
// value denies nobody. It is not safe for concurrent use while it is changed.
//
// Its text has one entry a line, of words with a space between:
//
//	name sensor-7 2026-11-22T08:00:00Z
//	serial 5c0ffee sensor-7 2026-11-22T08:00:00Z
//
// Empty lines and those that begin with # say nothing.
type DenyList struct {
	names   map[string]time.Time
	serials map[string]deniedSerial // by hexadecimal number
}

type deniedSerial struct {
	number *big.Int
	name   string
	since  time.Time
}

const (
	denyName   = "name"
	denySerial = "serial"
)

// ParseDenyList reads what [DenyList.Text] writes. Whatever it does not
// understand is an error with its line: a list that cannot be read denies
// everybody, rather than nobody.
func ParseDenyList(data []byte) (*DenyList, error) {
	d := &DenyList{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		words := strings.Fields(string(line))
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := d.parseLine(words); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return d, nil
}

func (d *DenyList) parseLine(words []string) error {
	name, rest := "", words[1:]
	var serial *big.Int
	switch {
	case words[0] == denyName && len(words) == 3:
	case words[0] == denySerial && len(words) == 4:
		var ok bool
		if serial, ok = new(big.Int).SetString(words[1], 16); !ok || serial.Sign() <= 0 {
			return fmt.Errorf("%.80q is not a serial number", words[1])
		}
		rest = words[2:]
	default:
		return errors.New("neither `name NAME TIME` nor `serial NUMBER NAME TIME`")
	}
	if name = rest[0]; !ValidName(name) {
		return fmt.Errorf("%.80q is not a name", name)
	}
	since, err := time.Parse(time.RFC3339, rest[1])
	if err != nil || since.Year() < 0 || since.UTC().Year() > 9999 {
		return fmt.Errorf("%.80q is not a time", rest[1])
	}
	if serial == nil {
		d.denyName(name, since)
	} else {
		d.denySerial(serial, name, since)
	}
	return nil
}

// Deny refuses a name, a [ValidName], and certificates that it has had. What
// was denied before keeps its time.
func (d *DenyList) Deny(name string, serials []*big.Int, since time.Time) {
	d.denyName(name, since)
	for _, serial := range serials {
		d.denySerial(serial, name, since)
	}
}

func (d *DenyList) denyName(name string, since time.Time) {
	if d.names == nil {
		d.names = map[string]time.Time{}
	}
	if _, known := d.names[name]; !known {
		d.names[name] = since.UTC().Truncate(time.Second)
	}
}

func (d *DenyList) denySerial(serial *big.Int, name string, since time.Time) {
	if d.serials == nil {
		d.serials = map[string]deniedSerial{}
	}
	if _, known := d.serials[serial.Text(16)]; !known {
		d.serials[serial.Text(16)] = deniedSerial{serial, name, since.UTC().Truncate(time.Second)}
	}
}

// Admit lets a name in again, with another certificate than those it had.
func (d *DenyList) Admit(name string) { delete(d.names, name) }

// Names returns who is denied by name, in order.
func (d *DenyList) Names() []string { return slices.Sorted(maps.Keys(d.names)) }

// Since says since when a name is denied, if it is.
func (d *DenyList) Since(name string) (time.Time, bool) {
	since, ok := d.names[name]
	return since, ok
}

// Denies reports whether the certificate is denied by its number or by its
// [Identity].
func (d *DenyList) Denies(cert *x509.Certificate) bool {
	if _, ok := d.serials[cert.SerialNumber.Text(16)]; ok {
		return true
	}
	_, ok := d.names[cert.Subject.CommonName]
	return ok
}

// Text is the list as a file, in an order of its own.
func (d *DenyList) Text() []byte {
	var text bytes.Buffer
	text.WriteString("# Who is not let in any more. `pinseal device revoke` writes this file, `pinseal device add` admits a name again.\n")
	for _, name := range d.Names() {
		fmt.Fprintf(&text, "%s %s %s\n", denyName, name, d.names[name].Format(time.RFC3339))
	}
	for _, serial := range slices.Sorted(maps.Keys(d.serials)) {
		denied := d.serials[serial]
		fmt.Fprintf(&text, "%s %s %s %s\n", denySerial, serial, denied.name, denied.since.Format(time.RFC3339))
	}
	return text.Bytes()
}

// entries are the denied certificates for a revocation list.
func (d *DenyList) entries() []x509.RevocationListEntry {
	var entries []x509.RevocationListEntry
	for _, serial := range slices.Sorted(maps.Keys(d.serials)) {
		denied := d.serials[serial]
		entries = append(entries, x509.RevocationListEntry{SerialNumber: denied.number, RevocationTime: denied.since})
	}
	return entries
}
