package main

import (
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"

	"pinseal/signing"
)

type verifier func(key *signing.PublicKey, digest, sig []byte) bool

func verifyDigest(key *signing.PublicKey, digest, sig []byte) bool {
	return key.VerifyDigest(digest, sig)
}

// curve is a file's curve: its algorithm and the order of its group.
type curve struct {
	alg   signing.Algorithm
	order string // hexadecimal, SEC 2 sections 2.4.1 and 2.4.2
}

// ecdsaFiles are all files of the two curves with signatures as r‖s. The format
// itself hashes with SHA-256 alone; the other hashes only bring more points to
// compute with.
func ecdsaFiles() map[string]curve {
	p256 := curve{signing.ES256, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"}
	k256 := curve{signing.ES256K, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"}
	return map[string]curve{
		"ecdsa_secp256r1_sha256_p1363_test.json":   p256,
		"ecdsa_secp256r1_sha512_p1363_test.json":   p256,
		"ecdsa_secp256r1_shake128_p1363_test.json": p256,
		"ecdsa_secp256k1_sha256_p1363_test.json":   k256,
		"ecdsa_secp256k1_sha512_p1363_test.json":   k256,
		"ecdsa_secp256k1_shake128_p1363_test.json": k256,
		"ecdsa_secp256k1_shake256_p1363_test.json": k256,
	}
}

// demand is what the format wants of a class of vectors.
type demand string

const (
	asTheySay demand = "as they say" // valid ones are accepted, invalid ones refused
	refused   demand = "refused"     // whatever they say
)

// ecdsaClasses is the decision about each flag. A flag that is not here came
// with newer vectors and must be decided upon first. There is no deviation:
// even small r and s, which are valid at 64 bytes, the format takes.
func ecdsaClasses() map[string]demand {
	return map[string]demand{
		"SignatureSize":   refused, // the format has 64 bytes, never fewer with zeros left out
		"RangeCheck":      refused, // r or s plus a multiple of the order
		"IntegerOverflow": refused, // r or s plus a power of two
		"ModifiedInteger": refused, // n − r: only s has a twin
		"Untruncatedhash": refused, // the digest is 32 bytes

		"ValidSignature":               asTheySay,
		"InvalidSignature":             asTheySay, // r and s of 0, 1, n − 1, n, p
		"ArithmeticError":              asTheySay,
		"EdgeCasePublicKey":            asTheySay,
		"EdgeCaseShamirMultiplication": asTheySay,
		"ModularInverse":               asTheySay,
		"PointDuplication":             asTheySay,
		"SmallRandS":                   asTheySay,
		"SpecialCaseHash":              asTheySay,
	}
}

type ecdsaGroup struct {
	PublicKeyPEM string        `json:"publicKeyPem"`
	Hash         string        `json:"sha"`
	Tests        []ecdsaVector `json:"tests"`
}

type ecdsaVector struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Message string   `json:"msg"` // hexadecimal
	RS      string   `json:"sig"` // hexadecimal
	Result  string   `json:"result"`
}

func (g ecdsaGroup) size() int { return len(g.Tests) }

func (r *report) judgeECDSA(vectors fs.FS, verify verifier) error {
	for file, c := range ecdsaFiles() {
		groups, err := read[ecdsaGroup](vectors, file)
		if err != nil {
			return err
		}
		for _, g := range groups {
			keys, err := signing.ParsePublicKeys([]byte(g.PublicKeyPEM))
			for _, v := range g.Tests {
				problem := err
				if problem == nil {
					problem = v.judge(keys[0], c, g.Hash, verify)
				}
				r.add(file, v.ID, v.Comment, problem)
			}
		}
	}
	return nil
}

func (v ecdsaVector) judge(key *signing.PublicKey, c curve, hash string, verify verifier) error {
	want, err := v.want()
	if err != nil {
		return err
	}
	message, err := hex.DecodeString(v.Message)
	if err != nil {
		return err
	}
	rs, err := hex.DecodeString(v.RS)
	if err != nil {
		return err
	}
	digest, err := digestOf(hash, message)
	if err != nil {
		return err
	}
	if key.Algorithm() != c.alg {
		return fmt.Errorf("the key is one for %s", key.Algorithm())
	}
	if got := verify(key, digest, rs); got != want {
		return fmt.Errorf("accepted: %v, want %v", got, want)
	}
	if want && !verify(key, digest, twin(rs, c.order)) {
		return errors.New("the twin (r, n−s) was refused")
	}
	return nil
}

// want is the decision: accepted or not.
func (v ecdsaVector) want() (bool, error) {
	want, err := valid(v.Result)
	if err != nil {
		return false, err
	}
	classes := ecdsaClasses()
	for _, flag := range v.Flags {
		class, ok := classes[flag]
		if !ok {
			return false, errors.New("no decision about the flag " + flag)
		}
		want = want && class == asTheySay
	}
	return want, nil
}

// digestOf is the leftmost 256 bits of the hash, all that ECDSA uses of it on
// these curves (FIPS 186-5 section 6.4.1).
func digestOf(hash string, message []byte) ([]byte, error) {
	switch hash {
	case "SHA-256":
		sum := sha256.Sum256(message)
		return sum[:], nil
	case "SHA-512":
		sum := sha512.Sum512(message)
		return sum[:32], nil
	case "SHAKE128":
		return sha3.SumSHAKE128(message, 32), nil
	case "SHAKE256":
		return sha3.SumSHAKE256(message, 32), nil
	}
	return nil, errors.New("no decision about the hash " + hash)
}

// twin is the other signature that whoever sees r‖s can make of it. The format
// accepts both halves of the range of s, since OpenSSL makes both.
func twin(rs []byte, order string) []byte {
	n, _ := new(big.Int).SetString(order, 16)
	out := append([]byte(nil), rs...)
	s := new(big.Int).SetBytes(rs[32:])
	s.Sub(n, s).FillBytes(out[32:])
	return out
}
