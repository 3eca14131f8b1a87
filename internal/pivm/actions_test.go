//go:build pivm

package pivm_test

import (
	"fmt"
	"strings"
	"testing"
)

// outputsAndInputs: what takes time is timed by the Pi, its rules win, and an input moves an output and is told.
func (p *pi) outputsAndInputs(t *testing.T) {
	levels := "0"
	for _, tt := range []struct{ message, want string }{
		{`on`, "1"},
		{`toggle`, "0"},
		{`{"state": "ON", "pulse": 0.5}`, "10"},
		{`{"state": "ON", "effect": "blink", "period": 1, "count": 3}`, "101010"},
		{`{"state": "ON", "flash": 1}`, "1010"},
	} {
		levels += tt.want
		p.command(t, "lamp", tt.message, "applied: O")
		await(t, eventTimeout, tt.message, func() bool { return len(steps(p.levels(t, lamp))) >= len(levels) })
		if got := steps(p.levels(t, lamp)); got != levels {
			t.Fatalf("after %s the kernel has seen %s, want %s", tt.message, got, levels)
		}
	}
	p.command(t, "gate", "on", "applied: ON: limited to 2 s by max_on")
	await(t, eventTimeout, "the gate to close by itself", func() bool { return steps(p.levels(t, gate)) == "010" })

	pull := fmt.Sprintf("/run/gpio-sim/sim_gpio%d/pull", door)
	for _, move := range []struct{ pull, level string }{{"up", "1"}, {"down", "0"}} {
		p.sh(t, "echo pull-"+move.pull+" > "+pull)
		await(t, eventTimeout, "the lamp to follow the door", func() bool { return p.level(t, lamp) == move.level })
	}
	// The door goes on moving, because who listens may come late.
	out := p.sh(t, `pinseal sub -C 1 -v verified/raspiflow/door & listener=$!
while kill -0 $listener 2>/dev/null; do echo pull-up > `+pull+`; sleep 0.5; echo pull-down > `+pull+`; sleep 0.5; done
wait $listener`)
	if !strings.HasPrefix(out, "verified/raspiflow/door") {
		t.Errorf("who listened to the door was told: %s", out)
	}
}

// joining: a device joins the confined service, which issues its certificate, and is let in no longer once it is lost.
func (p *pi) joining(t *testing.T) {
	out := p.sh(t, `line=$(pinseal device add attic 2>/dev/null)
cd /root && pinseal device join "127.0.0.1:8443/${line#*/}"
pinseal pub --bundle attic -h 127.0.0.1 -t telemetry/attic/test -m 1
pinseal journal verify`)
	if !strings.Contains(out, "on telemetry/attic/joined: applied\n") || !strings.Contains(out, "\napplied\n") {
		t.Errorf("a device joined:\n%s", out)
	}
	p.sh(t, "pinseal device revoke attic")
	if out, status := p.try(t, "cd /root && pinseal pub --bundle attic -h 127.0.0.1 -W 10 -t telemetry/attic/test -m 2"); status == 0 {
		t.Errorf("a lost device is still let in:\n%s", out)
	}
}

// command is from inside, by the full name of the output.
func (p *pi) command(t *testing.T, output, message, want string) {
	t.Helper()
	if out, _ := p.try(t, fmt.Sprintf("pinseal pub -t pinseal/%s/%s/set -m '%s'", node, output, message)); !strings.HasPrefix(out, want) {
		t.Errorf("pinseal pub %s: %q, want %q", message, out, want)
	}
}

// kernelLines runs the tests of package gpio that need the kernel's driver, with the kernel's own trace as their oscilloscope.
func (p *pi) kernelLines(t *testing.T) {
	p.host(t, "env", "CGO_ENABLED=0", "GOARCH=arm64", "go", "test", "-c", "-tags", "kernelgpio", "-o", p.shared("gpio.test"), "pinseal/gpio")
	out := p.sh(t, "cp /run/pivm/gpio.test /tmp/; cd /tmp; ./gpio.test -test.v -test.run Kernel; rm gpio.test")
	progress("tests of the kernel's lines: %d passed", strings.Count(out, "\n--- PASS"))
}

// renewing has the confined service replace its own certificate, and looks whether the timer is there for nodes that may not.
// The operator outside knows the old authority only.
func (p *pi) renewing(t *testing.T) {
	p.sh(t, "systemctl is-active pinseal-renew.timer && systemctl start pinseal-renew.service")
	p.sh(t, "pinseal ca rotate")
	await(t, eventTimeout, "the service to renew its certificate", func() bool {
		_, status := p.try(t, "journalctl -u pinseal -b -o cat | grep -q 'certificate was renewed, sessions go on'")
		return status == 0
	})
	p.wantPub(t, "1", "applied: ON", "1")
	p.wantPub(t, "0", "applied: OFF", "0")
}
