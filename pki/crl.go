package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	blockCRL = "X509 CRL"
	// crlLifetime is how long a revocation list of ours is good. Others refuse
	// everybody when it is over, so it is renewed long before.
	crlLifetime = 90 * day
)

// RevocationList returns a PEM revocation list (RFC 5280 section 5) of the
// certificates in the deny list, good for 90 days. previous is the list that
// it replaces, as PEM, or nil: its number is higher.
func (a *Authority) RevocationList(denied *DenyList, previous []byte, now time.Time) ([]byte, error) {
	// Numbers must never fall, even where the previous list was lost.
	number := big.NewInt(now.Unix())
	if old, err := ParseRevocationLists(previous); err == nil {
		for _, list := range old {
			if list.Number != nil && list.Number.Cmp(number) >= 0 {
				number.Add(list.Number, big.NewInt(1))
			}
		}
	}
	template := &x509.RevocationList{
		RevokedCertificateEntries: denied.entries(),
		Number:                    number,
		ThisUpdate:                now.Add(-backdate).UTC().Truncate(time.Second),
		NextUpdate:                now.Add(crlLifetime).UTC().Truncate(time.Second),
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the revocation list: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockCRL, Bytes: der}), nil
}

// ParseRevocationLists reads every X509 CRL block of a PEM file, or one list in
// DER. It is an error if there is none. It does not verify their signatures.
func ParseRevocationLists(data []byte) ([]*x509.RevocationList, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		list, err := parseRevocationList(data)
		if err != nil {
			return nil, err
		}
		return []*x509.RevocationList{list}, nil
	}
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, err
	}
	var lists []*x509.RevocationList
	for _, block := range blocks {
		if block.Type != blockCRL {
			continue
		}
		list, err := parseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("no X509 CRL block, only %s", blocks[0].Type)
	}
	return lists, nil
}

// parseRevocationList refuses lists that are not what they seem: one with a
// critical extension that is not understood (RFC 5280 section 5.2), such as
// part of a list or the changes to one, says nothing about who is not in it.
func parseRevocationList(der []byte) (*x509.RevocationList, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("parsing revocation list: %w", err)
	}
	if list.NextUpdate.IsZero() {
		return nil, errors.New("the revocation list does not say until when it is good (nextUpdate)")
	}
	for _, extension := range list.Extensions {
		if extension.Critical {
			return nil, fmt.Errorf("the revocation list has a critical extension %v that is not understood; only whole lists are", extension.Id)
		}
	}
	return list, nil
}

// revocations is what is known about certificates that are not to be accepted.
// It is immutable.
type revocations struct {
	denied *DenyList
	lists  map[string]*issuedList // by the issuer
}

// issuedList is a verified revocation list.
type issuedList struct {
	*x509.RevocationList
	issuer  string // for people
	serials map[string]bool
}

func (l *issuedList) over(now time.Time) error {
	if now.After(l.NextUpdate) {
		return fmt.Errorf("the revocation list of %q was good until %s: who was revoked since is not known", l.issuer, date(l.NextUpdate))
	}
	return nil
}

// issuerID is the same for every certificate of one authority, also for one
// that another authority has signed.
func issuerID(cert *x509.Certificate) string {
	return string(cert.RawSubject) + string(cert.RawSubjectPublicKeyInfo)
}

// loadRevocations reads the two files, of which neither must be named, and the
// deny list need not exist. Every revocation list must be signed by one of the
// authorities. One that is over is loaded: [revocations.check] refuses what it
// should have spoken about.
func loadRevocations(f Files, authorities []*x509.Certificate) (*revocations, error) {
	r := &revocations{denied: &DenyList{}, lists: map[string]*issuedList{}}
	var err error
	if f.Denied != "" && fileExists(f.Denied) {
		if r.denied, err = readFile(f.Denied, ParseDenyList); err != nil {
			return nil, asDenyList(err)
		}
	}
	if f.CRL == "" {
		return r, nil
	}
	lists, err := readFile(f.CRL, ParseRevocationLists)
	if err != nil {
		return nil, err
	}
	for _, list := range lists {
		if err := r.add(list, authorities); err != nil {
			return nil, &FileError{f.CRL, err, "give the list of an authority in the CA file, and put the certificate of the authority that signs it there"}
		}
	}
	return r, nil
}

func asDenyList(err error) error {
	if file, ok := errors.AsType[*FileError](err); ok {
		file.Hint = "mend the line, or restore the file from a backup; without the file nobody is denied"
	}
	return err
}

func (r *revocations) add(list *x509.RevocationList, authorities []*x509.Certificate) error {
	for _, authority := range authorities {
		if list.CheckSignatureFrom(authority) != nil || !bytes.Equal(list.RawIssuer, authority.RawSubject) {
			continue
		}
		id := issuerID(authority)
		if known := r.lists[id]; known != nil && known.ThisUpdate.After(list.ThisUpdate) {
			return nil
		}
		issued := &issuedList{list, authority.Subject.String(), map[string]bool{}}
		for _, entry := range list.RevokedCertificateEntries {
			issued.serials[entry.SerialNumber.Text(16)] = true
		}
		r.lists[id] = issued
		return nil
	}
	return fmt.Errorf("the revocation list of %q is signed by none of the trusted authorities", list.Issuer)
}

// check judges verified chains: one that is in order is enough.
func (r *revocations) check(chains [][]*x509.Certificate, now time.Time) error {
	if r.denied.Denies(chains[0][0]) {
		return errRevoked
	}
	var err error
	for _, chain := range chains {
		if err = r.checkChain(chain, now); err == nil {
			return nil
		}
	}
	return err
}

var errRevoked = errors.New("revoked")

func (r *revocations) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i, cert := range chain[:len(chain)-1] {
		list := r.lists[issuerID(chain[i+1])]
		switch {
		case list == nil:
		case list.serials[cert.SerialNumber.Text(16)]:
			return errRevoked
		default:
			if err := list.over(now); err != nil {
				return err
			}
		}
	}
	return nil
}
