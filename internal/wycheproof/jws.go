package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"pinseal/signing"
)

const jwsFile = "json_web_signature_test.json"

type jwsGroup struct {
	Private json.RawMessage `json:"private"`
	Tests   []jwsVector     `json:"tests"`
}

type jwsVector struct {
	ID      int    `json:"tcId"`
	Comment string `json:"comment"`
	JWS     string `json:"jws"`
	Result  string `json:"result"`
}

func (g jwsGroup) size() int { return len(g.Tests) }

// keyDecides says whether a vector is invalid only because its JWK is meant for
// something else ("use", "key_ops"). Keys of the format are PUBLIC KEY blocks
// in a folder of their own, which say nothing of the kind: the signature holds.
func keyDecides(comment string) bool {
	return comment == "rejectWrongUse" || comment == "rejectWrongKeyOps"
}

// judgeJWS demands three things of the vectors.
//
// Every one is refused as malformed, also the valid ones: the format takes no
// JWS without its own typ and a thumbprint as kid, and no other algorithm.
//
// That alone would say little of the signatures. So those made for a P-256 key
// are verified without the format around them, and must be as good as the
// vector says, with the one exception of keyDecides.
//
// And put into a sealed message in the place of its own signature, by the
// same key, each of their signatures is refused.
func (r *report) judgeJWS(vectors fs.FS, verify verifier) error {
	groups, err := read[jwsGroup](vectors, jwsFile)
	if err != nil {
		return err
	}
	for _, g := range groups {
		key, err := parseJWK(g.Private)
		if err != nil {
			return fmt.Errorf("reading vectors %s: %w", jwsFile, err)
		}
		for _, v := range g.Tests {
			problem := malformed(v.JWS)
			if problem == nil && key != nil {
				problem = v.judge(key, verify)
			}
			r.add(jwsFile, v.ID, v.Comment, problem)
		}
	}
	return nil
}

// parseJWK returns the private key of a group, nil if it is none of the format.
// The only curve of the format in this file is P-256.
func parseJWK(jwk []byte) (*signing.PrivateKey, error) {
	var k struct {
		Curve  string `json:"crv"`
		Scalar string `json:"d"`
	}
	if err := json.Unmarshal(jwk, &k); err != nil || k.Curve != "P-256" {
		return nil, err
	}
	scalar, err := base64.RawURLEncoding.DecodeString(k.Scalar)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return signing.ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func malformed(message string) error {
	if _, err := signing.Parse([]byte(message)); err != nil {
		return refusedFor(err, signing.ReasonMalformed)
	}
	return errors.New("parsed as a sealed message")
}

func refusedFor(err error, reasons ...signing.Reason) error {
	if r, ok := errors.AsType[*signing.RefusedError](err); ok && slices.Contains(reasons, r.Reason) {
		return nil
	}
	return fmt.Errorf("refused for another reason: %w", err)
}

func (v jwsVector) judge(key *signing.PrivateKey, verify verifier) error {
	want, err := valid(v.Result)
	if err != nil {
		return err
	}
	want = want || keyDecides(v.Comment)
	if got := v.signatureHolds(key.Public(), verify); got != want {
		return fmt.Errorf("the signature holds: %v, want %v", got, want)
	}
	return v.transplant(key)
}

// signatureHolds verifies a compact serialisation of whatever header and claims.
func (v jwsVector) signatureHolds(key *signing.PublicKey, verify verifier) bool {
	parts := strings.Split(v.JWS, ".")
	if len(parts) != 3 {
		return false
	}
	sig, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return false
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return verify(key, digest[:], sig)
}

// transplant puts the signature into a sealed message of the same key.
func (v jwsVector) transplant(key *signing.PrivateKey) error {
	keyring, err := signing.NewKeyring(signing.Signer{Name: "wycheproof", Key: key.Public()})
	if err != nil {
		return err
	}
	own, err := signing.Seal(key, signing.Claims{Topic: "ledStatus", IssuedAt: time.Unix(1800000000, 0), Sequence: 1, Message: []byte(`"on"`)})
	if err != nil {
		return err
	}
	if _, _, err := signing.Open(own, "ledStatus", keyring); err != nil {
		return fmt.Errorf("with its own signature: %w", err)
	}
	theirs := v.JWS[strings.LastIndexByte(v.JWS, '.')+1:]
	message := append(own[:bytes.LastIndexByte(own, '.')+1], theirs...)
	_, _, err = signing.Open(message, "ledStatus", keyring)
	if err == nil {
		return errors.New("the signature holds for another message")
	}
	return refusedFor(err, signing.ReasonMalformed, signing.ReasonBadSignature)
}
