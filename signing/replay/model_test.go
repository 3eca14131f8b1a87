package replay_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pinseal/signing/replay"
)

// message is what the model remembers.
type message struct {
	number  uint64
	content byte
}

// model is the rules in their plainest form: everything ever accepted is kept,
// by kid and name.
type model struct {
	commands, telemetry, legacy map[[2]string][]message
}

func newModel() *model {
	return &model{map[[2]string][]message{}, map[[2]string][]message{}, map[[2]string][]message{}}
}

// highest judges by the highest few of all that was accepted.
func highest(accepted map[[2]string][]message, who [2]string, m message, few int) replay.Outcome {
	known := slices.SortedFunc(slices.Values(accepted[who]), func(a, b message) int { return int(b.number) - int(a.number) })
	known = known[:min(few, len(known))]
	for _, k := range known {
		if k == m {
			return replay.Duplicate
		}
		if k.number == m.number {
			return replay.Equivocation
		}
	}
	if len(known) == few && m.number < known[few-1].number {
		return replay.Replay
	}
	accepted[who] = append(accepted[who], m)
	return replay.New
}

func (m *model) legacySecond(who [2]string, msg message) replay.Outcome {
	last := message{}
	for _, k := range m.legacy[who] {
		last.number = max(last.number, k.number)
	}
	known := slices.DeleteFunc(slices.Clone(m.legacy[who]), func(k message) bool { return k.number < last.number })
	switch {
	case msg.number < last.number:
		return replay.Replay
	case slices.Contains(known, msg):
		return replay.Duplicate
	case msg.number == last.number && len(known) == 64:
		return replay.Replay
	}
	m.legacy[who] = append(m.legacy[who], msg)
	return replay.New
}

func (m *model) reset(kid string) {
	for _, accepted := range []map[[2]string][]message{m.commands, m.telemetry, m.legacy} {
		maps.DeleteFunc(accepted, func(who [2]string, _ []message) bool { return who[0] == kid })
	}
}

// machine is a store beside its model.
type machine struct {
	dir     string
	files   int
	store   *replay.Store
	model   *model
	flushed map[[2]string][]message // telemetry as of the last Close
	last    *replay.Commit          // commits are in order: waiting for the last is enough
}

func (m *machine) open(t *rapid.T) {
	s, err := replay.Open(filepath.Join(m.dir, fmt.Sprint(m.files)), replay.Options{FlushEvery: time.Hour, LogPages: 4})
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
}

func (m *machine) reopen(t *rapid.T) {
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	m.flushed = maps.Clone(m.model.telemetry)
	m.open(t)
}

// crash goes on with the file as a power cut would leave it now.
func (m *machine) crash(t *rapid.T) {
	if m.last != nil {
		if err := m.last.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	old := m.store
	m.copy(t, filepath.Join(m.dir, fmt.Sprint(m.files)))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	m.model.telemetry = maps.Clone(m.flushed)
	m.open(t)
}

// copy makes a copy the machine's next file.
func (m *machine) copy(t *rapid.T, from string) {
	m.files++
	copyFiles(t, from, filepath.Join(m.dir, fmt.Sprint(m.files)))
}

// check compares an outcome, and keeps the commit to wait for before a crash.
func (m *machine) check(t *rapid.T, what string, got, want replay.Outcome, c *replay.Commit) {
	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	if got == replay.New && c != nil {
		m.last = c
	}
}

func TestStoreFollowsTheModel(outer *testing.T) {
	inMemory(outer)
	kids, names := rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"x", "y"})
	// Small numbers, so that they meet; many of them, so that 64 are exceeded.
	numbers, contents := rapid.Uint64Range(0, 150), rapid.ByteRange(0, 3)
	empty := path(outer)
	closeStore(outer, open(outer, empty, replay.Options{}))
	rapid.Check(outer, func(t *rapid.T) {
		m := &machine{dir: outer.TempDir(), model: newModel(), flushed: map[[2]string][]message{}}
		m.copy(t, empty) // making a database costs more syncs than the rest
		m.open(t)
		defer func() { _ = m.store.Close() }()
		draw := func(t *rapid.T, number *rapid.Generator[uint64]) ([2]string, message, [32]byte) {
			msg := message{number.Draw(t, "number"), contents.Draw(t, "content")}
			return [2]string{kids.Draw(t, "kid"), names.Draw(t, "name")}, msg, [32]byte{msg.content}
		}
		t.Repeat(map[string]func(*rapid.T){
			"command": func(t *rapid.T) {
				who, msg, digest := draw(t, numbers)
				got, c := m.store.Command(who[0], who[1], msg.number, digest)
				m.check(t, "command", got, highest(m.model.commands, who, msg, 1), c)
			},
			"telemetry": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "burst") {
					who, msg, digest := draw(t, numbers)
					who[1] = "x"
					got := m.store.Telemetry(who[0], who[1], msg.number, digest)
					m.check(t, "telemetry", got, highest(m.model.telemetry, who, msg, 64), nil)
				}
			},
			"legacy": func(t *rapid.T) {
				who, msg, digest := draw(t, rapid.Uint64Range(0, 3))
				who[1] = ""
				for range rapid.IntRange(1, 70).Draw(t, "burst") {
					msg.content++
					digest[0]++
					got, c := m.store.Legacy(who[0], int64(msg.number), digest)
					m.check(t, "legacy", got, m.model.legacySecond(who, msg), c)
				}
			},
			"reset": func(t *rapid.T) {
				kid := kids.Draw(t, "kid")
				if err := m.store.Reset(kid); err != nil {
					t.Fatal(err)
				}
				m.model.reset(kid)
				maps.DeleteFunc(m.flushed, func(who [2]string, _ []message) bool { return who[0] == kid })
			},
			"reopen": m.reopen,
			"crash":  m.crash,
		})
	})
}
