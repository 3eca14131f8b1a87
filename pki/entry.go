package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// EventIssued is the event of an [Entry] that records a certificate.
const EventIssued = "issued"

// Entry is one line of a [Journal]. Which fields an event has is up to the
// event; those that are zero are left out of the line.
type Entry struct {
	Number   int64     `json:"n"`    // from 1, without gaps; set by the journal
	Time     time.Time `json:"time"` // by the clock of who wrote it; not always increasing
	Event    string    `json:"event"`
	Name     string    `json:"name,omitempty"`    // of the certificate's holder
	Serial   string    `json:"serial,omitempty"`  // in hexadecimal
	Profile  string    `json:"profile,omitempty"` // what kind of certificate it is
	By       string    `json:"by,omitempty"`      // who allowed it, or how
	Key      string    `json:"key,omitempty"`     // SHA-256 of the public key's SubjectPublicKeyInfo, in hexadecimal
	NotAfter time.Time `json:"not_after,omitzero"`
	// Certificate is the whole of it, DER.
	Certificate []byte `json:"certificate,omitempty"`
	// Previous is the SHA-256 of the line before, in hexadecimal; of the first
	// line it is empty. Set by the journal.
	Previous string `json:"previous"`
}

// Issued is the entry of a certificate that is about to be handed out at now.
func Issued(cert *x509.Certificate, profile, by string, now time.Time) Entry {
	return Entry{
		Time: now.UTC().Truncate(time.Second), Event: EventIssued, Name: cert.Subject.CommonName, Serial: SerialText(cert),
		Profile: profile, By: by, Key: KeyFingerprint(cert), NotAfter: cert.NotAfter.UTC(), Certificate: cert.Raw,
	}
}

// SerialText is a certificate's serial number in hexadecimal.
func SerialText(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// KeyFingerprint is the SHA-256 of a certificate's public key, in hexadecimal.
func KeyFingerprint(cert *x509.Certificate) string {
	return hexSum(cert.RawSubjectPublicKeyInfo)
}

// Fingerprint is the SHA-256 of a certificate in hexadecimal, which `openssl
// x509 -fingerprint -sha256` shows with colons.
func Fingerprint(cert *x509.Certificate) string { return hexSum(cert.Raw) }

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ParseCertificate reads the certificate of an [EventIssued] entry, and finds
// out whether the rest of the entry tells the truth about it.
func (e Entry) ParseCertificate() (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return nil, fmt.Errorf("entry %d: parsing certificate: %w", e.Number, err)
	}
	told := Issued(cert, e.Profile, e.By, e.Time)
	if told.Name != e.Name || told.Serial != e.Serial || told.Key != e.Key || !told.NotAfter.Equal(e.NotAfter) {
		return nil, fmt.Errorf("entry %d is not about its certificate", e.Number)
	}
	return cert, nil
}

// after puts the entry behind the last one, of which line is the text.
func (e Entry) after(last Entry, line []byte) ([]byte, error) {
	e.Number, e.Previous = last.Number+1, ""
	if line != nil {
		e.Previous = hexSum(line)
	}
	e.Time = e.Time.UTC()
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding entry: %w", err)
	}
	if len(text) > maxEntryBytes {
		return nil, fmt.Errorf("an entry of %d bytes, at most %d are taken", len(text), maxEntryBytes)
	}
	return text, nil
}

// parseEntry takes only what after writes, byte for byte.
func parseEntry(line []byte) (Entry, error) {
	var e Entry
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		return Entry{}, err
	}
	again, err := json.Marshal(e)
	if err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(again, line) {
		return Entry{}, errors.New("not written by pinseal")
	}
	if e.Event == EventIssued {
		if _, err := e.ParseCertificate(); err != nil {
			return Entry{}, err
		}
	}
	return e, nil
}
