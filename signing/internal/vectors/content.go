package vectors

import "strings"

func (g *generator) claims() {
	change := func(name, rule, old, replacement string) {
		badClaims(g, "claims-"+name, rule, with(old, replacement))
	}
	change("no-aud", "aud is required", `"aud":"ledStatus",`, ``)
	change("no-iat", "iat is required", `"iat":1763787388.25,`, ``)
	change("no-seq", "seq is required", `"seq":1763787388250000,`, ``)
	change("no-msg", "msg is required", `,"msg":"on"`, ``)
	change("aud-array", "aud is one string", `"ledStatus"`, `["ledStatus"]`)
	change("aud-null", "aud is one string", `"ledStatus"`, `null`)
	change("aud-empty", "aud is a topic name", `ledStatus`, ``)
	change("aud-plus", "aud has no wildcards", `ledStatus`, `a/+/b`)
	change("aud-hash", "aud has no wildcards", `ledStatus`, `a/#`)
	change("aud-zero-byte", "aud has no control characters", `ledStatus`, `led\u0000Status`)
	change("aud-escape", "aud has no control characters", `ledStatus`, `led\u001bStatus`)
	change("aud-delete", "aud has no control characters", `ledStatus`, `led\u0085Status`)
	change("aud-257-bytes", "aud has at most 256 bytes", `ledStatus`, strings.Repeat("t", 257))
	change("aud-257-bytes-of-two", "bytes count, not characters", `ledStatus`, strings.Repeat("ü", 128)+"t")
	change("msg-null", "msg is not null", `"on"`, `null`)
	change("msg-depth-17", "at most 16 arrays and objects are open at once", `"on"`, strings.Repeat(`[`, 17)+strings.Repeat(`]`, 17))
	change("msg-depth-17-mixed", "at most 16 arrays and objects are open at once", `"on"`, strings.Repeat(`[{"a":`, 8)+`[]`+strings.Repeat(`}]`, 8))
	change("msg-depth-2000", "at most 16 arrays and objects are open at once", `"on"`, strings.Repeat(`[`, 2000)+strings.Repeat(`]`, 2000))
	change("nonce-empty", "nonce has 1 to 64 bytes", `"msg"`, `"nonce":"","msg"`)
	change("nonce-65-bytes", "nonce has 1 to 64 bytes", `"msg"`, `"nonce":"`+strings.Repeat("n", 65)+`","msg"`)
	change("nonce-number", "nonce is a string", `"msg"`, `"nonce":1,"msg"`)
	for _, name := range []string{"iss", "sub", "nbf", "jti", "kid", "Msg"} {
		rule := "no claim but aud, iat, seq, msg, exp and nonce"
		file := strings.ReplaceAll(name, "Msg", "upper-case-name")
		change("with-"+file, rule, `"msg"`, `"`+name+`":1,"msg"`)
	}
	change("array", "the claims are an object", claims, `[`+claims+`]`)
	change("string", "the claims are an object", claims, `"on"`)
	change("empty-object", "aud, iat, seq and msg are required", claims, `{}`)
}

func (g *generator) numbers() {
	for _, n := range []struct{ name, value string }{
		{"negative", `-1`},
		{"minus-zero", `-0`},
		{"plus", `+1`},
		{"fraction", `1.0`},
		{"exponent", `1e3`},
		{"leading-zero", `01`},
		{"2-to-53", `9007199254740992`},
		{"40-digits", strings.Repeat("9", 40)},
		{"string", `"1"`},
		{"null", `null`},
		{"hex", `0x10`},
		{"wraps-64-bits", `18446744073709551617`},
	} {
		badClaims(g, "seq-"+n.name, "seq is digits from 0 to 2^53-1", with(seq, n.value))
	}
	for _, n := range []struct{ name, value string }{
		{"negative", `-1763787388`},
		{"minus-zero", `-0`},
		{"exponent", `1.763787388e9`},
		{"seven-decimals", `1763787388.2500000`},
		{"leading-zero", `01763787388`},
		{"no-decimals-after-point", `1763787388.`},
		{"2-to-53", `9007199254740992`},
		{"string", `"1763787388"`},
		{"null", `null`},
		{"date", `"2025-11-22T04:56:28Z"`},
	} {
		rule := "seconds with at most six decimals, no sign, no exponent"
		badClaims(g, "iat-"+n.name, rule, with("1763787388.25", n.value))
		badClaims(g, "exp-"+n.name, rule, with(`"msg"`, `"exp":`+n.value+`,"msg"`))
	}
	badClaims(g, "exp-equals-iat", "exp is after iat", with(`"msg"`, `"exp":1763787388.250,"msg"`))
	badClaims(g, "exp-before-iat", "exp is after iat", with(`"msg"`, `"exp":1763787388,"msg"`))
}

