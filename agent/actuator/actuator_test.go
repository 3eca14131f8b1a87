package actuator_test

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/agent/actuator"
	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

var errFault = errors.New("injected fault")

// memory is a store that forgets nothing, or breaks.
type memory struct {
	mu    sync.Mutex
	saved []actuator.Record
	fault error
}

func (m *memory) Save(r actuator.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault == nil {
		m.saved = append(m.saved, r)
	}
	return m.fault
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = err
}

// records are all that were saved, once whatever goes on has come to rest.
func (m *memory) records() []actuator.Record {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.saved)
}

func do(t *testing.T, a *actuator.Actuator, command string) (detail string, err error) {
	t.Helper()
	c, err := actuator.Parse([]byte(command))
	if err != nil {
		t.Fatal(err)
	}
	c.Signed = true
	return a.Do(c)
}

func mustDo(t *testing.T, a *actuator.Actuator, command string) {
	t.Helper()
	if _, err := do(t, a, command); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
}

func start(t *testing.T, cfg actuator.Config) *actuator.Actuator {
	t.Helper()
	if cfg.Driver == nil {
		cfg.Driver = &dimmer{start: time.Now()}
	}
	a, err := actuator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	a.Online(true)
	return a
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().Round(time.Second).UTC()
		seconds := func(n int) time.Time { return now.Add(time.Duration(n) * time.Second) }
		const onoff, dims = "onoff", "brightness"
		for _, test := range []struct {
			name    string
			rules   actuator.Rules
			dims    bool
			command string
			after   time.Duration
			want    actuator.Status
		}{
			{"off", actuator.Rules{}, false, off, 0, actuator.Status{State: "OFF", ColorMode: onoff, Effect: "off"}},
			{"on", actuator.Rules{}, false, on, 0, actuator.Status{State: "ON", ColorMode: onoff, Effect: "off"}},
			{"dimmed", actuator.Rules{}, true, `{"state":"ON","brightness":9}`, 0, actuator.Status{State: "ON", Brightness: 9, ColorMode: dims, Effect: "off"}},
			{"getting brighter", actuator.Rules{}, true, `{"state":"ON","brightness":9,"transition":5}`, time.Second, actuator.Status{State: "ON", Brightness: 9, ColorMode: dims, Effect: "off"}},
			{"pulse", actuator.Rules{}, false, `{"state":"ON","pulse":60}`, 0, actuator.Status{State: "ON", ColorMode: onoff, Effect: "pulse", Until: seconds(60)}},
			{"dark moment of a blinking", actuator.Rules{}, true, `"blink"`, 700 * time.Millisecond, actuator.Status{State: "ON", Brightness: 255, ColorMode: dims, Effect: "blink"}},
			{"an effect's end", actuator.Rules{}, false, `{"state":"ON","effect":"sos","count":1}`, time.Minute, actuator.Status{State: "OFF", ColorMode: onoff, Effect: "off"}},
			{"max_on to come", actuator.Rules{MaxOn: time.Minute}, false, on, 0, actuator.Status{State: "ON", ColorMode: onoff, Effect: "off", Rule: "max_on", Until: seconds(60)}},
			{"max_on has come", actuator.Rules{MaxOn: time.Minute}, false, on, time.Hour, actuator.Status{State: "OFF", ColorMode: onoff, Effect: "off", Rule: "max_on"}},
			{"hold has come", actuator.Rules{Hold: time.Minute}, false, on, time.Hour, actuator.Status{State: "OFF", ColorMode: onoff, Effect: "off", Rule: "hold"}},
			{"min_on keeps it on", actuator.Rules{MinOn: time.Minute}, false, `{"state":"ON","pulse":1}`, 2 * time.Second, actuator.Status{State: "ON", ColorMode: onoff, Effect: "off", Rule: "min_on", Until: seconds(60)}},
		} {
			a := start(t, actuator.Config{Name: "lamp", Rules: test.rules, Dims: test.dims})
			begin := time.Now()
			mustDo(t, a, test.command)
			time.Sleep(test.after)
			synctest.Wait()
			got := a.Status()
			if !got.Until.IsZero() {
				got.Until = got.Until.Add(-begin.Sub(now).Round(time.Second))
			}
			if got != test.want {
				t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
			}
			if read, err := actuator.ParseStatus(got.JSON()); err != nil || read != got {
				t.Errorf("%s: read %+v from %s, %v", test.name, read, got.JSON(), err)
			}
		}
	})
}

func TestStatusJSON(t *testing.T) {
	for _, test := range []struct {
		status actuator.Status
		want   string
	}{
		{actuator.Status{State: "OFF", ColorMode: "onoff", Effect: "off"}, `{"state":"OFF","color_mode":"onoff","effect":"off"}`},
		{
			actuator.Status{State: "ON", Brightness: 7, ColorMode: "brightness", Effect: "blink", Rule: "max_on", Until: time.Unix(1e9, 0).UTC()},
			`{"state":"ON","brightness":7,"color_mode":"brightness","effect":"blink","rule":"max_on","until":"2001-09-09T01:46:40Z"}`,
		},
	} {
		if got := string(test.status.JSON()); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// Who watches hears of what a command does before Do returns, of what a rule does by itself, and of nothing else.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, actuator.Config{Name: "led", Rules: actuator.Rules{MaxOn: time.Minute}})
		var mu sync.Mutex
		var seen []string
		a.Watch(func() {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, a.Status().State)
		})
		expect := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(seen, want) {
				t.Errorf("%s: seen %v, want %v", what, seen, want)
			}
		}
		mustDo(t, a, on)
		expect("on", "ON")
		mustDo(t, a, on)
		expect("on again", "ON")
		time.Sleep(2 * time.Minute)
		expect("max_on", "ON", "OFF")
		mustDo(t, a, `"blink"`)
		time.Sleep(10 * time.Second)
		expect("blinking", "ON", "OFF", "ON")
	})
}

