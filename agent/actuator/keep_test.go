package actuator_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/agent/actuator"
)

// What is kept: off at once, on once it has lasted, switching before it happens.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		a := start(t, actuator.Config{Name: "led", Store: m, Restore: time.Hour})
		for range 20 {
			mustDo(t, a, on)
			mustDo(t, a, off)
		}
		if len(m.records()) != 0 {
			t.Fatalf("saved %d times", len(m.records()))
		}
		mustDo(t, a, `{"state":"ON","brightness":9}`)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if len(m.records()) != 1 || !m.records()[0].On || m.records()[0].Level != 9 || m.records()[0].OnFor != 5*time.Second || m.records()[0].Left >= 0 {
			t.Fatalf("saved %+v", m.records())
		}
		mustDo(t, a, `{"state":"ON","flash":1}`) // does not end it
		if len(m.records()) != 1 {
			t.Fatalf("saved %+v", m.records())
		}
		mustDo(t, a, off)
		if len(m.records()) != 2 || m.records()[1].On {
			t.Fatalf("saved %+v", m.records())
		}
		mustDo(t, a, on)
		if err := a.Close(); err != nil || len(m.records()) != 3 || !m.records()[2].On {
			t.Fatalf("saved %+v, %v", m.records(), err)
		}
	})
}

// How long ago something was on counts from the crash, not from when it was switched on.
func TestKeptWhileOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		a := start(t, actuator.Config{Name: "lamp", Store: m, Restore: time.Hour})
		mustDo(t, a, on)
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		saved := m.records()
		if last := saved[len(saved)-1]; !last.On || last.OnFor < 10*time.Hour-time.Hour/20 || len(saved) > 10*20+1 {
			t.Fatalf("saved %d times, at last %+v", len(saved), last)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		saved = m.records()
		if last := saved[len(saved)-1]; last.OnFor != 10*time.Hour {
			t.Errorf("kept at the end: %+v", last)
		}

		b := start(t, actuator.Config{Name: "lamp", Store: m, Restore: time.Hour})
		b.Recall(saved[len(saved)-1], 50*time.Minute)
		if !b.Resume(50 * time.Minute) {
			t.Fatal("is not resumed")
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if again := m.records(); len(again) != len(saved)+1 || again[len(saved)].OnFor < 10*time.Hour+50*time.Minute {
			t.Errorf("what was resumed is not saved again: %+v", again[len(saved)-1:])
		}
	})
}

// A disk that takes its time keeps no rule waiting, and what it writes late does not undo what came after.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := &slowDisk{release: make(chan struct{})}, &dimmer{start: time.Now()}
		a := start(t, actuator.Config{Name: "led", Driver: d, Store: m, Restore: time.Hour, Rules: actuator.Rules{MaxOn: time.Minute}})
		mustDo(t, a, on)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if d.level != 0 {
			t.Fatal("max_on waits for the disk")
		}
		a.Online(false) // does not wait
		a.Healthy(false)
		close(m.release)
		synctest.Wait()
		if last := m.records()[len(m.records())-1]; last.On {
			t.Errorf("kept at last: %+v", last)
		}
	})
}

type slowDisk struct {
	memory
	release chan struct{}
}

func (s *slowDisk) Save(r actuator.Record) error {
	<-s.release
	return s.memory.Save(r)
}

// What could not be kept is tried again, without a rule being late for that.
func TestBrokenDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := &memory{fault: errFault}, &dimmer{start: time.Now()}
		a := start(t, actuator.Config{Name: "led", Driver: d, Store: m, Restore: time.Hour, Rules: actuator.Rules{MaxOn: 7 * time.Second}})
		mustDo(t, a, on)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		m.fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := strings.Join(d.wave, " "); got != "0:255 7000:0" {
			t.Errorf("the line: %s", got)
		}
		if len(m.records()) != 1 || m.records()[0].On { // of the first attempt nobody knows what came of it
			t.Errorf("saved %+v", m.records())
		}
	})
}

// A disk that stays full is told of once, and when it is full the next time.
func TestFullDiskIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, log := &memory{}, &strings.Builder{}
		a := start(t, actuator.Config{Name: "led", Store: m, Restore: time.Hour, Log: slog.New(slog.NewTextHandler(log, nil))})
		for want := 1; want <= 2; want++ {
			mustDo(t, a, on)
			time.Sleep(time.Minute)
			m.fail(errFault)
			mustDo(t, a, off)
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := strings.Count(log.String(), "not kept"); got != want {
				t.Errorf("told %d times, want %d", got, want)
			}
			m.fail(nil)
			time.Sleep(time.Minute)
			synctest.Wait()
			if saved := m.records(); saved[len(saved)-1].On {
				t.Error("off is not kept")
			}
		}
	})
}

