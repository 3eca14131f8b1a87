package main

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pinseal/internal/freeport"
	"pinseal/pki"
	"pinseal/pki/enrol"
)

// TestEnrolLimits: every limit of enrolment has a name in the configuration, reaches the server, and its default is in the documentation.
func TestEnrolLimits(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var written enrolConfig
	defaults := reflect.ValueOf(enrol.DefaultLimits())
	for field := range reflect.TypeFor[enrol.Limits]().Fields() {
		value := reflect.ValueOf(&written).Elem().FieldByName(field.Name)
		if !value.IsValid() {
			t.Errorf("the limit %s has no name in the configuration", field.Name)
			continue
		}
		value.SetInt(int64(field.Index[0] + 1))
		if got := reflect.ValueOf(written.limits()).FieldByName(field.Name).Int(); got != int64(field.Index[0]+1) {
			t.Errorf("the limit %s does not reach the server", field.Name)
		}
		key, _ := reflect.TypeFor[enrolConfig]().FieldByName(field.Name)
		want := fmt.Sprint(defaults.FieldByName(field.Name).Interface())
		if key.Type == reflect.TypeFor[positiveLength]() {
			want = "`\"" + want + "\"`"
		}
		if row := "| `" + key.Tag.Get("toml") + "` | " + want + " |"; !strings.Contains(string(page), row) {
			t.Errorf("docs/configuration.md does not have the row %s", row)
		}
	}
}

