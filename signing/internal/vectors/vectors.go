// Package vectors makes the test vectors of the sealed message, byte for byte
// the same each time. It builds messages out of strings rather than with
// signing.Seal, which refuses to make most of them.
package vectors

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"path"
	"strings"

	"pinseal/signing"
)

// The keys are test keys, known to everybody.
//
//go:embed keys/*.key
var keyFiles embed.FS

// The parts that a vector has unless it is about them.
const (
	topic  = "ledStatus"
	now    = "1763787390"
	claims = `{"aud":"ledStatus","iat":1763787388.25,"seq":1763787388250000,"msg":"on"}`
)

// party is somebody with a key.
type party struct {
	name string
	key  *signing.PrivateKey
}

// vector is one file. What ok promises about the content is in facts.
type vector struct {
	name    string
	expect  string // ok or a reason
	rule    string
	topic   string
	now     string
	facts   []string
	message []byte
}

// generator collects vectors. The first error sticks.
type generator struct {
	operator, sensor, stranger party
	vectors                    []vector
	err                        error
}

// Generate returns the content of every generated file by its path under
// signing/testdata.
func Generate() (map[string][]byte, error) {
	g := new(generator)
	g.operator, g.sensor, g.stranger = g.party("operator"), g.party("sensor"), g.party("stranger")
	if g.err != nil {
		return nil, g.err
	}
	g.accepted()
	g.structure()
	g.header()
	g.claims()
	g.numbers()
	g.json()
	g.signatures()
	g.topics()
	g.times()
	g.order()
	files := map[string][]byte{
		"signers/operator.pem": g.operator.key.Public().PEM(),
		"signers/sensor.pem":   g.sensor.key.Public().PEM(),
	}
	for _, v := range g.vectors {
		file := "vectors/" + v.name + ".txt"
		if files[file] != nil {
			return nil, fmt.Errorf("two vectors %s", v.name)
		}
		files[file] = v.marshal()
	}
	return files, g.err
}

func (g *generator) party(name string) party {
	data, err := keyFiles.ReadFile(path.Join("keys", name+".key"))
	g.keep(err)
	key, err := signing.ParsePrivateKey(data)
	g.keep(err)
	return party{name, key}
}

func (g *generator) keep(err error) {
	if g.err == nil {
		g.err = err
	}
}

// header is the ordinary first part of a message by p.
func (p party) header() string {
	return `{"alg":"` + string(p.key.Public().Algorithm()) + `","kid":"` + p.key.Public().ID() + `","typ":"pinseal+jwt"}`
}

// sign returns the ordinary third part over header and claims.
func (g *generator) sign(p party, signed []byte) []byte {
	digest := sha256.Sum256(signed)
	signature, err := p.key.SignDigest(digest[:])
	g.keep(err)
	return signature
}

// seal makes a message by p of any header and claims, rightly signed.
func (g *generator) seal(p party, header, claims string) []byte {
	signed := b64([]byte(header)) + "." + b64([]byte(claims))
	return []byte(signed + "." + b64(g.sign(p, []byte(signed))))
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// add takes a vector with the ordinary topic and time, and returns it.
func (g *generator) add(expect, name, rule string, message []byte) *vector {
	g.vectors = append(g.vectors, vector{
		name: name, expect: expect, rule: rule, topic: topic, now: now, message: message,
	})
	return &g.vectors[len(g.vectors)-1]
}

// ok takes a message that is to be accepted, with what it must be read as.
func (g *generator) ok(name, rule string, by party, seq, msg string, message []byte) *vector {
	v := g.add("ok", name, rule, message)
	digest := sha256.Sum256(message[:bytes.LastIndexByte(message, '.')])
	v.facts = []string{
		"signer: " + by.name,
		"seq: " + seq,
		fmt.Sprintf("digest: %x", digest),
		"msg: " + msg,
	}
	return v
}

func malformed(g *generator, name, rule string, message []byte) {
	g.add("malformed", name, rule, message)
}

// badHeader and badClaims take a message whose one part is malformed.
func badHeader(g *generator, name, rule, header string) {
	malformed(g, name, rule, g.seal(g.operator, header, claims))
}

func badClaims(g *generator, name, rule, claims string) {
	malformed(g, name, rule, g.seal(g.operator, g.operator.header(), claims))
}

// with returns the ordinary claims with one piece replaced.
func with(piece, replacement string) string {
	return strings.Replace(claims, piece, replacement, 1)
}

func (v vector) marshal() []byte {
	b := fmt.Appendf(nil, "expect: %s\nrule: %s\ntopic: %s\nnow: %s\n", v.expect, v.rule, v.topic, v.now)
	for _, fact := range v.facts {
		b = append(append(b, fact...), '\n')
	}
	return append(append(b, '\n'), v.message...)
}
