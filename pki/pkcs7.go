package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
)

// CertsOnly packs certificates the way EST hands them out (RFC 7030 section
// 4.1.3): as the SignedData of RFC 5652 section 5.1 without signers, in DER.
func CertsOnly(certs ...*x509.Certificate) ([]byte, error) {
	var all []byte
	for _, cert := range certs {
		all = append(all, cert.Raw...)
	}
	empty := asn1.RawValue{Tag: asn1.TagSet, IsCompound: true}
	signedData := struct {
		Version      int
		Digests      asn1.RawValue
		Content      struct{ Type asn1.ObjectIdentifier }
		Certificates asn1.RawValue
		Signers      asn1.RawValue
	}{
		Version: 1, Digests: empty, Signers: empty,
		Certificates: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: all},
	}
	signedData.Content.Type = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1} // data
	inner, err := asn1.Marshal(signedData)
	if err != nil {
		return nil, fmt.Errorf("packing certificates: %w", err)
	}
	packed, err := asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{
		asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, // signedData
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner},
	})
	if err != nil {
		return nil, fmt.Errorf("packing certificates: %w", err)
	}
	return packed, nil
}