func TestSwitchesAreKeptBeforehand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := &memory{}, &dimmer{start: time.Now()}
		a := start(t, actuator.Config{Name: "pump", Driver: d, Store: m, Rules: actuator.Rules{Switches: 2, Window: time.Minute}})
		m.fail(errFault)
		if _, err := do(t, a, on); !errors.Is(err, errFault) || d.level != 0 {
			t.Errorf("got %v, the line is at %d", err, d.level)
		}
		m.fail(nil)
		mustDo(t, a, on)
		if len(m.records()) != 1 || len(m.records()[0].Switched) != 1 {
			t.Errorf("saved %+v", m.records())
		}

		// After a crash the one counts, and how long ago it was where that is known.
		b := start(t, actuator.Config{Name: "pump", Store: m, Rules: actuator.Rules{Switches: 2, Window: time.Minute}})
		b.Recall(m.records()[0], 10*time.Second)
		mustDo(t, b, on)
		mustDo(t, b, off)
		if _, err := do(t, b, on); err == nil || err.Error() != "by max_switches: it may be switched on in 50 s" {
			t.Errorf("got %v", err)
		}
	})
}

func TestResume(t *testing.T) {
	const minute = time.Minute
	lit := actuator.Record{On: true, Level: 9, OnFor: 10 * minute, Left: -1}
	limited := lit
	limited.Left = 5 * minute
	for _, test := range []struct {
		name    string
		record  actuator.Record
		rules   actuator.Rules
		elapsed time.Duration
		first   string // command
		resumes bool
		want    string // the line's levels
	}{
		{"on", lit, actuator.Rules{}, minute, "", true, "0:9"},
		{"was off", actuator.Record{Left: -1}, actuator.Rules{}, minute, "", false, ""},
		{"too long ago", lit, actuator.Rules{}, 61 * minute, "", false, ""},
		{"commanded meanwhile", lit, actuator.Rules{}, minute, off, false, ""},
		{"within max_on", lit, actuator.Rules{MaxOn: 12 * minute}, minute, "", true, "0:9 60000:0"},
		{"max_on is over", lit, actuator.Rules{MaxOn: 12 * minute}, 2 * minute, "", false, ""},
		{"within the permit", limited, actuator.Rules{}, 4 * minute, "", true, "0:9 60000:0"},
		{"the permit is over", limited, actuator.Rules{}, 5 * minute, "", false, ""},
		{"min_off comes first", lit, actuator.Rules{MinOff: 3 * time.Second}, minute, "", true, "3000:9"},
		{"min_off leaves no time", lit, actuator.Rules{MinOff: 3 * time.Second, MaxOn: 11*minute + time.Second}, minute, "", true, ""},
		{"only its switching is kept", lit, actuator.Rules{Switches: 9, Window: time.Minute}, 0, "", false, ""},
		{"never without a hand", lit, actuator.Rules{Hold: minute}, minute, "", false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, m := &dimmer{start: time.Now()}, &memory{}
				cfg := actuator.Config{Name: "led", Driver: d, Dims: true, Rules: test.rules, Store: m, Restore: time.Hour}
				if test.rules.Switches > 0 {
					cfg.Restore = 0
				}
				a := start(t, cfg)
				a.Recall(test.record, test.elapsed)
				a.Online(true)
				if test.record.On && len(m.records()) > 0 {
					t.Errorf("what is still to be judged was overwritten: %+v", m.records())
				}
				if test.first != "" {
					mustDo(t, a, test.first)
				}
				if got := a.Resume(test.elapsed); got != test.resumes {
					t.Errorf("resumes: %v", got)
				}
				time.Sleep(20 * minute)
				synctest.Wait()
				if got := strings.Join(d.wave, " "); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		})
	}
}

// Of a group the first that was on is on again, and no other.
func TestResumeInterlocked(t *testing.T) {
	lock := new(actuator.Interlock)
	lit := actuator.Record{On: true, Level: 255, Left: -1}
	var resumed []bool
	for _, name := range []string{"up", "down"} {
		a := start(t, actuator.Config{Name: name, Rules: actuator.Rules{Lock: lock, MinOff: time.Hour}, Store: &memory{}, Restore: time.Hour})
		a.Recall(lit, 0)
		resumed = append(resumed, a.Resume(0))
	}
	if !slices.Equal(resumed, []bool{true, false}) {
		t.Errorf("resumed: %v", resumed)
	}
}

