//go:build pivm

package pivm_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/signing"
)

const cuts = 20

// powerCuts pulls the plug under load, boots the same disk and sends everything again that was sent before the cut.
//
// The kernel's own account of the line says how many commands were acted on: a toggle is one change, and commands are
// acted on in the order of their numbers. So whatever the node had or had not said about a command when the power went:
// if it was acted on before the cut, it must be refused after it.
func (p *pi) powerCuts(t *testing.T) {
	p.cut(t)
	p.boot(t)
	connect(t, p.bundle, p.port).close(t)
	p.wantSafeStart(t)
	p.sh(t, `sed -i 's/^trust = .*/trust = "always"/' /etc/pinseal/pinseal.toml; systemctl restart pinseal`)
	var all []*command
	var sums tally
	var ready []time.Duration
	for n := range cuts {
		o := connect(t, p.bundle, p.port)
		start := len(p.levels(t, led))
		o.toggleUntil(t, 5+rand.IntN(60))
		at := time.Now()
		p.cut(t)
		o.close(t)
		acted := len(p.levels(t, led)) - start
		sums.add(t, o, acted)
		progress("power cut %d of %d: %d sent, %d acted on", n+1, cuts, len(o.sent), acted)

		p.boot(t)
		p.replayAll(t, o.sent, acted, at)
		ready = append(ready, p.toReady(t))
		all = append(all, o.sent...)
	}
	p.refuseForGood(t, all)
	slices.Sort(ready)
	progress("%d power cuts: %s", cuts, sums)
	progress("from the start of the kernel to READY: %.1f to %.1f s", ready[0].Seconds(), ready[cuts-1].Seconds())
}

// toReady is how long after the kernel's start the node was ready.
func (p *pi) toReady(t *testing.T) time.Duration {
	t.Helper()
	out := strings.TrimSpace(p.sh(t, "systemctl show -P ActiveEnterTimestampMonotonic pinseal"))
	d, err := time.ParseDuration(out + "us")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tally is what the cuts met.
type tally struct{ sent, applied, acted int }

func (s *tally) add(t *testing.T, o *operator, acted int) {
	t.Helper()
	_, applied := o.answers(signing.ReasonApplied)
	if acted > len(o.sent) {
		t.Errorf("the line changed %d times for %d commands", acted, len(o.sent))
	}
	s.sent, s.applied, s.acted = s.sent+len(o.sent), s.applied+applied, s.acted+acted
}

func (s tally) String() string {
	return fmt.Sprintf("%d commands sent, %d applied as far as the sender knew, %d as the kernel knew", s.sent, s.applied, s.acted)
}

// wantSafeStart compares everything the lines went through since power-on: their initial level, and nothing else.
func (p *pi) wantSafeStart(t *testing.T) {
	t.Helper()
	for line, want := range map[int]string{led: "0", fan: "1", relay: "1"} {
		if got := p.levels(t, line); strings.Trim(got, want) != "" || got == "" {
			t.Errorf("GPIO%d went through %q since power-on, want nothing but %s", line, got, want)
		}
	}
}

// replayAll sends recorded commands again while the node's clock stands where it stood when they were sealed, so that
// nothing but the node's memory can tell that they are old. The first acted of them must be refused; of the others, which
// were on their way when the power went, each may be obeyed now, for the first time.
func (p *pi) replayAll(t *testing.T, recorded []*command, acted int, sealed time.Time) {
	t.Helper()
	o := connect(t, p.bundle, p.port)
	defer o.close(t)
	p.wantSafeStart(t)
	p.sh(t, fmt.Sprintf("date -s @%d.%06d", sealed.Unix(), sealed.Nanosecond()/1000))
	before := len(p.levels(t, led))
	obeyed := 0
	for i, now := range o.replay(t, recorded) {
		known := i < acted || recorded[i].reason == signing.ReasonApplied
		switch {
		case now.reason == signing.ReasonApplied && known:
			t.Errorf("command %d of %d was acted on before the power cut and once more after it", i, len(recorded))
		case now.reason == signing.ReasonApplied:
			obeyed++
		case now.reason != signing.ReasonDuplicate && now.reason != signing.ReasonReplay:
			t.Errorf("command %d of %d again: %s", i, len(recorded), now.reason)
		}
	}
	if changes := len(p.levels(t, led)) - before; changes != obeyed {
		t.Errorf("the line changed %d times for %d commands", changes, obeyed)
	}
	p.sh(t, "date -s @$(cat /sys/class/rtc/rtc0/since_epoch)")
}

// refuseForGood sends all that was ever sent once more: now as it would be, late.
func (p *pi) refuseForGood(t *testing.T, all []*command) {
	t.Helper()
	o := connect(t, p.bundle, p.port)
	defer o.close(t)
	before := p.levels(t, led)
	for batch := range slices.Chunk(all, 64) {
		o.replay(t, batch)
	}
	if _, applied := o.answers(signing.ReasonApplied); applied != 0 {
		t.Errorf("%d of %d recorded commands were obeyed in the end", applied, len(all))
	}
	if after := p.levels(t, led); after != before {
		t.Errorf("the line changed from %q to %q", before, after)
	}
}

// clockInThePast: a Pi without a battery clock wakes up years ago. TLS works by the floor under the clock, pub fetches the
// challenge that a command needs then, and a plain one is refused until the clock is set.
func (p *pi) clockInThePast(t *testing.T) {
	p.sh(t, `sed -i 's/^trust = .*/trust = "auto"/' /etc/pinseal/pinseal.toml; sync`)
	p.cut(t)
	p.boot(t, "-rtc", "base=2020-01-01T00:00:00")
	o := connect(t, p.bundle, p.port)
	p.wantSafeStart(t)
	// systemd goes no further back than its own release.
	recent := time.Now().Add(-48 * time.Hour)
	if out, status := p.try(t, fmt.Sprintf("date; [ $(date +%%s) -lt %d ]", recent.Unix())); status != 0 {
		t.Errorf("the guest's clock shows a time at which certificates are valid: %s", out)
	}
	o.toggle(t)
	o.await(t)
	if reason := o.sent[0].reason; reason != signing.ReasonClockUnsynchronised {
		t.Errorf("a command without challenge: %s", reason)
	}
	o.close(t)
	p.wantPub(t, "1", "applied: ON", "1")
	p.wantPub(t, "0", "applied: OFF", "0")
	p.sh(t, fmt.Sprintf("date -s @%d", time.Now().Unix()))
	p.sh(t, "mkdir -p /run/systemd/timesync; touch /run/systemd/timesync/synchronized")
	sealed := p.seal(t, "1")
	await(t, eventTimeout, "a command without challenge to be obeyed", func() bool {
		p.mosquitto(t, sealed)
		return strings.HasSuffix(p.levels(t, led), "1")
	})
}
