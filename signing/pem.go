package signing

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	blockSEC1       = "EC PRIVATE KEY" // RFC 5915
	blockPKCS8      = "PRIVATE KEY"    // RFC 5958
	blockPublic     = "PUBLIC KEY"     // RFC 5480
	blockParameters = "EC PARAMETERS"  // what `openssl ecparam -genkey` writes first
	blockEncrypted  = "ENCRYPTED PRIVATE KEY"
)

// The object identifiers of RFC 5480 section 2.1.1 and SEC 2 appendix A.
func oidECPublicKey() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} }

func oidP256() asn1.ObjectIdentifier      { return asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7} }
func oidSecp256k1() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 132, 0, 10} }

// ecPrivateKey is ECPrivateKey of RFC 5915 section 3. crypto/x509 has no
// secp256k1, so the structures are read here, for both curves alike.
type ecPrivateKey struct {
	Version    int
	Scalar     []byte
	Parameters asn1.RawValue  `asn1:"optional,explicit,tag:0"`
	Point      asn1.BitString `asn1:"optional,explicit,tag:1"`
}

type algorithmIdentifier struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

// privateKeyInfo is PrivateKeyInfo of RFC 5208 section 5 without attributes.
type privateKeyInfo struct {
	Version   int
	Algorithm algorithmIdentifier
	Key       []byte
}

// publicKeyInfo is SubjectPublicKeyInfo of RFC 5480 section 2.
type publicKeyInfo struct {
	Algorithm algorithmIdentifier
	Point     asn1.BitString
}

// ParsePrivateKey reads one private key in PEM, in SEC 1 or PKCS 8 form, of
// P-256 or secp256k1, as openssl writes them: an EC PARAMETERS block may stand
// before it, nothing else may stand anywhere. The curve must be given by name.
func ParsePrivateKey(data []byte) (*PrivateKey, error) {
	blocks, err := splitPEM(data)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 2 && blocks[0].Type == blockParameters {
		blocks = blocks[1:]
	}
	if len(blocks) != 1 {
		return nil, fmt.Errorf("%d PEM blocks, want one private key", len(blocks))
	}
	block := blocks[0]
	switch {
	case block.Type == blockEncrypted || len(block.Headers) > 0:
		return nil, errors.New("the private key is encrypted: decrypt it first (openssl pkey -in KEY -out NEW)")
	case block.Type == blockSEC1:
		return parseSEC1(block.Bytes, "")
	case block.Type == blockPKCS8:
		return parsePKCS8(block.Bytes)
	case block.Type == blockPublic:
		return nil, errors.New("a public key where a private one is needed")
	default:
		return nil, errors.New("no private key: want a PEM block " + blockPKCS8 + " or " + blockSEC1)
	}
}

// parseSEC1 reads an ECPrivateKey. alg is what an enclosing PKCS 8 says, "" for
// none; then the structure itself must name its curve.
func parseSEC1(der []byte, alg Algorithm) (*PrivateKey, error) {
	var info ecPrivateKey
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 || info.Version != 1 {
		return nil, errors.New("the private key is not an ECPrivateKey structure")
	}
	if alg == "" || len(info.Parameters.FullBytes) > 0 {
		named, err := namedCurve(info.Parameters.Bytes) // inside the [0]
		if err != nil {
			return nil, err
		}
		if alg != "" && alg != named {
			return nil, errors.New("the private key names two curves")
		}
		alg = named
	}
	key, err := newPrivateKey(alg, info.Scalar)
	if err != nil || info.Point.BitLength == 0 {
		return key, err
	}
	public, err := parsePoint(alg, info.Point)
	if err != nil {
		return nil, err
	}
	if public.id != key.public.id {
		return nil, errors.New("the public point does not belong to the private number")
	}
	return key, nil
}

func parsePKCS8(der []byte) (*PrivateKey, error) {
	var info privateKeyInfo
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 || info.Version != 0 {
		return nil, errors.New("the private key is not a PKCS 8 structure")
	}
	alg, err := info.Algorithm.curve()
	if err != nil {
		return nil, err
	}
	return parseSEC1(info.Key, alg)
}

