//go:build pivm

package pivm_test

import (
	"fmt"
	"strings"
	"testing"
)

// outputsAndInputs: what takes time is timed by the Pi, its rules win, and an input moves an output and is told.
func (p *pi) outputsAndInputs(t *testing.T) {
	p.command(t, `{"state": "ON", "effect": "blink", "period": 0.4, "count": 3}`, "applied: ON")
	await(t, eventTimeout, "three blinks", func() bool { return steps(p.levels(t, gate)) == "0101010" })
	p.command(t, "on", "applied: ON: limited to 2 s by max_on")
	await(t, eventTimeout, "the gate to close by itself", func() bool { return steps(p.levels(t, gate)) == "010101010" })

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

// command is for the gate, from inside.
func (p *pi) command(t *testing.T, message, want string) {
	t.Helper()
	if out, _ := p.try(t, fmt.Sprintf("pinseal pub -t pinseal/%s/gate/set -m '%s'", node, message)); strings.TrimSpace(out) != want {
		t.Errorf("pinseal pub %s: %q, want %q", message, out, want)
	}
}

// kernelLines runs the tests of package gpio that need the kernel's driver, with the kernel's own trace as their oscilloscope.
func (p *pi) kernelLines(t *testing.T) {
	p.host(t, "env", "CGO_ENABLED=0", "GOARCH=arm64", "go", "test", "-c", "-tags", "kernelgpio", "-o", p.shared("gpio.test"), "pinseal/gpio")
	out := p.sh(t, "cp /run/pivm/gpio.test /tmp/; cd /tmp; ./gpio.test -test.v -test.run Kernel; rm gpio.test")
	progress("tests of the kernel's lines: %d passed", strings.Count(out, "\n--- PASS"))
}
