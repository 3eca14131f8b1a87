//go:build pivm

package pivm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

const (
	fillDisk = "dd if=/dev/zero of=/var/lib/pinseal/filler bs=4k 2>/dev/null || true"
	makeRoom = "rm /var/lib/pinseal/filler"
	// flushEvery is how long the node keeps telemetry in memory.
	flushEvery = 5 * time.Second
)

// fullDisk: a node that cannot record a command does not act on it and says so, and goes on when there is room again. The
// log that commands are recorded in has room of its own, so a node begins without it and finds none to make another.
// Where it has its log, telemetry that finds no room stops no command.
func (p *pi) fullDisk(t *testing.T) {
	p.sh(t, `systemctl stop pinseal
cp -a /var/lib/pinseal /root/state
mount -t tmpfs -o size=8M,mode=0700,uid=pinseal,gid=gpio tmpfs /var/lib/pinseal
cp -a /root/state/. /var/lib/pinseal
rm -f /var/lib/pinseal/state.log
systemctl start pinseal
`+fillDisk)
	o := connect(t, p.bundle, p.port)
	defer o.close(t)
	before := len(p.levels(t, led))
	const refused = 3
	for range refused {
		o.toggle(t)
		o.await(t)
	}
	if _, n := o.answers(signing.ReasonHardware); n != refused {
		t.Errorf("without room for a log: %d of %d commands were refused as hardware", n, refused)
	}
	p.wantActed(t, o, before)
	p.sh(t, makeRoom)
	p.toggleFor(t, o, signing.ReasonApplied)

	p.sh(t, fillDisk)
	_, applied := o.answers(signing.ReasonApplied)
	sent := len(o.sent)
	o.crowd(t, 800)
	for begin := time.Now(); time.Since(begin) < 2*flushEvery; {
		o.toggle(t)
		o.await(t)
	}
	if _, now := o.answers(signing.ReasonApplied); now-applied != len(o.sent)-sent {
		t.Errorf("without room for telemetry: %d of %d commands were applied", now-applied, len(o.sent)-sent)
	}
	p.wantActed(t, o, before)
	p.sh(t, makeRoom)
	p.toggleFor(t, o, signing.ReasonApplied)
	p.wantActed(t, o, before)
	p.sh(t, "systemctl stop pinseal; umount /var/lib/pinseal; rm -r /root/state; systemctl start pinseal")
}

// toggleFor sends command after command until one has this verdict.
func (p *pi) toggleFor(t *testing.T, o *operator, want signing.Reason) {
	t.Helper()
	await(t, eventTimeout, fmt.Sprintf("a command to be answered with %s", want), func() bool {
		o.toggle(t)
		o.await(t)
		return o.sent[len(o.sent)-1].reason == want
	})
}

// wantActed compares how often the LED's line was set since there were so many levels with the commands that were applied.
func (p *pi) wantActed(t *testing.T, o *operator, before int) {
	t.Helper()
	levels := p.levels(t, led)[before:]
	if _, applied := o.answers(signing.ReasonApplied); len(levels) != applied {
		var reasons []signing.Reason
		for _, c := range o.sent {
			reasons = append(reasons, c.reason)
		}
		t.Errorf("the line was set %d times, to %s, for %d applied commands of %v", len(levels), levels, applied, reasons)
	}
}

// crowd publishes telemetry on so many topics.
func (o *operator) crowd(t *testing.T, topics int) {
	t.Helper()
	for n := range topics {
		now := time.Now()
		topic := fmt.Sprintf("telemetry/operator/%d", n)
		raw, err := signing.Seal(o.key, signing.Claims{Topic: topic, IssuedAt: now, Sequence: uint64(now.UnixMicro()), Message: []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		if err := o.mqtt.Publish(t.Context(), mqtt.Message{Topic: topic, Payload: raw, QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

// readOnlyRoot: a memory card that fails makes the kernel mount it read-only. From then on nothing is acted on. The power
// cuts follow: the first boot repairs the disk, boots once more, and the node has to come back by itself.
func (p *pi) readOnlyRoot(t *testing.T) {
	p.wantPub(t, "1", "applied: ON", "1")
	p.sh(t, `mount -o remount,errors=remount-ro /
echo 1 > /sys/fs/ext4/vda/trigger_fs_error
while touch /root/writable; do sleep 0.1; done`)
	before := p.levels(t, led)
	answer := p.pub(t, "0")
	if !strings.Contains(answer, "rejected: hardware") && !strings.Contains(answer, "no answer") {
		t.Errorf("with a read-only disk: %q", answer)
	}
	if after := p.levels(t, led); after != before {
		t.Errorf("with a read-only disk the line went from %q to %q", before, after)
	}
	progress("with a read-only disk: %s", strings.ReplaceAll(answer, "\n", "; "))
}
