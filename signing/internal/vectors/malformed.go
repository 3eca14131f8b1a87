package vectors

import (
	"bytes"
	"cmp"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"

	"pinseal/signing"
)

func (g *generator) structure() {
	message := g.seal(g.operator, g.operator.header(), claims)
	parts := strings.Split(string(message), ".")
	h, c, s := parts[0], parts[1], parts[2]
	join := func(parts ...string) []byte { return []byte(strings.Join(parts, ".")) }
	malformed(g, "empty", "three parts", nil)
	malformed(g, "plain-1", "a plain command is no sealed message", []byte("1"))
	malformed(g, "one-part", "three parts", join(h))
	malformed(g, "two-parts", "three parts", join(h, c))
	malformed(g, "four-parts", "three parts", join(h, c, s, s))
	malformed(g, "no-header", "three parts, none empty", join("", c, s))
	malformed(g, "no-claims", "three parts, none empty", join(h, "", s))
	malformed(g, "no-signature", "three parts, none empty", join(h, c, ""))
	malformed(g, "json-serialisation", "the compact serialisation only", []byte(`{"protected":"`+h+`","payload":"`+c+`","signature":"`+s+`"}`))
	malformed(g, "trailing-line-feed", "no trailing bytes", append(bytes.Clone(message), '\n'))
	malformed(g, "trailing-zero-byte", "no trailing bytes", append(bytes.Clone(message), 0))
	malformed(g, "leading-space", "no leading bytes", append([]byte(" "), message...))
	malformed(g, "line-break-in-header", "no line breaks in base64url", join(h[:20]+"\n"+h[20:], c, s))
	malformed(g, "line-break-in-claims", "no line breaks in base64url", join(h, c[:20]+"\r\n"+c[20:], s))
	malformed(g, "line-break-in-signature", "no line breaks in base64url", join(h, c, s[:20]+"\n"+s[20:]))
	malformed(g, "line-breaks-instead-in-signature", "no line breaks in base64url", join(h, c, s[:20]+"\n\n"+s[22:]))
	malformed(g, "padded-header", "no padding", g.signParts(pad(h+b64([]byte(" "))), c))
	malformed(g, "padded-claims", "no padding", g.signParts(h, base64.URLEncoding.EncodeToString([]byte(claims+" "))))
	malformed(g, "padded-signature", "no padding", join(h, c, s+"=="))
	standard := base64.RawStdEncoding.EncodeToString([]byte(with("on", "ÿÿÿ???>>>")))
	malformed(g, "standard-alphabet", "the alphabet is base64url", g.signParts(h, standard))
	malformed(g, "uncanonical-header", "unused bits are zero", g.signParts(looseEnd(g.operator.header()+" "), c))
	malformed(g, "uncanonical-claims", "unused bits are zero", g.signParts(h, looseEnd(claims)))
	malformed(g, "uncanonical-signature", "unused bits are zero", join(h, c, next(s)))
	malformed(g, "single-character-rest", "base64url has no group of one character", g.signParts(h, b64([]byte(claims+"  "))+"A"))
	malformed(g, "signature-63-bytes", "the signature is 64 bytes", join(h, c, b64(g.sign(g.operator, join(h, c))[:63])))
	malformed(g, "signature-65-bytes", "the signature is 64 bytes", join(h, c, b64(append(g.sign(g.operator, join(h, c)), 0))))
	malformed(g, "signature-der", "the signature is r and s, not DER", join(h, c, b64(g.der(join(h, c)))))
	long, _ := g.fill(signing.MaxSealedBytes + 2) // with this header no message has one byte more
	malformed(g, "too-long", "a message has at most 65536 bytes", long)
}

// signParts signs two parts that are already encoded, rightly or wrongly.
func (g *generator) signParts(header, claims string) []byte {
	signed := header + "." + claims
	return []byte(signed + "." + b64(g.sign(g.operator, []byte(signed))))
}

func pad(s string) string { return s + strings.Repeat("=", (4-len(s)%4)%4) }

// looseEnd encodes b, made longer by white space until there are unused bits,
// with one of them set.
func looseEnd(b string) string {
	for len(b)%3 == 0 {
		b += " "
	}
	return next(b64([]byte(b)))
}

// next replaces the last character by the next one of the alphabet.
func next(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + alphabet[i+1:i+2]
}

// der is the other usual form of a signature, RFC 3279 section 2.2.3.
func (g *generator) der(signed []byte) []byte {
	raw := g.sign(g.operator, signed)
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
	g.keep(err)
	return der
}

func (g *generator) header() {
	ordinary := g.operator.header()
	kid := g.operator.key.Public().ID()
	change := func(name, rule, old, replacement string) {
		badHeader(g, "header-"+name, rule, strings.Replace(ordinary, old, replacement, 1))
	}
	for _, alg := range []string{"none", "HS256", "ES384", "EdDSA", "es256", ""} {
		change("alg-"+cmp.Or(strings.ReplaceAll(alg, "es", "lower-case-es"), "empty"), "alg is ES256 or ES256K", `"ES256"`, `"`+alg+`"`)
	}
	change("alg-null", "alg is a string", `"ES256"`, `null`)
	change("no-alg", "alg is required", `"alg":"ES256",`, ``)
	change("no-kid", "kid is required", `"kid":"`+kid+`",`, ``)
	change("no-typ", "typ is required", `,"typ":"pinseal+jwt"`, ``)
	change("typ-jwt", "typ is pinseal+jwt", `pinseal+jwt`, `JWT`)
	change("typ-upper-case", "typ is pinseal+jwt, letter by letter", `pinseal+jwt`, `PINSEAL+JWT`)
	change("typ-media-type", "typ has no application/ before it", `pinseal+jwt`, `application/pinseal+jwt`)
	change("kid-42-characters", "kid has 43 characters", kid, kid[:42])
	change("kid-44-characters", "kid has 43 characters", kid, kid+"A")
	change("kid-padded", "kid is base64url without padding", kid, kid[:42]+"=")
	change("kid-standard-alphabet", "kid is base64url", kid, "+"+kid[1:])
	change("kid-number", "kid is a string", `"`+kid+`"`, `1`)
	for _, member := range []string{
		`"crit":["exp"]`, `"jwk":{"kty":"EC"}`, `"jku":"https://example.org/k"`, `"x5c":[]`, `"x5u":"https://example.org/c"`,
		`"b64":false`, `"cty":"JWT"`, `"zip":"DEF"`, `"iat":1`, `"ALG":"ES256"`,
	} {
		name := strings.Trim(member[:strings.IndexByte(member, ':')], `"`)
		if name == "ALG" {
			name = "upper-case-name"
		}
		change("with-"+name, "no member but alg, kid and typ", `{`, `{`+member+`,`)
	}
	change("twice-alg", "names are unique", `{`, `{"alg":"ES256",`)
	change("twice-alg-escaped", "names are unique whatever their escapes", `{`, `{"\u0061lg":"ES256",`)
	change("array", "the header is an object", ordinary, `[`+ordinary+`]`)
	change("empty-object", "alg, kid and typ are required", ordinary, `{}`)
	change("trailing-bytes", "nothing follows the object", ordinary, ordinary+`1`)
	change("trailing-comma", "strict JSON", `jwt"}`, `jwt",}`)
	change("unclosed", "strict JSON", `jwt"}`, `jwt"`)
	change("byte-order-mark", "strict JSON", `{`, "\ufeff{")
	change("invalid-utf8", "UTF-8", `pinseal+jwt`, "pinseal+jwt\xff")
}
