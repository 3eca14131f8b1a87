package vectors

import (
	"math/big"
	"strings"
)

func (g *generator) signatures() {
	ordinary := g.seal(g.operator, g.operator.header(), claims)
	ordinaryK := g.seal(g.sensor, g.sensor.header(), claims)
	bad := func(name, rule string, message []byte) { g.add("bad-signature", name, rule, message) }
	g.add("unknown-key", "unknown-key", "kid is looked up", g.seal(g.stranger, g.stranger.header(), claims))
	g.add("unknown-key", "unknown-kid-uncanonical", "kid is compared as characters",
		g.seal(g.operator, strings.Replace(g.operator.header(), g.operator.key.Public().ID(), next(g.operator.key.Public().ID()), 1), claims))
	bad("signed-by-other-key", "the key that kid names must have signed", g.seal(g.stranger, g.operator.header(), claims))
	bad("algorithm-of-other-curve", "alg is the key's", g.seal(g.operator, strings.Replace(g.operator.header(), "ES256", "ES256K", 1), claims))
	bad("algorithm-of-other-curve-es256k", "alg is the key's", g.seal(g.sensor, strings.Replace(g.sensor.header(), "ES256K", "ES256", 1), claims))
	other := g.seal(g.operator, g.operator.header(), with(`"on"`, `"off"`))
	swapped := strings.Split(string(ordinary), ".")
	swapped[1] = strings.Split(string(other), ".")[1]
	bad("claims-of-other-message", "the claims are signed", []byte(strings.Join(swapped, ".")))
	spaced := strings.Split(string(ordinary), ".")
	spaced[0] = b64([]byte(g.operator.header() + "\n"))
	bad("header-written-again", "the received bytes are signed, not their meaning", []byte(strings.Join(spaced, ".")))
	bad("claims-signed-alone", "the header is signed", append(ordinary[:strings.LastIndexByte(string(ordinary), '.')+1:strings.LastIndexByte(string(ordinary), '.')+1], b64(g.sign(g.operator, []byte(swapped[1])))...))
	for _, by := range []struct {
		suffix  string
		party   party
		message []byte
	}{{"", g.operator, ordinary}, {"-es256k", g.sensor, ordinaryK}} {
		n := order(by.party)
		change := func(name string, f func(r, s *big.Int)) {
			bad("signature-"+name+by.suffix, "r and s are from 1 to n-1", g.resign(by.message, f))
		}
		change("zeros", func(r, s *big.Int) { r.SetInt64(0); s.SetInt64(0) })
		change("r-0", func(r, _ *big.Int) { r.SetInt64(0) })
		change("s-0", func(_, s *big.Int) { s.SetInt64(0) })
		change("r-n", func(r, _ *big.Int) { r.Set(n) })
		change("s-n", func(_, s *big.Int) { s.Set(n) })
		change("r-0-s-n", func(r, s *big.Int) { r.SetInt64(0); s.Set(n) })
		bad("signature-exchanged"+by.suffix, "r comes before s", g.resign(by.message, func(r, s *big.Int) { *r, *s = *s, *r }))
		change("ones", func(r, s *big.Int) {
			r.Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
			s.Set(r)
		})
	}
}

func (g *generator) topics() {
	ordinary := g.seal(g.operator, g.operator.header(), claims)
	for _, t := range []struct{ name, topic string }{
		{"other", "pinseal/raspiflow/lamp/set"}, {"case", "ledstatus"}, {"level-below", "ledStatus/"}, {"level-above", "/ledStatus"}, {"longer", "ledStatus2"}, {"wildcard", "#"},
	} {
		g.add("wrong-topic", "wrong-topic-"+t.name, "aud equals the topic, byte for byte", ordinary).topic = t.topic
	}
	composed := g.seal(g.operator, g.operator.header(), with("ledStatus", "k\u00fcche"))
	g.add("wrong-topic", "wrong-topic-normalisation", "aud is not normalised", composed).topic = "ku\u0308che"
}

func (g *generator) times() {
	sealed := func(claims string) []byte { return g.seal(g.operator, g.operator.header(), claims) }
	at := func(expect, name, rule, now, claims string) {
		if expect == "ok" {
			g.ok(name, rule, g.operator, seq, `"on"`, sealed(claims)).now = now
			return
		}
		g.add(expect, name, rule, sealed(claims)).now = now
	}
	withExp := func(exp string) string { return with(`"msg"`, `"exp":`+exp+`,"msg"`) }
	at("ok", "ok-age-30-s", "the edge of the window is inside", "1763787418.25", claims)
	at("stale", "stale-by-a-microsecond", "at most 30 s old", "1763787418.250001", claims)
	at("stale", "stale-by-an-hour", "at most 30 s old", "1763790988.25", claims)
	at("ok", "ok-ahead-5-s", "the edge of the window is inside", "1763787383.25", claims)
	at("future", "future-by-a-microsecond", "at most 5 s ahead", "1763787383.249999", claims)
	at("future", "future-clock-at-1970", "at most 5 s ahead", "0", claims)
	at("future", "future-milliseconds", "iat is in seconds", now, with("1763787388.25", "1763787388250"))
	at("future", "future-2-to-53-less-1", "no time is too far to compare", now, with("1763787388.25", "9007199254740991.999999"))
	at("stale", "stale-iat-0", "no time is too far to compare", now, with("1763787388.25", "0"))
	at("ok", "ok-exp-not-reached", "exp is judged to the microsecond", "1763787389.999999", withExp("1763787390"))
	at("stale", "stale-exp-reached", "at exp a message has expired", "1763787390", withExp("1763787390"))
	at("stale", "stale-exp-passed", "no leeway on exp", "1763787390.000001", withExp("1763787390"))
	at("stale", "stale-exp-does-not-widen", "exp never widens the window", "1763787419", withExp("1763787500"))
	at("future", "future-with-exp", "exp never widens the window", "1763787383", withExp("1763787500"))
	at("ok", "ok-exp-far", "exp may lie beyond the window", now, withExp("9007199254740991.999999"))
}

// order: where several things are wrong, the first step names the reason.
func (g *generator) order() {
	const old, late = "1763787000", "1763799999"
	oldClaims := with("1763787388.25", old)
	broken := g.seal(g.stranger, strings.Replace(g.stranger.header(), "pinseal+jwt", "JWT", 1), oldClaims)
	g.add("malformed", "order-malformed-unknown-key", "malformed comes before unknown-key", broken).now = late
	noKey := g.resign(g.seal(g.stranger, g.stranger.header(), oldClaims), func(r, _ *big.Int) { r.SetInt64(1) })
	g.add("unknown-key", "order-unknown-key-bad-signature", "unknown-key comes before bad-signature", noKey).topic = "other"
	forged := g.seal(g.stranger, g.operator.header(), oldClaims)
	g.add("bad-signature", "order-bad-signature-wrong-topic", "bad-signature comes before wrong-topic and stale", forged).topic = "other"
	astray := g.seal(g.operator, g.operator.header(), oldClaims)
	g.add("wrong-topic", "order-wrong-topic-stale", "wrong-topic comes before stale", astray).topic = "other"
}
