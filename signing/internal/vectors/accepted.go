package vectors

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"

	"pinseal/signing"
)

const (
	seq = "1763787388250000" // of the ordinary claims

	// The orders of the two groups, SEC 2 sections 2.4.1 and 2.4.2.
	orderP256      = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
	orderSecp256k1 = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
)

func (g *generator) accepted() {
	sealed := func(claims string) []byte { return g.seal(g.operator, g.operator.header(), claims) }
	plain := func(name, rule, msg string) {
		g.ok("ok-msg-"+name, rule, g.operator, seq, msg, sealed(with(`"on"`, msg)))
	}
	ordinary := sealed(claims)
	ordinaryK := g.seal(g.sensor, g.sensor.header(), claims)
	g.ok("ok-es256", "the worked example", g.operator, seq, `"on"`, ordinary)
	g.ok("ok-es256k", "the same with secp256k1", g.sensor, seq, `"on"`, ordinaryK)
	g.ok("ok-twin-es256", "(r, n-s) is as good as (r, s)", g.operator, seq, `"on"`, g.twin(g.operator, ordinary))
	g.ok("ok-twin-es256k", "(r, n-s) is as good as (r, s)", g.sensor, seq, `"on"`, g.twin(g.sensor, ordinaryK))
	g.ok("ok-white-space", "JSON white space is allowed", g.operator, seq, `"on"`,
		g.seal(g.operator, " \t\r\n"+strings.ReplaceAll(g.operator.header(), ",", " ,\n"), strings.ReplaceAll(claims, ":", "\t: ")+"\r\n"))
	g.ok("ok-member-order", "any order of members is allowed", g.operator, "7", `"on"`,
		g.seal(g.operator, `{"typ":"pinseal+jwt","kid":"`+g.operator.key.Public().ID()+`","alg":"ES256"}`, `{"msg":"on","seq":7,"iat":1763787388,"aud":"ledStatus"}`))
	g.ok("ok-escapes", "escapes are allowed, in names too", g.operator, seq, `"\u006fn \ud83d\udca1"`,
		sealed(`{"\u0061ud":"led\u0053tatus","iat":1763787388.25,"seq":1763787388250000,"msg":"\u006fn \ud83d\udca1"}`))
	plain("object", "msg is any JSON value but null", `{"state":"ON","brightness":12}`)
	plain("number", "msg is any JSON value but null", `1`)
	plain("false", "msg is any JSON value but null", `false`)
	plain("empty-string", "msg is any JSON value but null", `""`)
	plain("spaced", "msg is kept as it was received", `{ "state" : "ON" }`)
	plain("large-number", "a number inside msg is not limited", `[1e400,-0,0.1234567]`)
	plain("null-inside", "only msg itself must not be null", `[null]`)
	plain("depth-16", "16 arrays and objects may be open at once", strings.Repeat(`[`, 8)+strings.Repeat(`{"a":`, 8)+`1`+strings.Repeat(`}`, 8)+strings.Repeat(`]`, 8))
	plain("brackets-in-string", "brackets in a string do not nest", `"\"`+strings.Repeat(`[`, 20)+`"`)
	plain("same-names-apart", "names are unique within one object", `[{"a":1},{"a":{"a":2}}]`)
	g.ok("ok-seq-0", "seq begins at 0", g.operator, "0", `"on"`, sealed(with(seq, "0")))
	g.ok("ok-seq-max", "seq ends at 2^53-1", g.operator, "9007199254740991", `"on"`, sealed(with(seq, "9007199254740991")))
	g.ok("ok-iat-whole", "fractions are optional", g.operator, seq, `"on"`, sealed(with("1763787388.25", "1763787388")))
	g.ok("ok-iat-six-decimals", "six decimals are allowed", g.operator, seq, `"on"`, sealed(with("388.25", "388.250000")))
	g.ok("ok-exp", "exp in the future", g.operator, seq, `"on"`, sealed(with(`"msg"`, `"exp":1763787390.000001,"msg"`)))
	g.ok("ok-nonce", "nonce is the receiver's to judge", g.operator, seq, `"on"`, sealed(with(`"msg"`, `"nonce":"n2Zb5r0o0iXyKkXb7h0Zrg","msg"`)))
	g.ok("ok-nonce-64-bytes", "nonce has at most 64 bytes", g.operator, seq, `"on"`, sealed(with(`"msg"`, `"nonce":"`+strings.Repeat("n", 64)+`","msg"`)))
	g.ok("ok-topic-levels", "any topic name", g.operator, seq, `"on"`, sealed(with("ledStatus", "/a//b c/ü/$x/"))).topic = "/a//b c/ü/$x/"
	g.ok("ok-topic-256-bytes", "a topic has at most 256 bytes", g.operator, seq, `"on"`, sealed(with("ledStatus", strings.Repeat("t", 256)))).topic = strings.Repeat("t", 256)
	long, msg := g.fill(signing.MaxSealedBytes)
	g.ok("ok-65536-bytes", "a message has at most 65536 bytes", g.operator, seq, msg, long)
}

// fill makes an otherwise ordinary message of exactly size bytes and returns
// its msg too.
func (g *generator) fill(size int) (message []byte, msg string) {
	ordinary := len(g.seal(g.operator, g.operator.header(), claims))
	for n := (size - ordinary) * 3 / 4; n < size; n++ {
		msg = `"` + strings.Repeat("x", n) + `"`
		message = g.seal(g.operator, g.operator.header(), with(`"on"`, msg))
		if len(message) == size {
			return message, msg
		}
	}
	g.keep(fmt.Errorf("no message has exactly %d bytes", size))
	return nil, ""
}

// twin replaces s by n−s.
func (g *generator) twin(p party, message []byte) []byte {
	return g.resign(message, func(r, s *big.Int) { s.Sub(order(p), s) })
}

func order(p party) *big.Int {
	hex := orderP256
	if p.key.Public().Algorithm() == signing.ES256K {
		hex = orderSecp256k1
	}
	n, _ := new(big.Int).SetString(hex, 16) // a constant
	return n
}

// resign changes the two numbers of a signature.
func (g *generator) resign(message []byte, change func(r, s *big.Int)) []byte {
	i := strings.LastIndexByte(string(message), '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(string(message[i:]))
	if err != nil || len(signature) != 64 {
		g.keep(fmt.Errorf("no signature to change: %w", err))
		return nil
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	change(r, s)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return append(message[:i:i], b64(signature)...)
}
