package actuator_test

import (
	"errors"
	"math/rand/v2"
	"os"
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