// ParsePublicKeys reads one or more public keys in PEM (SubjectPublicKeyInfo),
// of P-256 or secp256k1, the point compressed or not, the curve by name.
// Anything else in data, even a comment, is an error: a damaged block must not
// be passed over in silence.
func ParsePublicKeys(data []byte) ([]*PublicKey, error) {
	blocks, err := splitPEM(data)
	if err != nil {
		return nil, err
	}
	keys := make([]*PublicKey, 0, len(blocks))
	for i, block := range blocks {
		switch {
		case strings.HasSuffix(block.Type, blockPKCS8):
			return nil, fmt.Errorf("block %d is a private key: keep it secret, and use its public key (openssl pkey -in KEY -pubout)", i+1)
		case block.Type != blockPublic || len(block.Headers) > 0:
			return nil, fmt.Errorf("block %d is not a %s block", i+1, blockPublic)
		}
		key, err := parseSPKI(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func parseSPKI(der []byte) (*PublicKey, error) {
	var info publicKeyInfo
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 {
		return nil, errors.New("the key is not a SubjectPublicKeyInfo structure")
	}
	alg, err := info.Algorithm.curve()
	if err != nil {
		return nil, err
	}
	// encoding/asn1 passes over bytes at the end of a sequence; writing it
	// again shows them.
	if again, err := asn1.Marshal(info); err != nil || !bytes.Equal(again, der) {
		return nil, errors.New("the key is not a SubjectPublicKeyInfo structure in DER")
	}
	return parsePoint(alg, info.Point)
}

func parsePoint(alg Algorithm, point asn1.BitString) (*PublicKey, error) {
	if point.BitLength != 8*len(point.Bytes) {
		return nil, errors.New("the public point is not whole bytes")
	}
	return newPublicKey(alg, point.Bytes)
}

func (a algorithmIdentifier) curve() (Algorithm, error) {
	if !a.Algorithm.Equal(oidECPublicKey()) {
		return "", errors.New("not an elliptic-curve key: want P-256 or secp256k1")
	}
	return namedCurve(a.Parameters.FullBytes)
}

// namedCurve reads ECParameters. RFC 5480 section 2.1.1 forbids explicit ones;
// with them a key could bring a generator of its maker's choice.
func namedCurve(parameters []byte) (Algorithm, error) {
	const sequence = 0x30
	var oid asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(parameters, &oid)
	switch {
	case len(parameters) > 0 && parameters[0] == sequence:
		return "", errors.New("the curve is given by explicit parameters: want it by name (openssl ec -param_enc named_curve)")
	case err != nil || len(rest) > 0:
		return "", errors.New("the key names no curve")
	case oid.Equal(oidP256()):
		return ES256, nil
	case oid.Equal(oidSecp256k1()):
		return ES256K, nil
	default:
		return "", errors.New("neither P-256 nor secp256k1 (openssl: prime256v1, secp256k1)")
	}
}

// splitPEM returns the blocks of data, at least one. Only white space may stand
// around them. encoding/pem skips what it cannot read; this does not.
func splitPEM(data []byte) ([]*pem.Block, error) {
	begin := []byte("-----BEGIN ")
	var blocks []*pem.Block
	for rest := bytes.TrimSpace(data); len(rest) > 0; {
		block, after := pem.Decode(rest)
		read := rest[:len(rest)-len(after)]
		if block == nil || !bytes.HasPrefix(read, begin) || bytes.Count(read, begin) != 1 {
			return nil, fmt.Errorf("PEM block %d is damaged, or text stands around it", len(blocks)+1)
		}
		blocks = append(blocks, block)
		rest = bytes.TrimSpace(after)
	}
	if len(blocks) == 0 {
		return nil, errors.New("no PEM block")
	}
	return blocks, nil
}

// PEM returns the key in PKCS 8, as openssl pkey writes it.
func (k *PrivateKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockPKCS8, Bytes: k.der})
}

// PEM returns the key as one PUBLIC KEY block, the point uncompressed, as
// openssl pkey -pubout writes it.
func (k *PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockPublic, Bytes: k.der})
}

func marshalPKCS8(alg Algorithm, scalar, point []byte) ([]byte, error) {
	id, err := identify(alg)
	if err != nil {
		return nil, err
	}
	inner, err := asn1.Marshal(ecPrivateKey{Version: 1, Scalar: scalar, Point: bitString(point)})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(privateKeyInfo{Algorithm: id, Key: inner})
}

func marshalSPKI(alg Algorithm, point []byte) ([]byte, error) {
	id, err := identify(alg)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(publicKeyInfo{Algorithm: id, Point: bitString(point)})
}

func identify(alg Algorithm) (algorithmIdentifier, error) {
	curve := oidP256()
	if alg == ES256K {
		curve = oidSecp256k1()
	}
	parameters, err := asn1.Marshal(curve)
	return algorithmIdentifier{Algorithm: oidECPublicKey(), Parameters: asn1.RawValue{FullBytes: parameters}}, err
}

func bitString(b []byte) asn1.BitString {
	return asn1.BitString{Bytes: b, BitLength: 8 * len(b)}
}
