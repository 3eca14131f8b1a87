package actuator_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/agent/actuator"
	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

// act is something that happens at a time, in milliseconds since the start.
type act struct {
	at   int
	what string // JSON of a command; or "offline", "online", "starved", "healthy", "unsigned …", "limited …" (by a permit, to 700 ms)
	want string // detail, or what the refusal says; empty: applied as asked for
}

// waveform does the acts on an output of the fake chip and gives the edges of its line, as milliseconds and level.
func waveform(t *testing.T, rules actuator.Rules, acts []act, until int) string {
	t.Helper()
	var edges []string
	synctest.Test(t, func(t *testing.T) {
		chip := gpiotest.New()
		line, err := gpio.OpenOutput(chip, gpio.OutputConfig{Line: "GPIO17", Exit: rules.ExitOn})
		if err != nil {
			t.Fatal(err)
		}
		a, err := actuator.New(actuator.Config{Name: "led", Driver: line, Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		a.Online(true)
		start := time.Now()
		for _, what := range acts {
			time.Sleep(time.Until(start.Add(time.Duration(what.at) * time.Millisecond)))
			synctest.Wait()
			if got := happen(t, a, what.what); got != what.want {
				t.Errorf("at %d, %s: %q, want %q", what.at, what.what, got, what.want)
			}
		}
		time.Sleep(time.Until(start.Add(time.Duration(until) * time.Millisecond)))
		synctest.Wait()
		level := gpio.Low
		for _, e := range chip.Events("GPIO17") {
			if e.Level != level {
				level = e.Level
				edges = append(edges, fmt.Sprintf("%d:%s", e.At.Sub(start).Milliseconds(), map[gpio.Level]string{gpio.Low: "0", gpio.High: "1"}[level]))
			}
		}
		if err := errors.Join(a.Close(), line.Close()); err != nil {
			t.Error(err)
		}
	})
	return strings.Join(edges, " ")
}

func happen(t *testing.T, a *actuator.Actuator, what string) string {
	t.Helper()
	command, unsigned := strings.CutPrefix(what, "unsigned ")
	command, limited := strings.CutPrefix(command, "limited ")
	switch what {
	case "online", "offline":
		a.Online(what == "online")
		return ""
	case "healthy", "starved":
		a.Healthy(what == "healthy")
		return ""
	}
	c, err := actuator.Parse([]byte(command))
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	c.Signed = !unsigned
	if limited {
		c.MaxOn = 700 * time.Millisecond
	}
	detail, err := a.Do(c)
	if err != nil {
		return err.Error()
	}
	return detail
}

const (
	on     = `"on"`
	off    = `"off"`
	toggle = `"toggle"`
)

// Every action, as an oscilloscope shows it.
func TestWaveforms(t *testing.T) {
	const sos = "0:1 120:0 240:1 360:0 480:1 600:0 960:1 1320:0 1440:1 1800:0 1920:1 2280:0 2640:1 2760:0 2880:1 3000:0 3120:1 3240:0"
	for _, test := range []struct {
		name  string
		acts  []act
		until int
		want  string
	}{
		{"on and off", []act{{0, on, ""}, {100, on, ""}, {250, off, ""}, {300, off, ""}}, 1000, "0:1 250:0"},
		{"toggle", []act{{0, toggle, ""}, {10, toggle, ""}, {20, toggle, ""}}, 1000, "0:1 10:0 20:1"},
		{"pulse", []act{{0, `{"state":"ON","pulse":0.5}`, ""}}, 5000, "0:1 500:0"},
		{"pulse by a word", []act{{0, `"pulse"`, ""}}, 5000, "0:1 1000:0"},
		{"pulse of a day", []act{{0, `{"state":"ON","pulse":86400}`, ""}}, 90_000_000, "0:1 86400000:0"},
		{"pulse again before its end", []act{{0, `{"state":"ON","pulse":0.5}`, ""}, {300, `{"state":"ON","pulse":0.5}`, ""}}, 5000, "0:1 800:0"},
		{"pulse cut short", []act{{0, `{"state":"ON","pulse":0.5}`, ""}, {300, off, ""}}, 5000, "0:1 300:0"},
		{"pulse turned into on", []act{{0, `{"state":"ON","pulse":0.5}`, ""}, {300, on, ""}}, 5000, "0:1"},
		{"pulse toggled", []act{{0, `{"state":"ON","pulse":0.5}`, ""}, {300, toggle, ""}}, 5000, "0:1 300:0"},
		{"blink", []act{{0, `"blink"`, ""}, {1700, off, ""}}, 5000, "0:1 500:0 1000:1 1500:0"},
		{"blink three times", []act{{0, `{"state":"ON","effect":"blink","period":0.4,"count":3}`, ""}}, 5000, "0:1 200:0 400:1 600:0 800:1 1000:0"},
		{"blink toggled while dark", []act{{0, `"blink"`, ""}, {700, toggle, ""}}, 5000, "0:1 500:0"},
		{"blink turned into on", []act{{0, `"blink"`, ""}, {700, `{"state":"ON","effect":"off"}`, ""}}, 5000, "0:1 500:0 700:1"},
		{"heartbeat", []act{{0, `{"state":"ON","effect":"heartbeat","count":2}`, ""}}, 9000, "0:1 70:0 210:1 280:0 980:1 1050:0 1190:1 1260:0"},
		{"sos", []act{{0, `{"state":"ON","effect":"sos","count":1}`, ""}}, 9000, sos},
		{"sos without end", []act{{0, `"sos"`, ""}}, 4199, sos + " 4080:1"},
		{"flash from off", []act{{0, `{"state":"ON","flash":1}`, ""}}, 5000, "0:1 250:0 500:1 750:0"},
		{"flash from on", []act{{0, on, ""}, {100, `{"state":"ON","flash":1}`, ""}}, 5000, "0:1 350:0 600:1 850:0 1100:1"},
		{"flash within a flash", []act{{0, on, ""}, {100, `{"state":"ON","flash":1}`, ""}, {600, `{"state":"ON","flash":0.5}`, ""}}, 5000, "0:1 350:0 600:1 850:0 1100:1"},
		{"flash over the end of a pulse", []act{{0, `{"state":"ON","pulse":0.5}`, ""}, {300, `{"state":"ON","flash":1}`, ""}}, 5000, "0:1 550:0 800:1 1050:0"},
		{"flash within a pulse", []act{{0, `{"state":"ON","pulse":2}`, ""}, {300, `{"state":"ON","flash":0.5}`, ""}}, 5000, "0:1 550:0 800:1 2000:0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := waveform(t, actuator.Rules{}, test.acts, test.until); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Every rule wins over commands, and says so.
func TestRules(t *testing.T) {
	const blinking = `{"state":"ON","effect":"blink","period":0.4}`
	limited := "limited to 1 s by max_on"
	for _, test := range []struct {
		name  string
		rules actuator.Rules
		acts  []act
		until int
		want  string
	}{
		{"max_on", actuator.Rules{MaxOn: time.Second}, []act{{0, on, limited}}, 5000, "0:1 1000:0"},
		{
			"max_on is not renewed",
			actuator.Rules{MaxOn: time.Second},
			[]act{{0, on, limited}, {400, on, "limited to 0.6 s by max_on"}, {900, `{"state":"ON","pulse":60}`, "limited to 0.1 s by max_on"}},
			5000, "0:1 1000:0",
		},
		{"max_on of a blinking", actuator.Rules{MaxOn: time.Second}, []act{{0, blinking, limited}, {500, blinking, "limited to 0.5 s by max_on"}}, 5000, "0:1 200:0 400:1 700:0 900:1 1000:0"},
		{"a pulse within max_on", actuator.Rules{MaxOn: time.Second}, []act{{0, `{"state":"ON","pulse":0.5}`, ""}}, 5000, "0:1 500:0"},
		{"off in between begins anew", actuator.Rules{MaxOn: time.Second}, []act{{0, on, limited}, {900, off, ""}, {901, on, limited}}, 5000, "0:1 900:0 901:1 1901:0"},
		{"a permit's max_on", actuator.Rules{}, []act{{0, "limited " + on, "limited to 0.7 s by the permit's max_on"}, {600, "limited " + on, "limited to 0.1 s by the permit's max_on"}}, 5000, "0:1 700:0"},
		{"a permit does not shorten another's", actuator.Rules{}, []act{{0, on, ""}, {600, "limited " + on, ""}}, 5000, "0:1"},
		{"another may go on", actuator.Rules{}, []act{{0, "limited " + on, "limited to 0.7 s by the permit's max_on"}, {600, on, ""}}, 5000, "0:1"},
		{
			"a permit does not live on another's pulse",
			actuator.Rules{},
			[]act{{0, `{"state":"ON","pulse":0.5}`, ""}, {300, "limited " + on, "limited to 0.4 s by the permit's max_on"}},
			5000, "0:1 700:0",
		},
		{
			"a permit does not live on another's flash",
			actuator.Rules{},
			[]act{{0, "limited " + on, "limited to 0.7 s by the permit's max_on"}, {100, `{"state":"ON","flash":1}`, ""}},
			5000, "0:1 350:0 600:1 850:0",
		},
		{
			"a permit's flash leaves on what another has on",
			actuator.Rules{},
			[]act{{0, on, ""}, {100, `limited {"state":"ON","flash":1}`, ""}},
			5000, "0:1 350:0 600:1 850:0 1100:1",
		},
		{"min_on", actuator.Rules{MinOn: time.Second}, []act{{0, on, ""}, {300, off, "delayed by 0.7 s by min_on"}}, 5000, "0:1 1000:0"},
		{"min_on, thought over", actuator.Rules{MinOn: time.Second}, []act{{0, on, ""}, {300, off, "delayed by 0.7 s by min_on"}, {500, on, ""}}, 5000, "0:1"},
		{"min_on of a pulse", actuator.Rules{MinOn: time.Second}, []act{{0, `{"state":"ON","pulse":0.5}`, "lengthened to 1 s by min_on"}}, 5000, "0:1 1000:0"},
		{"min_on of a blinking", actuator.Rules{MinOn: time.Second}, []act{{0, blinking, "by min_on: this is on for only 0.2 s at a time"}}, 5000, ""},
		{"the rest in thousandths", actuator.Rules{MinOff: 2 * time.Second}, []act{{332, on, "by min_off: it may be switched on in 1.668 s"}}, 5000, ""},
		{"min_off from the start", actuator.Rules{MinOff: time.Second}, []act{{300, on, "by min_off: it may be switched on in 0.7 s"}, {1000, on, ""}}, 5000, "1000:1"},
		{
			"min_off",
			actuator.Rules{MinOff: time.Second},
			[]act{{2000, on, ""}, {3000, off, ""}, {3999, on, "by min_off: it may be switched on in 0.001 s"}, {4000, on, ""}},
			5000, "2000:1 3000:0 4000:1",
		},
		{"min_off of a blinking", actuator.Rules{MinOff: time.Second}, []act{{2000, blinking, "by min_off: this is off for only 0.2 s at a time"}}, 5000, ""},
		{
			"max_switches",
			actuator.Rules{Switches: 2, Window: time.Second},
			[]act{{0, on, ""}, {100, off, ""}, {200, on, ""}, {300, off, ""}, {400, on, "by max_switches: it may be switched on in 0.6 s"}, {1000, on, ""}},
			5000, "0:1 100:0 200:1 300:0 1000:1",
		},
		{
			"max_switches of a blinking",
			actuator.Rules{Switches: 2, Window: time.Second},
			[]act{{0, blinking, "by max_switches: this switches more than 2 times in 1 s"}, {0, `{"state":"ON","effect":"blink","count":2}`, ""}},
			5000, "0:1 500:0 1000:1 1500:0",
		},
		{"hold", actuator.Rules{Hold: time.Second}, []act{{0, on, "off after 1 s without another command, by hold"}}, 5000, "0:1 1000:0"},
		{
			"hold, held",
			actuator.Rules{Hold: time.Second},
			[]act{
				{0, on, "off after 1 s without another command, by hold"},
				{900, on, "off after 1 s without another command, by hold"},
				{1500, "unsigned " + on, "by hold: only a signed command whose age is known may switch it on"},
				{1600, `{"state":"ON","pulse":0.3}`, ""},
			},
			5000, "0:1 1900:0",
		},
		{"hold, let go by anybody", actuator.Rules{Hold: time.Second}, []act{{0, on, "off after 1 s without another command, by hold"}, {500, "unsigned " + off, ""}}, 5000, "0:1 500:0"},
		{
			"broker_lost",
			actuator.Rules{Lost: time.Second},
			[]act{
				{0, on, ""},
				{100, "offline", ""},
				{1050, "online", ""}, // in time
				{2000, "offline", ""},
				{3500, on, "by broker_lost: the output stays at its exit level"},
				{3500, off, ""},
				{4000, "online", ""},
				{4100, on, ""},
			},
			5000, "0:1 3000:0 4100:1",
		},
		{
			"broker_lost, on is safe",
			actuator.Rules{Lost: time.Second, ExitOn: true},
			[]act{{0, "offline", ""}, {1500, off, "by broker_lost: the output stays at its exit level"}, {1600, "online", ""}, {1700, off, ""}},
			5000, "1000:1 1700:0",
		},
		{
			"watchdog",
			actuator.Rules{MinOn: time.Minute},
			[]act{{0, on, ""}, {100, "starved", ""}, {200, on, "by watchdog: the output stays at its exit level"}, {300, "healthy", ""}, {400, on, ""}},
			500, "0:1 100:0 400:1",
		},
		{"broker_lost ends a blinking", actuator.Rules{Lost: time.Second}, []act{{0, `"blink"`, ""}, {100, "offline", ""}, {3000, "online", ""}}, 5000, "0:1 500:0 1000:1 1100:0"},
		{"broker_lost ends a blinking in the dark", actuator.Rules{Lost: time.Second}, []act{{0, `"blink"`, ""}, {700, "offline", ""}, {3000, "online", ""}}, 5000, "0:1 500:0 1000:1 1500:0"},
		{"broker_lost ends a flash and what is beneath", actuator.Rules{Lost: time.Second}, []act{{0, on, ""}, {100, `{"state":"ON","flash":60}`, ""}, {200, "offline", ""}}, 5000, "0:1 350:0 600:1 850:0 1100:1 1200:0"},
		{"the watchdog ends a pattern", actuator.Rules{}, []act{{0, `"sos"`, ""}, {300, "starved", ""}, {1000, "healthy", ""}}, 5000, "0:1 120:0 240:1 300:0"},
		{"two rules: the sooner", actuator.Rules{MaxOn: 2 * time.Second, Hold: time.Second}, []act{{0, on, "limited to 2 s by max_on; off after 1 s without another command, by hold"}}, 5000, "0:1 1000:0"},
		{"two rules at the same time", actuator.Rules{MaxOn: time.Second, Hold: time.Second, Lost: time.Second}, []act{{0, "offline", ""}, {0, on, limited + "; off after 1 s without another command, by hold"}}, 5000, "0:1 1000:0"},
		{"min_on gives way to broker_lost", actuator.Rules{MinOn: time.Minute, Lost: time.Second}, []act{{0, on, ""}, {100, "offline", ""}}, 5000, "0:1 1100:0"},
		{
			"min_off after max_on",
			actuator.Rules{MinOff: time.Second, MaxOn: time.Second},
			[]act{{1000, on, limited}, {2500, on, "by min_off: it may be switched on in 0.5 s"}, {3000, on, limited}},
			5000, "1000:1 2000:0 3000:1 4000:0",
		},
		{"min_on gives way to max_on", actuator.Rules{MinOn: time.Second, MaxOn: time.Second}, []act{{0, on, limited}, {999, off, "delayed by 0.001 s by min_on"}}, 5000, "0:1 1000:0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := waveform(t, test.rules, test.acts, test.until); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// dimmer is a driver that records its levels.
type dimmer struct {
	start time.Time
	level uint8
	wave  []string
}

func (d *dimmer) Drive(level uint8) error {
	if level != d.level {
		d.wave = append(d.wave, fmt.Sprintf("%d:%d", time.Since(d.start).Milliseconds(), level))
	}
	d.level = level
	return nil
}

func (d *dimmer) Level() uint8 { return d.level }

func TestDimming(t *testing.T) {
	var free actuator.Rules
	fadeIn := act{0, `{"state":"ON","brightness":5,"transition":1}`, ""}
	for _, test := range []struct {
		name  string
		rules actuator.Rules
		acts  []act
		want  string
	}{
		{"brightness, and again", free, []act{{0, `{"state":"ON","brightness":80}`, ""}, {100, off, ""}, {200, on, ""}, {300, `{"state":"ON","brightness":0}`, ""}}, "0:80 100:0 200:80 300:0"},
		{"up", free, []act{{0, `{"state":"ON","brightness":5,"transition":1}`, ""}}, "200:1 400:2 600:3 800:4 1000:5"},
		{"down", free, []act{{0, `{"state":"ON","brightness":4}`, ""}, {1000, `{"state":"OFF","transition":0.4}`, ""}}, "0:4 1100:3 1200:2 1300:1 1400:0"},
		{"at most 50 steps a second", free, []act{{0, `{"state":"ON","brightness":250,"transition":0.1}`, ""}}, "20:50 40:100 60:150 80:200 100:250"},
		{"turned round", free, []act{{0, `{"state":"ON","brightness":5,"transition":1}`, ""}, {600, `{"state":"OFF","transition":0.3}`, ""}}, "200:1 400:2 600:3 700:2 800:1 900:0"},
		{"pulse at a brightness", free, []act{{0, `{"state":"ON","brightness":9,"pulse":0.5}`, ""}, {1000, on, ""}}, "0:9 500:0 1000:9"},
		{"blink at a brightness", free, []act{{0, `{"state":"ON","brightness":9,"effect":"blink","count":1}`, ""}}, "0:9 500:0"},
		{"cut short", free, []act{fadeIn, {500, off, ""}}, "200:1 400:2 500:0"},
		{"cut short by a pulse", free, []act{fadeIn, {500, `{"state":"ON","pulse":1}`, ""}}, "200:1 400:2 500:5 1500:0"},
		{"toggled while fading out", free, []act{{0, `{"state":"ON","brightness":4}`, ""}, {1000, `{"state":"OFF","transition":0.4}`, ""}, {1250, toggle, ""}}, "0:4 1100:3 1200:2 1250:0"},
		{"cut short by max_on", actuator.Rules{MaxOn: 500 * time.Millisecond}, []act{{0, fadeIn.what, "limited to 0.5 s by max_on"}}, "200:1 400:2 500:0"},
		{"fading out is cut short by max_on", actuator.Rules{MaxOn: 500 * time.Millisecond}, []act{{0, fadeIn.what, "limited to 0.5 s by max_on"}, {300, `{"state":"OFF","transition":60}`, "limited to 0.2 s by max_on"}}, "200:1 500:0"},
		{"fading out is cut short by the permit", free, []act{{0, "limited " + fadeIn.what, "limited to 0.7 s by the permit's max_on"}, {500, `limited {"state":"OFF","transition":60}`, "limited to 0.2 s by the permit's max_on"}}, "200:1 400:2 700:0"},
		{"cut short by broker_lost", actuator.Rules{Lost: 400 * time.Millisecond}, []act{fadeIn, {100, "offline", ""}}, "200:1 400:2 500:0"},
		{"cut short by the watchdog, on is safe", actuator.Rules{ExitOn: true}, []act{fadeIn, {500, "starved", ""}}, "200:1 400:2 500:255"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dimmer{start: time.Now()}
				a, err := actuator.New(actuator.Config{Name: "lamp", Driver: d, Dims: true, Rules: test.rules})
				if err != nil {
					t.Fatal(err)
				}
				a.Online(true)
				for _, what := range test.acts {
					time.Sleep(time.Until(d.start.Add(time.Duration(what.at) * time.Millisecond)))
					synctest.Wait()
					if got := happen(t, a, what.what); got != what.want {
						t.Errorf("%s: %q", what.what, got)
					}
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if got := strings.Join(d.wave, " "); got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
