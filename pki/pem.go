package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	blockCertificate = "CERTIFICATE"
	blockPKCS8       = "PRIVATE KEY"
	blockRequest     = "CERTIFICATE REQUEST"
)

// decodePEM returns every block of data. Text around blocks is allowed, as
// `openssl x509 -text` writes it; a damaged block is an error, where
// [pem.Decode] would silently skip it.
func decodePEM(data []byte) ([]*pem.Block, error) {
	begins := 0
	for line := range bytes.Lines(data) {
		if bytes.HasPrefix(line, []byte("-----BEGIN ")) {
			begins++
		}
	}
	var blocks []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	switch {
	case begins == 0:
		return nil, errors.New("not a PEM file: no -----BEGIN line")
	case begins != len(blocks):
		return nil, errors.New("damaged PEM block: cut short or not base64")
	}
	return blocks, nil
}

// ParseCertificates reads every CERTIFICATE block of a PEM file, in order, and
// ignores other blocks. It is an error if there is none.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, block := range blocks {
		if block.Type != blockCertificate {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("no CERTIFICATE block, only %s", blocks[0].Type)
	}
	return certs, nil
}

// EncodeCertificates writes certificates as PEM, in order.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, encodeCertificate(cert.Raw)...)
	}
	return text
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})
}