func TestEnrolConfiguration(t *testing.T) {
	const node = "node = \"raspiflow\"\n"
	for text, want := range map[string]string{
		"[enrol]\naddress = \":8443\"\nlifetime = \"24h\"\ncode_lifetime = \"1h\"\nextras = \"refuse\"\n": "",
		"[enrol]\nlifetime = \"59m\"\n":        "3:12: enrol.lifetime: ",
		"[enrol]\nlifetime = \"20000h\"\n":     "3:12: enrol.lifetime: ",
		"[enrol]\ncode_lifetime = \"25h\"\n":   "3:17: enrol.code_lifetime: ",
		"[enrol]\ncode_lifetime = \"0s\"\n":    "3:17: enrol.code_lifetime: ",
		"[enrol]\nextras = \"keep\"\n":         "none of drop, refuse",
		"[enrol]\nmax_requests = -1\n":         "cannot be negative",
		"[enrol]\naddress = \"8443\"\n":        "is not an address",
		"[enrol]\naddress = \":0\"\n":          "devices need to be told a port",
		"[enrol]\naddress = \"/run/x.sock\"\n": "devices join over the network",
		"[enrol]\nport = 1\n":                  "unknown key",
		"[agent]\nbroker = \"mqtts://b\"\ncertificate = \"a\"\nkey = \"b\"\n[enrol]\naddress = \":8443\"\n": "its own broker",
	} {
		_, err := parseConfig([]byte(node + text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s%v, want %q", text, err, want)
		}
	}
	cfg, err := parseConfig([]byte(node))
	if err != nil || cfg.enrols() || cfg.Enrol.profile().Strict || cfg.Enrol.profile().Lifetime.Hours() != 2160 {
		t.Errorf("%+v, %v", cfg.Enrol, err)
	}
}

// A node with a damaged file of codes switches as ever; doctor says what to do.
func TestDamagedCodes(t *testing.T) {
	t.Parallel()
	dir := makeNode(t)
	l := layoutUnder(dir)
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{l.config: string(config) + "\n[enrol]\naddress = \"" + address + "\"\n", l.codes(): "no codes"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bundle := runNode(t, dir)
	var out strings.Builder
	std := streams{in: strings.NewReader(""), out: &out, err: &out}
	if code := run(t.Context(), []string{"pub", "--bundle", bundle, "ledStatus", "on"}, std); code != exitDone {
		t.Errorf("%d: %s", code, out.String())
	}
	if code := run(t.Context(), []string{"doctor", "--dir", dir}, std); code != exitFailed || !strings.Contains(out.String(), "hint: remove the file") {
		t.Errorf("doctor: %d: %s", code, out.String())
	}
}

// A key is for one thing. Where the node encrypts to a device, one that signs with the same key would keep every policy from
// taking effect, a revocation among them, and the node from starting.
func TestJoinWithOneKeyForTwoThings(t *testing.T) {
	t.Parallel()
	y := &years{t: t, dir: t.TempDir()}
	y.do("init", "--dir", y.dir, "--node", "raspiflow", "--chip", "sim", "--listen", y.freeAddress(), "--enrol", y.freeAddress())
	runNode(t, y.dir)
	l := layoutUnder(y.dir)
	newKey := func() crypto.Signer {
		key, err := pki.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	greetingWith := func(key []byte) []byte {
		text, err := json.Marshal(greeting{string(key)})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	publicOf := func(key crypto.Signer) []byte {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	operators, err := os.ReadFile(l.signer("operator"))
	if err != nil {
		t.Fatal(err)
	}
	encrypts, signs := newKey(), newKey()
	join := func(name string, signing crypto.Signer, encryption []byte) error {
		invitation, err := enrol.ParseInvitation(y.do("device", "add", name, "--dir", y.dir))
		if err != nil {
			t.Fatal(err)
		}
		_, err = invitation.Join(t.Context(), enrol.Keys{TLS: newKey(), Signing: signing, Greeting: greetingWith(encryption)}, nil, time.Now())
		return err
	}
	if err := join("good", newKey(), publicOf(encrypts)); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"its own signing key":            join("own", signs, publicOf(signs)),
		"another's signing key":          join("other", newKey(), operators),
		"to sign with an encryption key": join("reverse", encrypts, publicOf(newKey())),
	} {
		if refused, ok := errors.AsType[*pki.RefusedError](err); !ok || refused.Reason != enrol.ReasonKnownKey {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"own", "other", "reverse"} {
		if exists(l.signer(name)) || exists(l.encryption().publicKey(name)) {
			t.Errorf("%s left a key behind", name)
		}
	}
}

// The service gets the authority's key only where devices join; TestHandOver has the node where they do not.
func TestHandOverWhereDevicesJoin(t *testing.T) {
	to := owner{os.Getuid(), os.Getgid()}
	if to.uid == 0 {
		to = owner{12345, 12346}
	}
	l := layoutUnder(t.TempDir())
	for path, text := range map[string]string{l.config: "node = \"raspiflow\"\n[enrol]\naddress = \":8443\"\n", l.caKey(): "", l.codes(): "", filepath.Join(l.signers, "a.pem"): ""} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.handOver(to); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{l.caKey(), l.codes(), l.joined()} {
		if got := ownerOf(t, path); got != to {
			t.Errorf("%s belongs to %v, want %v", path, got, to)
		}
	}
	if got := ownerOf(t, filepath.Dir(l.caKey())); got != (owner{os.Getuid(), os.Getgid()}) {
		t.Errorf("the authority's folder belongs to %v", got)
	}
}

// Who took the service over can put signers into the state folder, but none of a name that the operator trusts.
func TestJoinedSignersDoNotReplaceTheOperators(t *testing.T) {
	dir := t.TempDir()
	l := layoutUnder(filepath.Join(dir, "state"))
	l.signers = filepath.Join(dir, "etc", "signers")
	keys := map[string]string{}
	for _, path := range []string{filepath.Join(l.signers, "operator.pem"), filepath.Join(l.joined(), "operator.pem"), filepath.Join(l.joined(), "sensor-7.pem")} {
		made, err := bundle{dir: t.TempDir()}.makeKeys()
		if err != nil {
			t.Fatal(err)
		}
		key, err := signingKeyOf(made.Signing)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, key.Public().PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		keys[path] = key.Public().ID()
	}
	keyring, err := readKeyring(l)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range keyring.Signers() {
		got[s.Name] = s.Key.ID()
	}
	want := map[string]string{"operator": keys[filepath.Join(l.signers, "operator.pem")], "sensor-7": keys[filepath.Join(l.joined(), "sensor-7.pem")]}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestHalfBlocks: a QR code on the terminal has every module where it belongs, and a light margin.
func TestHalfBlocks(t *testing.T) {
	black := func(x, y int) bool { return x == 0 && y < 3 && y >= 0 || x == 2 && y == 1 }
	text := halfBlocks(3, black)
	rows := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(rows) != 6 { // 3 modules and 4 on each side, two in one row
		t.Fatalf("%d rows", len(rows))
	}
	for i, row := range rows {
		row = strings.TrimSuffix(strings.TrimPrefix(row, "\x1b[30;47m"), "\x1b[0m")
		if utf8.RuneCountInString(row) != 11 {
			t.Errorf("row %d: %q", i, row)
		}
		rows[i] = row
	}
	if rows[2] != "    █ ▄    " || rows[3] != "    ▀      " || strings.TrimSpace(rows[0]+rows[1]+rows[4]+rows[5]) != "" {
		t.Errorf("%q", rows)
	}
}
