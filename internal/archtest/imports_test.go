// Package archtest holds the table of which package may import which. A new
// edge is a change of the architecture: add it here and say why in the commit.
package archtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "pinseal"

// Libraries by the module or package that may be imported; what lies below is
// allowed too.
const (
	argon2    = "golang.org/x/crypto/argon2"
	bbolt     = "go.etcd.io/bbolt"
	dbus      = "github.com/godbus/dbus/v5"
	diskfs    = "github.com/diskfs/go-diskfs"
	gorilla   = "github.com/gorilla/websocket"
	goSystemd = "github.com/coreos/go-systemd/v22"
	gpioioctl = "periph.io/x/host/v3/gpioioctl" // in tests only; never its parent: host.Init maps /dev/mem
	jsontext  = "github.com/go-json-experiment/json/jsontext"
	jose      = "github.com/go-jose/go-jose/v4"
	kong      = "github.com/alecthomas/kong"
	mochi     = "github.com/mochi-mqtt/server/v2"
	paho      = "github.com/eclipse/paho.mqtt.golang"
	periph    = "periph.io/x/conn/v3"
	qr        = "rsc.io/qr"
	rapid     = "pgregory.net/rapid"
	rate      = "golang.org/x/time/rate"
	script    = "github.com/rogpeppe/go-internal/testscript"
	secp256k1 = "github.com/decred/dcrd/dcrec/secp256k1/v4"
	sync      = "golang.org/x/sync"
	sys       = "golang.org/x/sys/unix"
	term      = "golang.org/x/term"
	toml      = "github.com/pelletier/go-toml/v2"
)

// row is one package, relative to the module, and what it may import beyond
// the standard library: packages of the module by their relative path (exactly
// that one, or all below for /...), and libraries.
type row struct {
	name     string
	packages []string
	imports  []string
}

// table has every package of the module.
func table() []row {
	return []row{
		{"signing", nil, []string{secp256k1, jsontext}},
		{"signing/sequence", []string{"signing", "internal/atomicfile"}, []string{sys}},
		{"signing/replay", []string{"signing", "internal/atomicfile", "internal/boltfile"}, []string{bbolt}},
		{"signing/encryption", []string{"signing"}, []string{jsontext}},
		{"signing/boxtec", []string{"signing"}, []string{secp256k1}},
		{"signing/internal/vectors", []string{"signing"}, nil},
		{"signing/internal/vectorgen", []string{"signing", "signing/internal/vectors"}, []string{jsontext}},
		{"pki", []string{"internal/atomicfile"}, nil},
		{"pki/renewal", []string{"internal/atomicfile", "pki"}, nil},
		{"pki/enrol", []string{"internal/atomicfile", "pki", "signing"}, []string{jsontext}},
		{"gpio", nil, []string{periph, sys}},
		{"gpio/gpiotest", []string{"gpio"}, []string{periph}},
		{"broker", []string{"pki", "broker/internal/frame", "broker/internal/store"}, []string{gorilla, mochi, rate}},
		{"broker/auth", []string{"pki"}, []string{argon2}},
		{"broker/token", []string{"pki"}, []string{jose}},
		{"broker/internal/frame", nil, nil},
		{"broker/internal/store", []string{"internal/boltfile"}, []string{bbolt}},
		{"agent", []string{"agent/actuator", "agent/outbox", "signing/...", "internal/mqtt"}, []string{jsontext, rate, sync}},
		{"agent/actuator", []string{"internal/atomicfile"}, []string{sys}},
		{"agent/outbox", []string{"signing", "internal/boltfile"}, []string{bbolt, rate}},
		{"agent/sensor", nil, nil},
		{"agent/homeassistant", nil, nil},
		{"systemd", nil, []string{goSystemd, dbus, sys}},
		{"cmd/pinseal", []string{"..."}, []string{kong, toml, jsontext, rate, sync, term, qr}},
		{"internal/atomicfile", nil, nil},
		{"internal/boltfile", []string{"internal/atomicfile"}, []string{bbolt}},
		{"internal/boltfile/disktest", nil, nil},
		{"internal/clock", []string{"internal/atomicfile"}, nil},
		{"internal/flash", nil, []string{diskfs, sys}},
		{"internal/filewatch", nil, []string{sys}},
		{"internal/metrics", nil, nil},
		{"internal/freeport", nil, nil},
		{"internal/load", nil, nil},
		{"internal/mosquitto", nil, nil},
		{"internal/mqtt", nil, []string{paho}},
		{"internal/archtest", nil, nil},
		{"internal/powercut", []string{"agent/actuator", "agent/outbox", "broker", "internal/atomicfile", "internal/boltfile", "internal/clock", "pki", "signing/replay", "signing/sequence"}, []string{bbolt, sys}},
		// It runs broker and agent together, as cmd/pinseal does, with a clock that it sets.
		{"internal/proof", []string{"agent/actuator", "agent", "agent/outbox", "broker", "internal/clock", "internal/freeport", "internal/load", "internal/mqtt", "pki", "signing", "signing/replay"}, []string{sys, term}},
		{"internal/bench", []string{"agent", "internal/freeport", "internal/load", "pki", "signing", "signing/boxtec"}, []string{secp256k1, sync, sys, term}},
	}
}

