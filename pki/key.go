package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const minRSABits = 2048

// GenerateKey makes a TLS key, ECDSA on P-256.
func GenerateKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating TLS key: %w", err)
	}
	return key, nil
}

// MarshalKey writes a private key as an unencrypted PKCS 8 PEM block.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding TLS key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPKCS8, Bytes: der}), nil
}

// ParseKey reads the one private key of a PEM file: PKCS 8, SEC 1 or PKCS 1,
// as OpenSSL writes them; an EC PARAMETERS block and certificates beside it
// are ignored. Accepted are ECDSA on P-256, P-384 and P-521, Ed25519, and RSA
// of at least 2048 bits.
func ParseKey(data []byte) (crypto.Signer, error) {
	block, err := keyBlock(data)
	if err != nil {
		return nil, err
	}
	key, err := parseKeyBlock(block)
	if err != nil {
		return nil, fmt.Errorf("parsing private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("private key cannot sign")
	}
	if err := checkPublicKey(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

func keyBlock(data []byte) (*pem.Block, error) {
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, err
	}
	var found *pem.Block
	for _, block := range blocks {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, fmt.Errorf("%w; write it without by `openssl pkey -in KEY -out PLAIN`", ErrEncrypted)
		case block.Type != blockPKCS8 && block.Type != "EC PRIVATE KEY" && block.Type != "RSA PRIVATE KEY":
			continue
		case found != nil:
			return nil, errors.New("more than one private key")
		}
		found = block
	}
	if found == nil {
		return nil, fmt.Errorf("no PRIVATE KEY block, only %s", blocks[0].Type)
	}
	return found, nil
}

func parseKeyBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	}
}

// checkPublicKey refuses what a TLS 1.3 peer could not use or should not trust.
func checkPublicKey(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P224() {
			return errors.New("P-224 is not usable with TLS 1.3; use P-256")
		}
	case *rsa.PublicKey:
		if pub.N.BitLen() < minRSABits {
			return fmt.Errorf("RSA key of %d bits; at least %d are required", pub.N.BitLen(), minRSABits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("unsupported public key type %T", pub)
	}
	return nil
}

// publicKey is what every public key of the standard library can do.
type publicKey interface{ Equal(crypto.PublicKey) bool }

// Belongs reports whether the certificate is for this key.
func Belongs(key crypto.Signer, cert *x509.Certificate) bool {
	pub, ok := key.Public().(publicKey)
	return ok && pub.Equal(cert.PublicKey)
}
