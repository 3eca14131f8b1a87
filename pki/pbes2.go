package pki

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // of a message authentication code, in files that old programs wrote
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
)

// Private keys under a passphrase: PKCS 8 with PBES2 (RFC 8018 section 6.2),
// as `openssl pkey -aes256` and `openssl genpkey -aes-256-cbc` write them.

const (
	blockEncrypted = "ENCRYPTED PRIVATE KEY"
	saltBytes      = 16
	// iterations is what OWASP recommends for PBKDF2 with SHA-256.
	iterations = 600_000
	// maxIterations keeps a file from keeping us busy for long.
	maxIterations = 10_000_000
)

// ErrEncrypted says that a private key needs a passphrase.
var ErrEncrypted = errors.New("the private key is encrypted with a passphrase")

// ErrPassphrase says that a passphrase is not the right one, or that the file is
// damaged: which of both cannot be told.
var ErrPassphrase = errors.New("wrong passphrase, or the file is damaged")

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct {
	Derivation, Scheme pkix.AlgorithmIdentifier
}

type derivation struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

func oid(last ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113549}, last...)
}

func oidAES(mode int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, mode}
}

// EncryptKey writes a private key as PEM, encrypted with AES-256-CBC under a key
// that PBKDF2 with HMAC-SHA-256 makes of the passphrase, which must not be empty.
func EncryptKey(key crypto.Signer, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("an empty passphrase protects nothing")
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key: %w", err)
	}
	salt, iv := make([]byte, saltBytes), make([]byte, aes.BlockSize)
	_, _ = rand.Read(salt) // never fails
	_, _ = rand.Read(iv)
	secret, err := pbkdf2.Key(sha256.New, string(passphrase), salt, iterations, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key from the passphrase: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("encrypting the private key: %w", err)
	}
	padding := aes.BlockSize - len(plain)%aes.BlockSize
	plain = append(plain, bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(plain, plain)
	der, err := marshalPBES2(plain, salt, iv)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockEncrypted, Bytes: der}), nil
}

func marshalPBES2(data, salt, iv []byte) ([]byte, error) {
	identifier := func(id asn1.ObjectIdentifier, parameters any) (pkix.AlgorithmIdentifier, error) {
		der, err := asn1.Marshal(parameters)
		return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: der}}, err
	}
	prf := pkix.AlgorithmIdentifier{Algorithm: oid(2, 9), Parameters: asn1.NullRawValue}
	kdf, err := identifier(oid(1, 5, 12), derivation{Salt: salt, Iterations: iterations, PRF: prf})
	if err != nil {
		return nil, err
	}
	scheme, err := identifier(oidAES(42), iv)
	if err != nil {
		return nil, err
	}
	algorithm, err := identifier(oid(1, 5, 13), pbes2{kdf, scheme})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(encryptedKey{algorithm, data})
}

// DecryptKey reads what [EncryptKey] and OpenSSL write: PBES2 with PBKDF2 and
// AES-CBC. A wrong passphrase is [ErrPassphrase].
func DecryptKey(data, passphrase []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != blockEncrypted {
		return nil, errors.New("not an ENCRYPTED PRIVATE KEY in PEM")
	}
	var wrapped encryptedKey
	if rest, err := asn1.Unmarshal(block.Bytes, &wrapped); err != nil || len(rest) > 0 {
		return nil, errors.New("the encrypted private key is malformed")
	}
	var parameters pbes2
	if !wrapped.Algorithm.Algorithm.Equal(oid(1, 5, 13)) {
		return nil, errors.New("the private key is encrypted otherwise than by PBES2: openssl pkey -aes256 writes it so")
	}
	if rest, err := asn1.Unmarshal(wrapped.Algorithm.Parameters.FullBytes, &parameters); err != nil || len(rest) > 0 {
		return nil, errors.New("the encrypted private key is malformed")
	}
	plain, err := decryptPBES2(wrapped.Data, parameters, passphrase)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, ErrPassphrase
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

func decryptPBES2(data []byte, p pbes2, passphrase []byte) ([]byte, error) {
	sizes := map[int]int{2: 16, 22: 24, 42: 32} // RFC 3565 section 4.1, by the last number of the identifier
	size := 0
	for mode, bytes := range sizes {
		if p.Scheme.Algorithm.Equal(oidAES(mode)) {
			size = bytes
		}
	}
	var iv []byte
	if rest, err := asn1.Unmarshal(p.Scheme.Parameters.FullBytes, &iv); size == 0 || err != nil || len(rest) > 0 || len(iv) != aes.BlockSize {
		return nil, errors.New("the private key is encrypted otherwise than by AES-CBC")
	}
	secret, err := deriveKey(p.Derivation, passphrase, size)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("decrypting the private key: %w", err)
	}
	if len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, ErrPassphrase
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	padding := int(plain[len(plain)-1])
	if padding == 0 || padding > aes.BlockSize || !bytes.Equal(plain[len(plain)-padding:], bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, ErrPassphrase
	}
	return plain[:len(plain)-padding], nil
}

func deriveKey(from pkix.AlgorithmIdentifier, passphrase []byte, size int) ([]byte, error) {
	var d derivation
	if rest, err := asn1.Unmarshal(from.Parameters.FullBytes, &d); !from.Algorithm.Equal(oid(1, 5, 12)) || err != nil || len(rest) > 0 {
		return nil, errors.New("the passphrase is used otherwise than by PBKDF2")
	}
	if d.Iterations < 1 || d.Iterations > maxIterations || d.KeyLength != 0 && d.KeyLength != size {
		return nil, fmt.Errorf("PBKDF2 with %d iterations for %d bytes; at most %d are made", d.Iterations, d.KeyLength, maxIterations)
	}
	functions := map[int]func() hash.Hash{7: sha1.New, 9: sha256.New, 11: sha512.New} // RFC 8018 appendix B.1.2
	prf := functions[7]
	if d.PRF.Algorithm != nil {
		prf = nil
		for last, function := range functions {
			if d.PRF.Algorithm.Equal(oid(2, last)) {
				prf = function
			}
		}
	}
	if prf == nil {
		return nil, fmt.Errorf("PBKDF2 with the unknown function %v", d.PRF.Algorithm)
	}
	key, err := pbkdf2.Key(prf, string(passphrase), d.Salt, d.Iterations, size)
	if err != nil {
		return nil, fmt.Errorf("deriving a key from the passphrase: %w", err)
	}
	return key, nil
}
