//go:build pivm

// Package pivm_test tests pinseal where it is meant to run: as a service on a Raspberry Pi. The Pi is emulated, with
// Debian's kernel and systemd, and a GPIO chip that the kernel simulates. docs/emulated-pi.md says more.
package pivm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
)

// pi is a machine with the node installed, and its operator.
type pi struct {
	*machine
	program string // pinseal on this side
	bundle  string // the operator's, copied out
}

// TestPi is the life of one Pi, from its installation to its twentieth power cut. Each step leaves a working node behind;
// without one there is no point in going on.
func TestPi(t *testing.T) {
	p := &pi{machine: newMachine(t)}
	p.program = build(t, p.machine)
	good := t.Run("install", p.install) &&
		t.Run("clock not set", p.clockNotSet) &&
		t.Run("pub inside and outside", p.pubInsideAndOutside) &&
		t.Run("mosquitto_pub", p.mosquittoPub) &&
		t.Run("idle", p.idle) &&
		t.Run("outputs and inputs", p.outputsAndInputs) &&
		t.Run("joining", p.joining) &&
		t.Run("renewing", p.renewing) &&
		t.Run("reload", p.reload) &&
		t.Run("upgrade", p.upgrade) &&
		t.Run("kill", p.kill) &&
		t.Run("full disk", p.fullDisk) &&
		t.Run("stop", p.stop) &&
		t.Run("watchdog", p.watchdog) &&
		t.Run("read-only root", p.readOnlyRoot) &&
		t.Run("power cuts", p.powerCuts) &&
		t.Run("clock in the past", p.clockInThePast) &&
		t.Run("lines of the kernel", p.kernelLines) // last: they turn off the trace that levels reads
	if !good && p.running() {
		out, _ := p.try(t, "systemctl status pinseal --no-pager; journalctl -u pinseal -b --no-pager -n 60")
		t.Logf("the node says:\n%s", out)
	}
}

// build makes the program for this side.
func build(t *testing.T, m *machine) string {
	t.Helper()
	m.host(t, "go", "build", "-o", m.path("pinseal"), "pinseal/cmd/pinseal")
	return m.path("pinseal")
}

const configuration = `
[[output]]
name = "fan"
line = "GPIO22"
initial = "on"
exit = "off"

[[output]]
name = "relay"
line = "GPIO27"
active_low = true

[[output]]
name = "gate"
line = "GPIO23"
max_on = "2s"

[[permit]]
signer = "operator"
output = "gate"
actions = ["on"]

[[output]]
name = "lamp"
line = "GPIO24"

[[permit]]
signer = "operator"
output = "lamp"
actions = ["on", "toggle", "pulse", "blink", "flash"]

[[input]]
name = "door"
line = "GPIO25"
output = "lamp"
action = "follow"

[agent]
max_age = "60s"
flush = "5s"
`

// install takes the road of the README: the package, init, enable.
func (p *pi) install(t *testing.T) {
	packages, err := filepath.Glob(os.Getenv("PINSEAL_PACKAGES") + "/pinseal_*_arm64.deb")
	if err != nil || len(packages) != 1 {
		t.Fatalf("PINSEAL_PACKAGES must name the folder with the package for arm64, as make test-pi does: %v, %v", packages, err)
	}
	p.share(t, packages[0])
	p.boot(t)
	p.sh(t, "dpkg -i /run/pivm/pinseal_*_arm64.deb")
	if out, _ := p.try(t, "systemctl is-active pinseal || systemctl is-enabled pinseal"); strings.Contains(out, "\nenabled") || strings.HasPrefix(out, "active") {
		t.Errorf("the package alone starts something: %s", out)
	}
	p.sh(t, "pinseal init --node "+node)
	p.sh(t, "cat >> /etc/pinseal/pinseal.toml <<'E'"+configuration+"E")
	p.sh(t, "systemctl enable --now pinseal") // returns when the node is ready
	p.wantLevels(t, "0", "1", "1")
	p.sh(t, "cp -r /var/lib/pinseal/bundles/operator /run/pivm/")
	p.bundle = p.shared("operator")
	progress("resident memory after start: %.1f MB", p.resident(t))
	if p.resident(t) > 25 {
		t.Errorf("%.1f MB resident, at most 25 wanted", p.resident(t))
	}
}