func (g *generator) json() {
	change := func(name, rule, old, replacement string) {
		badClaims(g, "json-"+name, rule, with(old, replacement))
	}
	change("twice-seq", "names are unique", `"msg"`, `"seq":1,"msg"`)
	change("twice-msg", "names are unique", `"msg"`, `"msg":"off","msg"`)
	change("twice-aud-escaped", "names are unique whatever their escapes", `"msg"`, `"\u0061ud":"ledStatus","msg"`)
	change("twice-in-msg", "names are unique inside msg too", `"on"`, `{"state":"on","state":"off"}`)
	change("twice-deep-in-msg", "names are unique inside msg too", `"on"`, `[{"a":{"b":1,"\u0062":2}}]`)
	change("high-surrogate-alone", "no lone surrogates", `"on"`, `"\ud83d"`)
	change("high-surrogate-then-text", "no lone surrogates", `"on"`, `"\ud83dabcdef"`)
	change("low-surrogate-alone", "no lone surrogates", `"on"`, `"\udca1"`)
	change("surrogates-reversed", "no lone surrogates", `"on"`, `"\udca1\ud83d"`)
	change("two-high-surrogates", "no lone surrogates", `"on"`, `"\ud83d\ud83d\udca1"`)
	change("surrogate-in-aud", "no lone surrogates", `ledStatus`, `led\ud83dStatus`)
	change("surrogate-in-name", "no lone surrogates", `"on"`, `{"\ud83d":1}`)
	change("surrogate-as-utf8", "UTF-8 has no surrogates", `"on"`, "\"\xed\xa0\xbd\"")
	change("invalid-utf8", "UTF-8", `"on"`, "\"\xff\"")
	change("overlong-utf8", "the shortest UTF-8", `"on"`, "\"\xc0\xaf\"")
	change("cut-utf8", "whole UTF-8 characters", `"on"`, "\"\xe2\x82\"")
	change("invalid-utf8-in-aud", "UTF-8", `ledStatus`, "led\xffStatus")
	change("invalid-utf8-in-name", "UTF-8", `"on"`, "{\"\xff\":1}")
	change("unknown-escape", "strict JSON", `"on"`, `"\x6f"`)
	change("short-escape", "strict JSON", `"on"`, `"\u6f"`)
	change("raw-line-feed", "no raw control characters in strings", `"on"`, "\"o\nn\"")
	change("single-quotes", "strict JSON", `"on"`, `'on'`)
	change("bare-word", "strict JSON", `"on"`, `on`)
	change("nan", "strict JSON", `"on"`, `NaN`)
	change("capital-true", "strict JSON", `"on"`, `True`)
	change("comment", "strict JSON", `{`, `{/* */`)
	change("trailing-comma", "strict JSON", `"on"}`, `"on",}`)
	change("missing-comma", "strict JSON", `",`, `"`)
	change("unclosed", "strict JSON", `"on"}`, `"on"`)
	change("mismatched", "strict JSON", `"on"`, `[1}`)
	change("second-value", "nothing follows the object", `"on"}`, `"on"}{}`)
	change("zero-byte-after", "nothing follows the object", `"on"}`, "\"on\"}\x00")
	change("byte-order-mark", "strict JSON", `{`, "\ufeff{")
	change("no-break-space", "white space is JSON's four characters", `{`, "{\u00a0")
	change("form-feed", "white space is JSON's four characters", `{`, "{\f")
}