// A line that does not go off is told again every second, and the group stays locked until it obeys.
func TestLineThatDoesNotObey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip, lock := gpiotest.New(), new(actuator.Interlock)
		output := func(name, line string) *actuator.Actuator {
			l, err := gpio.OpenOutput(chip, gpio.OutputConfig{Line: line})
			if err != nil {
				t.Fatal(err)
			}
			return start(t, actuator.Config{Name: name, Driver: l, Rules: actuator.Rules{MaxOn: time.Minute, Lock: lock}})
		}
		up, down := output("up", "GPIO17"), output("down", "GPIO18")

		chip.FailOut("GPIO17", 1, errFault)
		if _, err := do(t, up, on); !errors.Is(err, errFault) {
			t.Errorf("got %v", err)
		}
		chip.FailOut("GPIO17", 1, nil)
		time.Sleep(time.Hour)
		if chip.Level("GPIO17") != gpio.Low {
			t.Error("what had failed was done later")
		}

		mustDo(t, up, on)
		chip.Stick("GPIO17")
		if _, err := do(t, up, off); err == nil {
			t.Error("off, although it is stuck")
		}
		if s := up.Status(); s.State != actuator.StateOn {
			t.Errorf("shown as %+v", s)
		}
		if _, err := do(t, down, on); err == nil || err.Error() != "by interlock: up is on" {
			t.Errorf("got %v", err)
		}
		chip.Unstick("GPIO17") // at the level it was last driven to
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if s := up.Status(); s.State != actuator.StateOff {
			t.Errorf("shown as %+v", s)
		}
		mustDo(t, down, on)
	})
}

func TestInterlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lock := new(actuator.Interlock)
		up := start(t, actuator.Config{Name: "up", Rules: actuator.Rules{Lock: lock, MinOn: time.Second}})
		down := start(t, actuator.Config{Name: "down", Rules: actuator.Rules{Lock: lock}})
		refused := func() {
			t.Helper()
			if _, err := do(t, down, `"blink"`); err == nil || err.Error() != "by interlock: up is on" {
				t.Errorf("got %v", err)
			}
		}
		mustDo(t, up, on)
		refused()
		mustDo(t, up, off)
		refused() // min_on still keeps the line on
		time.Sleep(time.Second)
		synctest.Wait()
		mustDo(t, down, `"blink"`)
		time.Sleep(700 * time.Millisecond) // dark, and about to be lit
		if _, err := do(t, up, on); err == nil || err.Error() != "by interlock: down is on" {
			t.Errorf("got %v", err)
		}
	})
}

// Many hands at once: what the race detector has to say, and that in the end the rules hold.
func TestManyHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lock := new(actuator.Interlock)
		var both [2]*actuator.Actuator
		for i, name := range []string{"a", "b"} {
			both[i] = start(t, actuator.Config{Name: name, Rules: actuator.Rules{Lock: lock, MaxOn: 10 * time.Second}, Store: &memory{}, Restore: time.Hour})
			both[i].Watch(func() { both[i].Status() })
		}
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				dice := rand.New(rand.NewPCG(uint64(n), 2))
				for range 200 {
					a := both[dice.IntN(2)]
					_, _ = do(t, a, []string{on, off, toggle, `"blink"`, `"sos"`, `{"state":"ON","flash":1}`}[dice.IntN(6)])
					a.Online(dice.IntN(2) == 0)
					time.Sleep(time.Duration(dice.IntN(300)) * time.Millisecond)
				}
			})
		}
		all.Wait()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		for _, a := range both {
			if s := a.Status(); s.State != actuator.StateOff {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestClosed(t *testing.T) {
	a := start(t, actuator.Config{Name: "led"})
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, a, on); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
	a.Online(false)
	a.Healthy(false)
}

func TestRulesThatCannotBe(t *testing.T) {
	for _, test := range []struct {
		want    string
		rules   actuator.Rules
		initial bool
	}{
		{"negative", actuator.Rules{MaxOn: -1}, false},
		{"max_switches", actuator.Rules{Switches: -1}, false},
		{"max_switches", actuator.Rules{Switches: 10001, Window: 1}, false},
		{"switch_window", actuator.Rules{Switches: 1}, false},
		{"min_on is longer than max_on", actuator.Rules{MinOn: 2, MaxOn: 1}, false},
		{"min_on is longer than hold", actuator.Rules{MinOn: 2, Hold: 1}, false},
		{"max_on cannot be on", actuator.Rules{MaxOn: 1}, true},
		{"hold cannot be on", actuator.Rules{Hold: 1, ExitOn: true}, false},
		{"min_off cannot be on", actuator.Rules{MinOff: 1}, true},
		{"interlock cannot be on", actuator.Rules{Lock: new(actuator.Interlock), ExitOn: true}, false},
		{"max_switches cannot be on", actuator.Rules{Switches: 1, Window: 1}, true},
	} {
		d := &dimmer{}
		if test.initial {
			d.level = 255
		}
		if _, err := actuator.New(actuator.Config{Name: "led", Driver: d, Rules: test.rules}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want something with %q", test.rules, err, test.want)
		}
	}
}

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