// What waits to be on again holds its group only as long as it may be.
func TestResumeLeavesTheGroup(t *testing.T) {
	for _, test := range []struct {
		name   string
		rules  actuator.Rules
		happen func(a *actuator.Actuator)
	}{
		{"its time is up before min_off is", actuator.Rules{MinOff: 3 * time.Second, MaxOn: 2 * time.Second}, func(*actuator.Actuator) {}},
		{"the watchdog starves", actuator.Rules{MinOff: time.Minute}, func(a *actuator.Actuator) { a.Healthy(false) }},
		{"the broker is lost", actuator.Rules{MinOff: time.Minute, Lost: time.Second}, func(a *actuator.Actuator) { a.Online(false) }},
		{"it is switched off", actuator.Rules{MinOff: time.Minute}, func(a *actuator.Actuator) { mustDo(t, a, off) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lock := new(actuator.Interlock)
				test.rules.Lock = lock
				up := start(t, actuator.Config{Name: "up", Rules: test.rules, Store: &memory{}, Restore: time.Hour})
				down := start(t, actuator.Config{Name: "down", Rules: actuator.Rules{Lock: lock}})
				up.Recall(actuator.Record{On: true, Level: 255, Left: -1}, 0)
				if !up.Resume(0) {
					t.Fatal("does not resume")
				}
				if _, err := do(t, down, on); err == nil {
					t.Error("on, although the other is about to be")
				}
				test.happen(up)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				mustDo(t, down, on)
			})
		})
	}
}

// clock is a wall clock that may be trusted or not.
type clock struct {
	now     time.Time
	trusted bool
}

func (c *clock) Now() time.Time { return c.now }
func (c *clock) Trusted() bool  { return c.trusted }

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "led.json")
	c := &clock{now: time.Unix(1e9, 0), trusted: true}
	boot, uptime := "first", time.Hour
	open := func() *actuator.File {
		f := actuator.NewFile(path, c)
		f.Boot = func() (string, time.Duration, error) { return boot, uptime, nil }
		return f
	}
	if k, err := open().Load(); err != nil || k.On || len(k.Switched) != 0 {
		t.Fatalf("of no file: %+v, %v", k, err)
	}
	want := actuator.Record{On: true, Level: 7, OnFor: time.Minute, Left: -1, Switched: []time.Duration{3, 2}}
	for _, test := range []struct {
		name           string
		savedTrusted   bool
		boot           string
		uptime         time.Duration
		passed         time.Duration
		trusted, known bool
		elapsed        time.Duration
	}{
		{"same boot", false, "first", time.Hour + time.Minute, -time.Hour, false, true, time.Minute},
		{"another boot", true, "second", time.Second, 2 * time.Hour, true, true, 2 * time.Hour},
		{"another boot, clock not set yet", true, "second", time.Second, 2 * time.Hour, false, false, 0},
		{"another boot, clock was not set", false, "second", time.Second, 2 * time.Hour, true, false, 0},
		{"from the future", true, "second", time.Second, -time.Second, true, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			boot, uptime, c.now, c.trusted = "first", time.Hour, time.Unix(1e9, 0), test.savedTrusted
			if err := open().Save(want); err != nil {
				t.Fatal(err)
			}
			boot, uptime, c.now, c.trusted = test.boot, test.uptime, c.now.Add(test.passed), test.trusted
			k, err := open().Load()
			if err != nil || k.On != want.On || k.Level != want.Level || k.OnFor != want.OnFor || k.Left != want.Left || !slices.Equal(k.Switched, want.Switched) {
				t.Errorf("got %+v, %v", k.Record, err)
			}
			if elapsed, known := k.Elapsed(); elapsed != test.elapsed || known != test.known {
				t.Errorf("elapsed %v, known: %v", elapsed, known)
			}
		})
	}
	for _, broken := range []string{``, `{`, `{}`, `{"version":2}`, `{"version":1,"on":true,"level":0}`, `{"version":1,"on":true,"level":256}`, `{"version":1,"on_for":-1}`} {
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := open().Load(); err == nil || k.On {
			t.Errorf("read %+v from %q", k.Record, broken)
		}
	}
}

// The kernel's own names for its runs.
func TestThisBoot(t *testing.T) {
	id, uptime, err := actuator.NewFile("", nil).Boot()
	if err != nil || len(id) != 36 || uptime <= 0 {
		t.Errorf("%q, %v, %v", id, uptime, err)
	}
}