// testImports are allowed in the tests of every package, beside every package
// of the module and every library of the table.
func testImports() []string { return []string{gpioioctl, rapid, script} }

// strangers must not know each other even in tests: the agent is an MQTT
// client like any other, the broker serves any other.
func strangers() [][2]string {
	return [][2]string{{"agent", "broker"}, {"broker", "agent"}}
}

type listed struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p listed) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages: %v\n%s", err, stderr.String())
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	t.Parallel()
	rows := map[string]row{}
	for _, r := range table() {
		rows[r.name] = r
	}
	for _, p := range list(t) {
		r, ok := rows[p.name()]
		if !ok {
			t.Errorf("package %s is not in the table", p.name())
			continue
		}
		delete(rows, p.name())
		for _, path := range p.Imports {
			if !r.allows(path) {
				t.Errorf("%s must not import %s", p.name(), path)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if !allowedInTests(p.name(), path) {
				t.Errorf("tests of %s must not import %s", p.name(), path)
			}
		}
	}
	for name := range rows {
		t.Errorf("package %s is in the table and nowhere else", name)
	}
}

func (r row) allows(path string) bool {
	if own, ok := strings.CutPrefix(path, module+"/"); ok {
		return slices.ContainsFunc(r.packages, func(pattern string) bool {
			below, all := strings.CutSuffix(pattern, "...")
			return own == pattern || all && strings.HasPrefix(own+"/", below)
		})
	}
	return standard(path) || slices.ContainsFunc(r.imports, func(library string) bool { return within(path, library) })
}

func allowedInTests(name, path string) bool {
	if own, ok := strings.CutPrefix(path, module+"/"); ok {
		return !slices.Contains(strangers(), [2]string{name, own})
	}
	libraries := testImports()
	for _, r := range table() {
		libraries = append(libraries, r.imports...)
	}
	return standard(path) || slices.ContainsFunc(libraries, func(library string) bool { return within(path, library) })
}

// standard packages have no dot in their first element. cgo's pseudo package
// "C" is none of them: the binaries are static.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return path != "C" && !strings.Contains(first, ".")
}

func within(path, library string) bool {
	return path == library || strings.HasPrefix(path, library+"/")
}

// The rules themselves, so that a slip in matching does not allow everything.
func TestTableRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, path string
		want       bool
	}{
		{"signing", "crypto/ecdsa", true},
		{"signing", secp256k1 + "/ecdsa", true},
		{"signing", bbolt, false},
		{"signing", "pinseal/pki", false},
		{"agent", "pinseal/signing", true},
		{"agent", "pinseal/signing/replay", true},
		{"agent", "pinseal/signingx", false},
		{"agent", "pinseal/broker", false},
		{"agent", paho, false},
		{"broker", "pinseal/agent", false},
		{"broker", paho, false},
		{"broker", "pinseal/signing", false},
		{"pki", "C", false},
		{"gpio", "periph.io/x/host/v3", false},
		{"cmd/pinseal", "pinseal/broker", true},
		{"cmd/pinseal", paho, false},
		{"internal/mqtt", paho + "/packets", true},
	}
	for _, tt := range tests {
		i := slices.IndexFunc(table(), func(r row) bool { return r.name == tt.name })
		if got := table()[i].allows(tt.path); got != tt.want {
			t.Errorf("%s may import %s: %v, want %v", tt.name, tt.path, got, tt.want)
		}
	}
	if allowedInTests("agent", "pinseal/broker") || allowedInTests("broker", "pinseal/agent") {
		t.Error("tests of agent and broker may import each other")
	}
}
