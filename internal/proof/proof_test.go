package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/agent"
	"pinseal/agent/outbox"
	"pinseal/signing"
)

// program builds pinseal once for all tests.
func program(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pinseal-proof-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "pinseal")
	return path, build(context.Background(), path)
})

func TestMain(m *testing.M) {
	defer func() {
		if path, err := built(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}()
	m.Run()
}

func testLab(t *testing.T) *lab {
	t.Helper()
	return newLab(brief(), t.TempDir(), program(t), t.Logf)
}

// The experiments of `make proof`, scaled down.
func TestShortForm(t *testing.T) {
	for _, e := range experiments() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			rows := testLab(t).try(t.Context(), e)
			for _, r := range rows {
				if r.tried == 0 {
					t.Errorf("nothing was tried: %s", r.what)
				}
			}
			checkClean(t, rows)
		})
	}
}

func checkClean(t *testing.T, rows []*row) {
	t.Helper()
	for _, r := range rows {
		if r.wrong > 0 {
			t.Errorf("%d wrong: %s: %s", r.wrong, r.what, strings.Join(r.examples, "\n"))
		}
	}
}

// checkNoticed wants a row to tell what is broken.
func checkNoticed(t *testing.T, r *row, err error, text string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if r.wrong == 0 || !slices.ContainsFunc(r.examples, func(s string) bool { return strings.Contains(s, text) }) {
		t.Errorf("%d of %d wrong, %q, want one that tells %q", r.wrong, r.tried, r.examples, text)
	}
}

func TestFlipsNoticeWhatIsNotChecked(t *testing.T) {
	t.Parallel()
	// Opens whatever begins like the last genuine message.
	var genuine []byte
	blind := func(raw []byte, topic string, keys *signing.Keyring) (*signing.Message, signing.Signer, error) {
		m, s, err := signing.Open(raw, topic, keys)
		switch {
		case err == nil:
			genuine = raw
		case len(genuine) > 0 && bytes.HasPrefix(raw, genuine[:len(genuine)-1]):
			return signing.Open(genuine, topic, keys)
		}
		return m, s, err
	}
	l := testLab(t)
	r := newRow("")
	err := flipAndOpen(l, r, blind)
	checkNoticed(t, r, err, "accepted")
	if want := l.flipped * 9; r.wrong != want { // the eight bits of the last byte, and without it
		t.Errorf("%d wrong, want %d", r.wrong, want)
	}
}

func TestFlipsNoticeAForgeryThatIsNone(t *testing.T) {
	t.Parallel()
	r := newRow("")
	err := flipAndPublish(t.Context(), testLab(t), r, func(raw []byte) [][]byte { return [][]byte{raw[1:], raw} })
	checkNoticed(t, r, err, "the line changed 1 times more")
}

// forgetful puts the replay database and its log back to what they were at first, each time that the node does not run.
func forgetful() func(*node) error {
	first := map[string][]byte{}
	return func(n *node) error {
		return n.eachStateFile(func(path string) (err error) {
			if first[path] != nil {
				return overwrite(path, first[path])
			}
			if first[path], err = os.ReadFile(path); errors.Is(err, os.ErrNotExist) {
				return nil // it has not run yet
			}
			return err
		})
	}
}

func TestReplaysNoticeANodeThatForgets(t *testing.T) {
	t.Parallel()
	l := testLab(t)
	rows, err := replays(t.Context(), l, forgetful())
	checkNoticed(t, rows[0], err, `answered with "applied"`)
}

func TestKillsNoticeANodeThatForgets(t *testing.T) {
	t.Parallel()
	l := testLab(t)
	l.kills = 15 // on a busy machine every second life ends before it acted on anything
	rows, err := kills(t.Context(), l, forgetful())
	checkNoticed(t, rows[0], err, "acted on 2 times")
}

func TestReceiptsNoticeWhatIsLost(t *testing.T) {
	t.Parallel()
	l, n := testLab(t), 0
	l.receiverKills = 3
	rows, err := receipts(t.Context(), l, func(b *outbox.Box, m outbox.Message) error {
		if n++; n%10 == 0 {
			return nil
		}
		return b.Put(m)
	})
	checkNoticed(t, rows[0], err, "never came")
}

func TestReceiptsNoticeDisorder(t *testing.T) {
	t.Parallel()
	l, held := testLab(t), map[string]*outbox.Message{}
	l.receiverKills = 3
	rows, err := receipts(t.Context(), l, func(b *outbox.Box, m outbox.Message) error {
		before := held[m.Topic]
		if before == nil {
			held[m.Topic] = &m
			return nil
		}
		held[m.Topic] = nil
		return errors.Join(b.Put(m), b.Put(*before))
	})
	checkNoticed(t, rows[0], err, "without a kill since it was sent")
}

