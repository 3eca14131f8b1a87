package encryption_test

import (
	"bytes"
	"encoding/base64"
	"flag"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pinseal/signing/encryption"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// vector is one file of testdata/vectors: lines "name: value", an empty line, the msg to the end of the file.
type vector struct {
	name, rule string
	binding    encryption.Binding
	value      string // "" if the msg is to be refused
	msg        []byte
}

func (v vector) file() []byte {
	expect := "refused"
	if v.value != "" {
		expect = "ok\nvalue: " + v.value
	}
	return []byte("expect: " + expect + "\nrule: " + v.rule + "\ntopic: " + v.binding.Topic + "\nkid: " + v.binding.KeyID +
		"\nseq: " + strconv.FormatUint(v.binding.Sequence, 10) + "\n\n" + string(v.msg))
}

func readVector(t *testing.T, file string) vector {
	t.Helper()
	head, msg, ok := bytes.Cut(read(t, file), []byte("\n\n"))
	if !ok {
		t.Fatalf("%s: no empty line", file)
	}
	v := vector{name: strings.TrimSuffix(filepath.Base(file), ".txt"), msg: msg}
	fields := map[string]string{}
	for line := range strings.SplitSeq(string(head), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		fields[name] = value
	}
	seq, err := strconv.ParseUint(fields["seq"], 10, 64)
	if err != nil || (fields["expect"] == "ok") != (fields["value"] != "") {
		t.Fatalf("%s: fields %v", file, fields)
	}
	v.rule, v.value, v.binding = fields["rule"], fields["value"], encryption.Binding{Topic: fields["topic"], KeyID: fields["kid"], Sequence: seq}
	return v
}

// TestVectors judges the committed files; the parties' keys are in testdata/keys.
func TestVectors(t *testing.T) {
	keys := testParties(t).keys()
	files, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, file := range files {
		v := readVector(t, file)
		t.Run(v.name, func(t *testing.T) {
			got, err := keys.Decrypt(v.msg, v.binding)
			switch {
			case v.value == "" && err == nil:
				t.Errorf("read as %s, although: %s", got, v.rule)
			case v.value != "" && (err != nil || string(got) != v.value):
				t.Errorf("read as %s, %v, want %s", got, err, v.value)
			case err != nil:
				refused++
			}
		})
	}
	if refused < 40 {
		t.Errorf("%d vectors are refused, want 40 or more", refused)
	}
}

// TestVectorsAreGenerated keeps the committed files and what makes them one: go test -run VectorsAreGenerated -update.
func TestVectorsAreGenerated(t *testing.T) {
	made := map[string]bool{}
	for _, v := range generate(t) {
		file := filepath.Join("testdata/vectors", v.name+".txt")
		if made[file] {
			t.Errorf("two vectors are named %s", v.name)
		}
		made[file] = true
		if *update {
			write(t, file, v.file())
		} else if !bytes.Equal(read(t, file), v.file()) {
			t.Errorf("%s is not what its generator makes", file)
		}
	}
	files, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil || len(files) != len(made) {
		t.Errorf("%d files for %d vectors, %v", len(files), len(made), err)
	}
}

type generator struct {
	*testing.T
	parties
	vectors []vector
}

func generate(t *testing.T) []vector {
	t.Helper()
	g := &generator{T: t, parties: testParties(t)}
	g.accepted()
	g.outerMembers()
	g.headers()
	g.protectedHeader()
	g.contents()
	return g.vectors
}

func (g *generator) make(to []encryption.Recipient, value string) string {
	g.Helper()
	msg, err := encryption.EncryptWith(&stream{seed: "vectors"}, to, ordinary(), []byte(value))
	if err != nil {
		g.Fatal(err)
	}
	return string(msg)
}

func (g *generator) public() string { return g.make(g.to()[:1], `"on"`) }
func (g *generator) shared() string { return g.make(g.to()[1:], `"on"`) }
func (g *generator) curve25519() string {
	return g.make([]encryption.Recipient{g.curve.Public()}, `"on"`)
}
func (g *generator) both() string { return g.make(g.to(), `"on"`) }

func (g *generator) ok(name, rule, msg, value string) {
	g.vectors = append(g.vectors, vector{"ok-" + name, rule, ordinary(), value, []byte(msg)})
}

// refuse adds a vector in which old, which must be there, is replaced.
func (g *generator) refuse(name, rule, msg, old, replacement string) {
	g.Helper()
	if !strings.Contains(msg, old) {
		g.Fatalf("%s: there is no %s", name, old)
	}
	changed := strings.Replace(msg, old, replacement, 1)
	g.vectors = append(g.vectors, vector{name, rule, ordinary(), "", []byte(changed)})
}

func (g *generator) accepted() {
	g.ok("public", "one recipient with a key of its own", g.public(), `"on"`)
	g.ok("shared", "one shared key", g.shared(), `"on"`)
	g.ok("x25519", "one recipient with a key of X25519", g.curve25519(), `"on"`)
	g.ok("both-curves", "recipients with keys of both curves", g.make([]encryption.Recipient{g.stranger.Public(), g.curve.Public()}, `"on"`), `"on"`)
	g.ok("several", "several recipients", g.both(), `"on"`)
	g.ok("old-key", "keys that were changed still open", g.make([]encryption.Recipient{g.operator[0].Public()}, `"on"`), `"on"`)
	g.ok("object", "any JSON value", g.make(g.to(), `{"state":"ON","brightness":128}`), `{"state":"ON","brightness":128}`)
	g.ok("64-bytes", "a value of a whole block gets no spaces", g.make(g.to(), `"`+strings.Repeat("x", 62)+`"`), `"`+strings.Repeat("x", 62)+`"`)
	spaced := strings.ReplaceAll(g.public(), `,"`, " ,\n\t\"")
	g.ok("white-space", "JSON white space and any order of members", spaced, `"on"`)
	g.ok("escapes", "escapes in names and strings", strings.Replace(g.public(), `"alg":"E`, `"\u0061lg":"\u0045`, 1), `"on"`)
	one := strings.Replace(strings.Replace(g.public(), `"header"`, `"recipients":[{"header"`, 1), `,"iv"`, `}],"iv"`, 1)
	g.ok("general-with-one", "the general serialisation with one recipient", one, `"on"`)
}

func (g *generator) outerMembers() {
	for _, name := range []string{"protected", "header", "encrypted_key", "iv", "ciphertext", "tag"} {
		g.refuse("no-"+name, name+" is required", g.public(), `"`+name+`"`, `"x"`)
	}
	for _, name := range []string{"unprotected", "aad", "recipients", "x"} {
		g.refuse("with-"+name, "no member outside the format", g.public(), `{"protected"`, `{"`+name+`":[],"protected"`)
	}
	g.refuse("several-with-header", "recipients or header, not both", g.both(), `"recipients"`, `"header":{},"recipients"`)
	g.refuse("twice-iv", "no member twice", g.public(), `"iv"`, `"iv":"","iv"`)
	g.refuse("empty-recipients", "at least one recipient", `{"protected":"","recipients":[],"iv":"","ciphertext":"","tag":""}`, "", "")
	g.refuse("same-recipient-twice", "no recipient twice", g.both(), `"recipients":[`, `"recipients":[`+entryOf(g.both())+`,`)
	g.refuse("17-recipients", "at most 16 recipients", g.both(), `"recipients":[`, `"recipients":[`+strings.Repeat(entryOf(g.both())+`,`, 16))
	g.refuse("recipients-object", "recipients is an array", g.both(), g.both()[strings.Index(g.both(), "["):strings.Index(g.both(), "]")+1], "{}")
	g.refuse("iv-11-bytes", "iv has 12 bytes", g.public(), `"iv":"`+partOf(g.public(), "iv"), `"iv":"AAAAAAAAAAAAAAA`)
	g.refuse("tag-15-bytes", "tag has 16 bytes", g.public(), partOf(g.public(), "tag"), "AAAAAAAAAAAAAAAAAAAA")
	g.refuse("padding", "base64url without padding", g.public(), partOf(g.public(), "tag"), partOf(g.public(), "tag")+"==")
	g.refuse("iv-number", "iv is a string", g.public(), `"`+partOf(g.public(), "iv")+`"`, "1")
	g.refuse("ciphertext-line-break", "no line breaks in base64url", g.public(), `"ciphertext":"`, `"ciphertext":"\n`)
	g.refuse("ciphertext-empty", "the ciphertext is authenticated", g.public(), partOf(g.public(), "ciphertext"), "")
	g.refuse("array", "an object", `[]`, "", "")
	g.refuse("cut", "strict JSON", g.public(), `"}`, `"`)
	g.refuse("bytes-after", "nothing after the object", g.public(), partOf(g.public(), "tag")+`"}`, partOf(g.public(), "tag")+`"}{}`)
}

// entryOf is the first recipient of a message for several.
func entryOf(msg string) string {
	_, rest, _ := strings.Cut(msg, `"recipients":[`)
	entry, _, _ := strings.Cut(rest, `"},{`)
	return entry + `"}`
}

// partOf is the value of a member that is a string without escapes.
func partOf(msg, name string) string {
	_, rest, _ := strings.Cut(msg, `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func (g *generator) headers() {
	g.refuse("alg-direct", "no other alg", g.public(), "ECDH-ES+A256KW", "ECDH-ES")
	g.refuse("alg-dir", "no other alg", g.shared(), "A256KW", "dir")
	g.refuse("alg-rsa", "no other alg", g.shared(), "A256KW", "RSA1_5")
	g.refuse("alg-number", "alg is a string", g.shared(), `"A256KW"`, "1")
	g.refuse("alg-missing", "alg is required", g.shared(), `"alg":"A256KW",`, "")
	g.refuse("kid-missing", "kid is required", g.shared(), `,"kid"`, `,"x"`)
	g.refuse("kid-42-characters", "kid has 43 characters", g.shared(), g.group[0].ID(), g.group[0].ID()[1:])
	g.refuse("kid-unknown", "encrypted to somebody else", g.shared(), g.group[0].ID(), g.stranger.Public().ID())
	g.refuse("kid-of-other-kind", "alg agrees with the key", g.shared(), g.group[0].ID(), g.operator[0].Public().ID())
	g.refuse("kid-of-other-key", "the key is the one that was encrypted to", g.shared(), g.group[0].ID(), g.group[1].ID())
	g.refuse("enc-in-header", "enc is authenticated", g.shared(), `"alg":"A256KW"`, `"alg":"A256KW","enc":"A256GCM"`)
	g.refuse("apu", "no apu", g.public(), `"epk"`, `"apu":"QQ","epk"`)
	g.refuse("epk-missing", "epk is required", g.public(), `"epk"`, `"x"`)
	g.refuse("epk-with-shared", "no epk with a shared key", g.shared(), `"kid"`, `"epk":{},"kid"`)
	g.refuse("epk-private", "no private key in epk", g.public(), `"crv"`, `"d":"AA","crv"`)
	g.refuse("epk-other-curve", "an EC epk is of P-256", g.public(), "P-256", "P-384")
	g.refuse("epk-okp", "an OKP epk is of X25519", g.public(), `"EC"`, `"OKP"`)
	g.refuse("epk-off-the-curve", "epk is on the curve", g.public(), partOf(g.public(), "y"), strings.Repeat("A", 43))
	g.refuse("epk-31-bytes", "x and y have 32 bytes", g.public(), partOf(g.public(), "y"), strings.Repeat("A", 42))
	point := partOf(g.curve25519(), "x")
	g.refuse("x25519-ed25519", "an OKP epk is of X25519", g.curve25519(), "X25519", "Ed25519")
	g.refuse("x25519-as-ec", "kty agrees with crv", g.curve25519(), "OKP", "EC")
	g.refuse("x25519-other-kty", "kty is EC or OKP", g.curve25519(), "OKP", "oct")
	g.refuse("x25519-with-y", "an OKP epk has no y", g.curve25519(), `"x":`, `"y":"`+point+`","x":`)
	g.refuse("x25519-private", "no private key in epk", g.curve25519(), `"x":`, `"d":"`+point+`","x":`)
	g.refuse("x25519-31-bytes", "x has 32 bytes", g.curve25519(), point, strings.Repeat("A", 42))
	g.refuse("x25519-to-p-256", "epk is of the curve of the key", g.curve25519(), g.curve.Public().ID(), g.operator[0].Public().ID())
	g.refuse("p-256-to-x25519", "epk is of the curve of the key", g.public(), g.operator[1].Public().ID(), g.curve.Public().ID())
	g.refuse("x25519-other-point", "the agreed key is of epk", g.curve25519(), point, "CQ"+strings.Repeat("A", 41))
	g.refuse("x25519-high-bit", "no point has two encodings", g.curve25519(), point, withHighBit(g.T, point))
	for i, low := range lowOrder() {
		msg, err := encryption.EncryptAny(&stream{seed: "vectors"}, []encryption.Recipient{encryption.LowOrder{KID: g.curve.Public().ID(), Point: low}}, []byte(g.header()), []byte(`"on"`))
		if err != nil {
			g.Fatal(err)
		}
		g.refuse("x25519-low-order-"+strconv.Itoa(i+1), "the agreed secret is not zero, which everybody knows", string(msg), "", "")
	}
	g.refuse("key-of-24-bytes", "encrypted_key has 40 bytes", g.public(), partOf(g.public(), "encrypted_key"), strings.Repeat("A", 32))
	g.refuse("key-damaged", "encrypted_key is authenticated", g.public(), partOf(g.public(), "encrypted_key"), strings.Repeat("A", 54))
}

// lowOrder are the points whose order divides 8 (RFC 7748 section 7), and, from the sixth on, other ways to write some.
func lowOrder() []string {
	prime := "\xed" + strings.Repeat("\xff", 30) + "\x7f"
	return []string{
		strings.Repeat("\x00", 32),
		"\x01" + strings.Repeat("\x00", 31),
		"\xec" + prime[1:],
		"\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\xda\x09\x8d\xeb\x9c\x32\xb1\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00",
		"\x5f\x9c\x95\xbc\xa3\x50\x8c\x24\xb1\xd0\xb1\x55\x9c\x83\xef\x5b\x04\x44\x5c\xc4\x58\x1c\x8e\x86\xd8\x22\x4e\xdd\xd0\x9f\x11\x57",
		prime,
		"\xee" + prime[1:],
		strings.Repeat("\x00", 31) + "\x80",
	}
}

func withHighBit(t *testing.T, point string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(point)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] |= 0x80
	return base64.RawURLEncoding.EncodeToString(raw)
}

// protectedHeader writes headers that are authentic, and wrong.
func (g *generator) protectedHeader() {
	text := g.header()
	change := func(name, rule, old, replacement string) {
		g.Helper()
		if !strings.Contains(text, old) {
			g.Fatalf("%s: the header has no %s", name, old)
		}
		g.refuse("protected-"+name, rule, g.any(strings.Replace(text, old, replacement, 1), `"on"`), "", "")
	}
	for _, name := range []string{"aud", "enc", "iss", "seq", "typ"} {
		change("no-"+name, name+" is required", `"`+name+`"`, `"x"`)
	}
	change("with-crit", "no member outside the format", `{`, `{"crit":["exp"],`)
	change("with-zip", "no member outside the format", `{`, `{"zip":"DEF",`)
	change("with-alg", "no member outside the format", `{`, `{"alg":"A256KW",`)
	change("twice-aud", "no member twice", `{`, `{"aud":"ledStatus",`)
	change("other-aud", "aud is the topic of the message around", "ledStatus", "gate")
	change("other-iss", "iss is the key of the message around", "ZG", "GZ")
	change("other-seq", "seq is the number of the message around", "1763787388250000", "1763787388250001")
	change("seq-string", "seq is digits", "1763787388250000", `"1763787388250000"`)
	change("seq-exponent", "seq is digits", "1763787388250000", "176378738825e4")
	change("enc-gcm-128", "enc is A256GCM", "A256GCM", "A128GCM")
	change("enc-cbc", "enc is A256GCM", "A256GCM", "A256CBC-HS512")
	change("other-typ", "typ is pinseal+jwe", "pinseal+jwe", "JWE")
	change("array", "the header is an object", text, `[]`)
	change("bytes-after", "nothing after the object", text, text+`{}`)
	g.refuse("protected-changed", "the header is authenticated as it was sent", g.public(), partOf(g.public(), "protected"),
		partOf(g.any(" "+text, `"on"`), "protected"))
	g.refuse("protected-in-header", "aud, iss and seq are authenticated", g.public(), `"alg"`, `"aud":"ledStatus","alg"`)
	g.ok("protected-white-space", "JSON white space in the header", g.any(" "+text, `"on"`), `"on"`)
}

// header is the protected header of the ordinary message.
func (g *generator) header() string {
	text, err := base64.RawURLEncoding.DecodeString(partOf(g.public(), "protected"))
	if err != nil {
		g.Fatal(err)
	}
	return string(text)
}

func (g *generator) any(header, content string) string {
	msg, err := encryption.EncryptAny(&stream{seed: "vectors"}, g.to()[:1], []byte(header), []byte(content))
	if err != nil {
		g.Fatal(err)
	}
	return string(msg)
}

// contents are refused although every key fits: what is inside is no value.
func (g *generator) contents() {
	for _, c := range []struct{ name, rule, plain string }{
		{"null", "not null", "null"},
		{"nothing", "one value", ""},
		{"spaces", "one value", "    "},
		{"two-values", "one value", "1 2"},
		{"text", "strict JSON", "on"},
		{"name-twice", "no member twice, at any depth", `{"a":1,"a":2}`},
		{"lone-surrogate", "no lone surrogates", `"\ud800"`},
		{"not-utf-8", "UTF-8", "\"\xff\""},
		{"depth-17", "at most 16 arrays and objects", strings.Repeat("[", 17) + strings.Repeat("]", 17)},
		{"byte-order-mark", "no byte order mark", "\ufeff1"},
	} {
		g.refuse("content-"+c.name, "the content is a msg: "+c.rule, g.any(g.header(), c.plain), "", "")
	}
}
