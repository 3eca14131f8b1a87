package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/internal/freeport"
	"pinseal/pki"
	"pinseal/pki/renewal"
)

// years is a node as init makes it without a flag about joining, and a clock that runs fast.
type years struct {
	t      *testing.T
	dir    string
	passed atomic.Int64 // of time.Duration, beside what really passes
}

func (y *years) now() time.Time { return time.Now().Add(time.Duration(y.passed.Load())) }

// do gives a command and what it says; that it fails, or has anything to complain of, ends the test.
func (y *years) do(words ...string) string {
	y.t.Helper()
	var out, complaints strings.Builder
	std := streams{in: strings.NewReader(""), out: &out, err: &complaints, now: y.now}
	if code := run(y.t.Context(), words, std); code != exitDone || complaints.Len() > 0 {
		y.t.Fatalf("day %d: %v ended with %d: %s%s", y.day(), words, code, out.String(), complaints.String())
	}
	return out.String()
}

// fails gives what a command says that is not done.
func (y *years) fails(words ...string) string {
	y.t.Helper()
	var said strings.Builder
	if code := run(y.t.Context(), words, streams{in: strings.NewReader(""), out: &said, err: &said, now: y.now}); code == exitDone {
		y.t.Fatalf("day %d: %v was done: %s", y.day(), words, said.String())
	}
	return said.String()
}

func (y *years) pass(days int) { y.passed.Add(int64(time.Duration(days) * 24 * time.Hour)) }

func (y *years) freeAddress() string {
	y.t.Helper()
	address, err := freeport.Address()
	if err != nil {
		y.t.Fatal(err)
	}
	return address
}

func (y *years) day() int { return int(time.Duration(y.passed.Load()).Hours() / 24) }

// change replaces what a pattern matches, which must be there.
func (y *years) change(path, pattern, by string) {
	y.t.Helper()
	text, err := os.ReadFile(filepath.Join(y.dir, path))
	if err != nil {
		y.t.Fatal(err)
	}
	changed := regexp.MustCompile(pattern).ReplaceAllString(string(text), by)
	if changed == string(text) {
		y.t.Fatalf("%s does not match %q:\n%s", path, pattern, text)
	}
	if err := os.WriteFile(filepath.Join(y.dir, path), []byte(changed), 0o600); err != nil {
		y.t.Fatal(err)
	}
}

// moveTo has the node listen on ports of the loopback interface that are free. All else stays as init wrote it.
func (y *years) moveTo(broker, enrol string) {
	y.change("pinseal.toml", `address = ":8883"`, `address = "`+broker+`"`)
	y.change("pinseal.toml", `(?m)^address = ":8443"`, `address = "`+enrol+`"`)
	const client = "bundles/operator/client.toml"
	y.change(client, `(?m)^host = .*$`, `host = "127.0.0.1"`)
	y.change(client, `(?m)^port = 8883$`, "port = "+strings.TrimPrefix(broker, "127.0.0.1:"))
	y.change(client, `(?m)^enrol_port = 8443$`, "enrol_port = "+strings.TrimPrefix(enrol, "127.0.0.1:"))
}

// awaitCare has the running node look at its certificate, which it does every minute anyway, and waits until that is good.
func (y *years) awaitCare() {
	y.t.Helper()
	l := layoutUnder(y.dir)
	if err := askNode(l.control(), "reload"); err != nil {
		y.t.Fatal(err)
	}
	if !waitFor(func() bool {
		certificate, err := readCertificate(l.brokerCert())
		return err == nil && y.now().Before(renewal.Due(certificate))
	}, nil) {
		y.t.Fatalf("day %d: the broker's certificate is due and was not renewed", y.day())
	}
}

// timer does what the timer does, until nothing is left to do.
func (y *years) timer() {
	y.t.Helper()
	if !waitFor(func() bool { return y.do("ca", "renew", "--due", "--dir", y.dir) == "" }, nil) {
		y.t.Fatalf("day %d: there is no end of what is due", y.day())
	}
}

// renewed counts who was given how many certificates.
func (y *years) renewed() map[string]int {
	y.t.Helper()
	history, err := pki.ReadJournal(layoutUnder(y.dir).journal())
	if err != nil {
		y.t.Fatal(err)
	}
	count := map[string]int{}
	for _, entry := range history.Entries {
		count[entry.Name]++
	}
	return count
}