// A node that acts twice need not say so.
func TestKillsNoticeWhatIsNotAnswered(t *testing.T) {
	t.Parallel()
	cmd := &attempt{command: &command{line: 3, seq: 7}, sent: 1}
	for _, test := range []struct {
		name    string
		pending *attempt
		told    int
		writes  int
		wrong   int
	}{
		{"acted and answered", nil, 5, 5, 0},
		{"acted, not answered", &attempt{command: cmd.command, sent: 1}, 5, 6, 0},
		{"not acted", &attempt{command: cmd.command, sent: 1}, 5, 5, 0},
		{"twice, not answered", &attempt{command: cmd.command, sent: 1}, 5, 7, 1},
		{"again in another run", &attempt{command: cmd.command, sent: 2, acted: 1}, 5, 6, 1},
		{"nobody asked", nil, 5, 6, 1},
		{"answered, not acted", nil, 5, 4, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := &lane{row: newRow(""), line: 3, pending: test.pending, told: test.told}
			a.account(test.writes)
			if a.row.wrong != test.wrong {
				t.Errorf("%d wrong, want %d: %q", a.row.wrong, test.wrong, a.row.examples)
			}
		})
	}
}

func TestTelemetryNoticesWhatIsRefused(t *testing.T) {
	t.Parallel()
	rows, err := telemetry(t.Context(), testLab(t), 10*tolerated)
	checkNoticed(t, rows[0], err, "was refused")
}

func TestTelemetryNoticesWhatComesTwice(t *testing.T) {
	t.Parallel()
	j := newLedger(3)
	for _, value := range []string{"0", "1", "1", "2", "3", "x"} {
		j.hear(true, []byte(value))
	}
	fresh, again := newRow(""), newRow("")
	j.judge(fresh, again)
	checkNoticed(t, again, nil, "message 1 was accepted 2 times")
	checkNoticed(t, fresh, nil, "a value was published that nobody sent")
	if again.wrong != 1 || fresh.wrong != 2 {
		t.Errorf("%d and %d wrong, want 1 and 2", again.wrong, fresh.wrong)
	}
}

func TestShuffledStaysWithin(t *testing.T) {
	t.Parallel()
	l := newLab(brief(), "", "", t.Logf)
	most := 0
	order := shuffled(5000, tolerated, l.random.IntN)
	for i, number := range order {
		above := 0
		for _, earlier := range order[max(0, i-3*tolerated):i] {
			if earlier > number {
				above++
			}
		}
		most = max(most, above)
	}
	if most >= tolerated || most < tolerated/2 {
		t.Errorf("up to %d numbers come before a lower one, want nearly %d and not more", most, tolerated-1)
	}
}

func TestDiskNoticesAFaultThatIsNone(t *testing.T) {
	t.Parallel()
	none := func(*trial) error { return nil }
	r := newRow("")
	err := strike(t.Context(), testLab(t), r, "none", fault{"none", false, none, none})
	checkNoticed(t, r, err, "answered with applied (), want hardware")
}

// A node that finds neither its database, nor the log, nor its sequence takes itself for new.
func TestDiskNoticesANodeThatForgets(t *testing.T) {
	t.Parallel()
	r := newRow("")
	err := absent(t.Context(), testLab(t), r, "missing", func(n *node) error {
		return errors.Join(os.Remove(n.path("keys", "sign.key.seq")), n.forgetLatest(), n.forget())
	})
	checkNoticed(t, r, err, "acted on before was answered with applied")
}

// credulous believes every clock.
type credulous struct{ *settable }

func (credulous) Trusted() bool { return true }

func TestClocksNoticeANodeThatBelievesThem(t *testing.T) {
	t.Parallel()
	rows, err := clockMatrix(t.Context(), testLab(t), func(c *settable) agent.Clock { return credulous{c} })
	checkNoticed(t, rows[0], err, "want clock-unsynchronised")
}

func TestFloodsNoticeCommandsThatAreLost(t *testing.T) {
	t.Parallel()
	rows, err := floods(t.Context(), testLab(t), nil, func(config string) string {
		return strings.ReplaceAll(config, `"on", "off", "toggle"`, `"on", "off"`) // on a busy machine no rate is low enough
	})
	checkNoticed(t, rows[0], err, "not acted on within")
}

// The count of the lines is what everything rests on.
func TestWatchCountsEveryWrite(t *testing.T) {
	t.Parallel()
	w, err := newWatch(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	f, err := os.OpenFile(filepath.Join(w.dir, lineName(5)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const writes = 3000
	for range writes { // all the same, and faster than anybody looks
		if _, err := f.WriteAt([]byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	counted, err := w.snapshot()
	if err != nil || counted[5] != writes || counted[4] != 0 {
		t.Errorf("%d of %d writes counted, and %d of none: %v", counted[5], writes, counted[4], err)
	}
	if on, err := w.level(5); err != nil || !on {
		t.Errorf("level %v, %v", on, err)
	}
	for _, broken := range []string{"", "2", "11"} {
		if err := os.WriteFile(f.Name(), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.level(5); err == nil {
			t.Errorf("%q is read as a level", broken)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	r := newRow("what was tried")
	r.try(3)
	r.note("measured beside")
	for range maxExamples + 2 {
		r.fail("it went %s", "wrong")
	}
	var out bytes.Buffer
	tab := &table{rows: []*row{r, newRow("another")}, took: time.Minute}
	if err := tab.write(&out); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "! it went wrong"); got != maxExamples || tab.wrong() != maxExamples+2 {
		t.Errorf("%d examples of %d:\n%s", got, tab.wrong(), &out)
	}
}