// resident is the memory of the node in MB.
func (p *pi) resident(t *testing.T) float64 {
	t.Helper()
	kilobytes := p.sh(t, `awk '/^VmRSS/ { print $2 }' /proc/$(systemctl show -P MainPID pinseal)/status`)
	n, err := strconv.ParseFloat(strings.TrimSpace(kilobytes), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * 1024 / 1e6
}

// pub publishes on the LED's topic from outside, through the forwarded port, and returns what pub says.
func (p *pi) pub(t *testing.T, message string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), p.program, "pub", "--bundle", p.bundle, "-h", "127.0.0.1",
		"-p", p.port, "-W", "30", "ledStatus", message).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("pinseal pub: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// wantPub publishes from outside and compares the answer, and the level of the LED.
func (p *pi) wantPub(t *testing.T, message, answer, level string) {
	t.Helper()
	if got := p.pub(t, message); !strings.HasPrefix(got, answer) {
		t.Errorf("pinseal pub ledStatus %s: %q, want %q", message, got, answer)
	}
	if got := p.level(t, led); got != level {
		t.Errorf("after pinseal pub ledStatus %s the LED is at %s, want %s", message, got, level)
	}
}

// mosquitto publishes a sealed message by mosquitto_pub.
func (p *pi) mosquitto(t *testing.T, sealed string) {
	t.Helper()
	p.host(t, "mosquitto_pub", "-h", "127.0.0.1", "-p", p.port, "--tls-version", "tlsv1.3", "-q", "1",
		"--cafile", p.bundle+"/ca.crt", "--cert", p.bundle+"/client.crt", "--key", p.bundle+"/client.key",
		"-t", "ledStatus", "-m", strings.TrimSpace(sealed))
}

func (p *pi) seal(t *testing.T, message string) string {
	t.Helper()
	return p.host(t, p.program, "seal", "--bundle", p.bundle, "-t", "ledStatus", message)
}

// clockNotSet: nobody has told the guest that its clock is right. A command without the node's challenge is refused;
// pub fetches the challenge.
func (p *pi) clockNotSet(t *testing.T) {
	o := connect(t, p.bundle, p.port)
	defer o.close(t)
	o.toggle(t)
	o.await(t)
	if reason := o.sent[0].reason; reason != signing.ReasonClockUnsynchronised {
		t.Errorf("a command without challenge: %s", reason)
	}
	p.wantPub(t, "1", "applied: ON", "1")
	p.wantPub(t, "0", "applied: OFF", "0")
}

// setClock does what systemd-timesyncd does when it has set the clock, and waits until the node has noticed.
func (p *pi) setClock(t *testing.T) {
	t.Helper()
	p.sh(t, "date -s @$(cat /sys/class/rtc/rtc0/since_epoch); mkdir -p /run/systemd/timesync; touch /run/systemd/timesync/synchronized")
	o := connect(t, p.bundle, p.port)
	defer o.close(t)
	await(t, eventTimeout, "the node to trust its clock", func() bool {
		o.toggle(t)
		o.await(t)
		return o.sent[len(o.sent)-1].reason == signing.ReasonApplied
	})
}

func (p *pi) pubInsideAndOutside(t *testing.T) {
	p.setClock(t)
	// Both sides number by their clocks for one key, and the guest's is behind by a part of a second.
	now := time.Now().UnixMicro()
	if out := p.sh(t, fmt.Sprintf("until [ $(date +%%s%%6N) -gt %d ]; do sleep 0.1; done; pinseal pub ledStatus 1", now)); out != "applied: ON\n" {
		t.Errorf("pinseal pub inside: %q", out)
	}
	if got := p.level(t, led); got != "1" {
		t.Errorf("the LED is at %s", got)
	}
	p.wantPub(t, "0", "applied: OFF", "0")
	p.wantPub(t, "toggle", "applied: ON", "1")
}

func (p *pi) mosquittoPub(t *testing.T) {
	before := p.levels(t, led)
	sealed := p.seal(t, "0")
	p.mosquitto(t, sealed)
	p.mosquitto(t, sealed) // does nothing
	p.mosquitto(t, p.seal(t, "1"))
	await(t, eventTimeout, "the LED to go off and on", func() bool { return p.levels(t, led) == before+"01" })
}

// idle measures what the node writes while nobody asks anything of it: during two feedings of the watchdog.
func (p *pi) idle(t *testing.T) {
	const seconds = 20
	out := p.sh(t, fmt.Sprintf(`
sync
node=/proc/$(systemctl show -P MainPID pinseal)/io
count() { echo $(sed -n 's/^write_bytes: //p' $node) $(awk '{ print $7 * 512 }' /sys/block/vda/stat); }
before=($(count)); sleep %d; sync; after=($(count))
echo $((after[0] - before[0])) $((after[1] - before[1]))`, seconds))
	var byNode, bySystem int
	if _, err := fmt.Sscan(out, &byNode, &bySystem); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	progress("written in %d idle seconds: %d bytes by the node, %d by the whole system", seconds, byNode, bySystem)
	progress("resident memory now: %.1f MB", p.resident(t))
}

// reload: a permit taken away counts at once, in the same process and for a session that goes on.
func (p *pi) reload(t *testing.T) {
	o := connect(t, p.bundle, p.port)
	defer o.close(t)
	pid := p.sh(t, "systemctl show -P MainPID pinseal")
	for _, step := range []struct {
		actions string
		want    signing.Reason
	}{
		{`"on", "off"`, signing.ReasonNotPermitted},
		{`"on", "off", "toggle"`, signing.ReasonApplied},
	} {
		p.sh(t, fmt.Sprintf("sed -i 's/^actions = .*/actions = [%s]/' /etc/pinseal/pinseal.toml; systemctl reload pinseal", step.actions))
		o.toggle(t)
		o.await(t)
		if got := o.sent[len(o.sent)-1].reason; got != step.want {
			t.Errorf("toggle with %s permitted: %s, want %s", step.actions, got, step.want)
		}
	}
	if now := p.sh(t, "systemctl show -P MainPID pinseal"); now != pid {
		t.Errorf("another process after reload: %s, was %s", now, pid)
	}
}

// kill -9: systemd drives the lines to their exit level and starts the node again, which takes them at their initial one.
func (p *pi) kill(t *testing.T) {
	p.wantPub(t, "1", "applied: ON", "1")
	p.restarted(t, "systemctl kill -s KILL --kill-who=main pinseal")
}

// restarted runs a script that ends the node's process, and expects systemd to bring it back.
func (p *pi) restarted(t *testing.T, script string) {
	t.Helper()
	before := map[int]string{led: p.levels(t, led), fan: p.levels(t, fan), relay: p.levels(t, relay)}
	p.sh(t, `restarts=$(systemctl show -P NRestarts pinseal)
`+script+`
until [ "$(systemctl show -P NRestarts pinseal)" -gt $restarts ] && systemctl -q is-active pinseal; do sleep 0.2; done`)
	// First the exit level by ExecStopPost=, then the initial level by the new process.
	for line, want := range map[int]string{led: "0", fan: "01", relay: "1"} {
		if got := steps(strings.TrimPrefix(p.levels(t, line), before[line])); got != want {
			t.Errorf("GPIO%d went through %q, want %q", line, got, want)
		}
	}
	p.wantLevels(t, "0", "1", "1")
	p.wantPub(t, "1", "applied: ON", "1")
}

// stop: the outputs go to their exit level. The start that follows has a short watchdog.
func (p *pi) stop(t *testing.T) {
	p.wantPub(t, "1", "applied: ON", "1")
	p.sh(t, "systemctl stop pinseal")
	for line, want := range map[int]string{led: "0", fan: "0", relay: "1"} {
		if levels := p.levels(t, line); !strings.HasSuffix(levels, want) {
			t.Errorf("GPIO%d went through %q, want %s at last", line, levels, want)
		}
	}
	p.sh(t, `mkdir -p /run/systemd/system/pinseal.service.d
printf '[Service]\nWatchdogSec=8s\n' > /run/systemd/system/pinseal.service.d/watchdog.conf
systemctl daemon-reload; systemctl start pinseal`)
	p.wantLevels(t, "0", "1", "1")
}

// watchdog: a process that stands still is ended and started again.
func (p *pi) watchdog(t *testing.T) {
	began := time.Now()
	p.restarted(t, "systemctl kill -s STOP --kill-who=main pinseal")
	progress("started again %.0f s after it stood still", time.Since(began).Seconds())
	if out := p.sh(t, "journalctl -b -u pinseal --no-pager"); !strings.Contains(out, "Watchdog timeout") {
		t.Errorf("it was not the watchdog:\n%s", out)
	}
}