// TestDefaultsSurviveTheYears: what init writes, a device that joined, and then nobody touches anything for a thousand days
// but to give commands: the node, its operator, the operator's copy on another machine and the device go on being let in.
func TestDefaultsSurviveTheYears(t *testing.T) {
	t.Parallel()
	y := &years{t: t, dir: t.TempDir()}
	broker, enrol := y.freeAddress(), y.freeAddress()
	y.do("init", "--dir", y.dir, "--node", "raspiflow", "--chip", "sim")
	y.moveTo(broker, enrol)
	operator, laptop, device := filepath.Join(y.dir, "bundles", "operator"), filepath.Join(t.TempDir(), "laptop"), filepath.Join(t.TempDir(), "sensor-1")
	if err := os.CopyFS(laptop, os.DirFS(operator)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(laptop, 0o700); err != nil {
		t.Fatal(err)
	}
	runNodeAt(t, y.dir, y.now)
	line := strings.TrimSpace(y.do("device", "add", "sensor-1", "--dir", y.dir))
	y.do("device", "join", line, "--out", device)

	const step, end = 12, 1000
	for y.day() < end {
		y.pass(step)
		y.awaitCare()
		y.do("pub", "--bundle", operator, "ledStatus", "toggle")
		y.do("pub", "--bundle", device, "-t", "telemetry/sensor-1/load", "-m", "1")
		if y.day()%(5*step) == 0 {
			y.do("pub", "--bundle", laptop, "ledStatus", "toggle")
		}
	}
	// What init wrote is renewed after 550 days: the node's for 90 days each time, the operator's two copies for 825.
	count := y.renewed()
	if count["raspiflow"] < 7 || count["operator"] != 3 || count["sensor-1"] < 14 {
		t.Errorf("certificates in %d days: %v", end, count)
	}
	y.do("doctor", "--dir", y.dir)
}

// TestTimerRenewsWithoutEnrolment: where nobody joins, the authority's key is root's, and a timer does what is due. What the
// service may do itself here, because the key is not hidden from it, does no harm.
func TestTimerRenewsWithoutEnrolment(t *testing.T) {
	t.Parallel()
	y := &years{t: t, dir: t.TempDir()}
	y.do("init", "--dir", y.dir, "--node", "raspiflow", "--chip", "sim", "--listen", y.freeAddress())
	y.do("device", "add", "lost", "--dir", y.dir, "--out", filepath.Join(y.dir, "bundles", "lost"))
	y.do("device", "revoke", "lost", "--dir", y.dir)
	if err := os.RemoveAll(filepath.Join(y.dir, "bundles", "lost")); err != nil {
		t.Fatal(err)
	}
	operator := runNodeAt(t, y.dir, y.now)
	list := func() time.Time {
		text, err := os.ReadFile(layoutUnder(y.dir).crl())
		if err != nil {
			t.Fatal(err)
		}
		lists, err := pki.ParseRevocationLists(text)
		if err != nil {
			t.Fatal(err)
		}
		return lists[0].NextUpdate
	}
	y.pass(80)
	if said := y.do("doctor", "--dir", y.dir); !strings.Contains(said, "ca.crl ends on") {
		t.Errorf("doctor does not say that the revocation list ends: %s", said)
	}
	const step, end = 25, 1000
	for y.day() < end {
		y.pass(step)
		y.timer()
		y.do("pub", "--bundle", operator, "ledStatus", "toggle")
		if left := list().Sub(y.now()); left < 55*24*time.Hour {
			t.Fatalf("day %d: the revocation list is good for %v", y.day(), left)
		}
	}
	if count := y.renewed(); count["raspiflow"] < 7 || count["operator"] != 2 {
		t.Errorf("certificates in %d days: %v", end, count)
	}
	y.do("doctor", "--dir", y.dir)

	// For longer than anything is good for nobody was there: what the timer does then is enough, too.
	y.pass(900)
	said := y.fails("doctor", "--bundle", operator)
	if !strings.Contains(said, "client.crt expired on") || !strings.Contains(said, "hint: pinseal ca renew on the node") {
		t.Errorf("doctor says of an expired bundle: %s", said)
	}
	y.timer()
	y.do("pub", "--bundle", operator, "ledStatus", "toggle")
}
