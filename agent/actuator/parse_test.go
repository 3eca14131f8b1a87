package actuator_test

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pinseal/agent/actuator"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		text string
		want actuator.Command
	}{
		{`"on"`, actuator.Command{Action: actuator.On}},
		{`"OFF"`, actuator.Command{Action: actuator.Off}},
		{`"\u006fn"`, actuator.Command{Action: actuator.On}},
		{`1`, actuator.Command{Action: actuator.On}},
		{`false`, actuator.Command{Action: actuator.Off}},
		{`"Toggle"`, actuator.Command{Action: actuator.Toggle}},
		{`"pulse"`, actuator.Command{Action: actuator.Pulse}},
		{`"blink"`, actuator.Command{Action: actuator.Blink}},
		{`"SOS"`, actuator.Command{Action: actuator.Effect, Pattern: "sos"}},
		{`{"state":"ON"}`, actuator.Command{Action: actuator.On}},
		{` {"state":"0"}`[1:], actuator.Command{Action: actuator.Off}},
		{`{"state":"ON","pulse":0.5}`, actuator.Command{Action: actuator.Pulse, Length: 500 * time.Millisecond}},
		{`{"state":"on","pulse":86400}`, actuator.Command{Action: actuator.Pulse, Length: 24 * time.Hour}},
		{`{"effect":"blink","state":"ON"}`, actuator.Command{Action: actuator.Blink}},
		{`{"state":"ON","effect":"blink","period":0.4,"count":3}`, actuator.Command{Action: actuator.Blink, Period: 400 * time.Millisecond, Count: 3}},
		{`{"state":"ON","effect":"heartbeat","count":10000}`, actuator.Command{Action: actuator.Effect, Pattern: "heartbeat", Count: 10000}},
		{`{"state":"ON","effect":"off"}`, actuator.Command{Action: actuator.On}},
		{`{"state":"ON","flash":2}`, actuator.Command{Action: actuator.Flash, Length: 2 * time.Second}},
		{`{"state":"ON","brightness":255}`, actuator.Command{Action: actuator.On, Dims: true, Level: 255}},
		{`{"state":"ON","brightness":0}`, actuator.Command{Action: actuator.Off, Dims: true}},
		{`{"state":"ON","brightness":7,"pulse":1}`, actuator.Command{Action: actuator.Pulse, Length: time.Second, Dims: true, Level: 7}},
		{`{"state":"ON","brightness":7,"transition":1e1}`, actuator.Command{Action: actuator.On, Dims: true, Level: 7, Transition: 10 * time.Second}},
		{`{"state":"OFF","transition":0.25}`, actuator.Command{Action: actuator.Off, Dims: true, Transition: 250 * time.Millisecond}},
	} {
		got, err := actuator.Parse([]byte(test.text))
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v; want %+v", test.text, got, err, test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		``, `2`, `-0`, `1.0`, `1e0`, `null`, `[]`, `["on"]`, `""`, `"on "`, `"bright"`, `"flash"`, `"brightness"`, `"effect"`, `"01"`,
		`{}`, `{"State":"ON"}`, `{"state":"ON","colour":1}`, `{"state":1}`, `{"state":true}`, `{"state":null}`, `{"state":"blink"}`, `{"state":"sos"}`,
		`{"state":{"state":"ON"}}`, `{"brightness":3}`, `{"pulse":3}`,
		`{"state":"ON","pulse":0}`, `{"state":"ON","pulse":0.009}`, `{"state":"ON","pulse":86400.1}`, `{"state":"ON","pulse":-1}`,
		`{"state":"ON","pulse":1e999}`, `{"state":"ON","pulse":"1"}`, `{"state":"ON","pulse":null}`, `{"state":"ON","pulse":true}`,
		`{"state":"OFF","pulse":1}`, `{"state":"TOGGLE","pulse":1}`,
		`{"state":"ON","pulse":1,"effect":"blink"}`, `{"state":"ON","pulse":1,"flash":1}`, `{"state":"ON","effect":"blink","flash":1}`,
		`{"state":"ON","effect":"Blink"}`, `{"state":"ON","effect":"disco"}`, `{"state":"ON","effect":null}`, `{"state":"ON","effect":1}`, `{"state":"OFF","effect":"blink"}`,
		`{"state":"ON","period":1}`, `{"state":"ON","effect":"sos","period":1}`, `{"state":"ON","effect":"blink","period":0.09}`, `{"state":"ON","effect":"blink","period":3601}`,
		`{"state":"ON","count":1}`, `{"state":"ON","effect":"off","count":1}`, `{"state":"ON","effect":"blink","count":0}`,
		`{"state":"ON","effect":"blink","count":10001}`, `{"state":"ON","effect":"blink","count":1.5}`, `{"state":"ON","effect":"blink","count":-1}`, `{"state":"ON","effect":"blink","count":65536}`,
		`{"state":"ON","flash":0}`, `{"state":"ON","flash":61}`, `{"state":"OFF","flash":1}`, `{"state":"ON","flash":"short"}`,
		`{"state":"ON","brightness":256}`, `{"state":"ON","brightness":-1}`, `{"state":"ON","brightness":1.5}`, `{"state":"ON","brightness":"9"}`,
		`{"state":"OFF","brightness":1}`, `{"state":"TOGGLE","brightness":1}`, `{"state":"ON","brightness":0,"pulse":1}`, `{"state":"ON","brightness":0,"effect":"blink"}`,
		`{"state":"ON","transition":3601}`, `{"state":"ON","transition":-1}`, `{"state":"TOGGLE","transition":1}`, `{"state":"ON","pulse":1,"transition":1}`,
	} {
		if got, err := actuator.Parse([]byte(text)); !errors.Is(err, actuator.ErrCommand) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}

// What is refused is logged, and what somebody sent must not be.
func TestParseErrorsRepeatNothing(t *testing.T) {
	for _, text := range []string{`"secret"`, `{"state":"secret"}`, `{"state":"ON","secret":1}`, `{"state":"ON","effect":"secret"}`} {
		if _, err := actuator.Parse([]byte(text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNeeds(t *testing.T) {
	for text, want := range map[string][]actuator.Action{
		`"on"`:                                    {actuator.On},
		`"pulse"`:                                 {actuator.Pulse},
		`"sos"`:                                   {actuator.Effect},
		`{"state":"ON","effect":"blink"}`:         {actuator.Blink},
		`{"state":"ON","flash":1}`:                {actuator.Flash},
		`{"state":"ON","brightness":3}`:           {actuator.On, actuator.Brightness},
		`{"state":"ON","brightness":0}`:           {actuator.Off, actuator.Brightness},
		`{"state":"OFF","transition":1}`:          {actuator.Off, actuator.Brightness},
		`{"state":"ON","pulse":1,"brightness":9}`: {actuator.Pulse, actuator.Brightness},
	} {
		c, err := actuator.Parse([]byte(text))
		if err != nil || !reflect.DeepEqual(c.Needs(), want) {
			t.Errorf("%s needs %v, %v; want %v", text, c.Needs(), err, want)
		}
	}
}

// FuzzParse: whatever valid JSON arrives, it is refused or a command within the documented bounds.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			return
		}
		c, err := actuator.Parse(text)
		if err != nil {
			if !errors.Is(err, actuator.ErrCommand) || c != (actuator.Command{}) {
				t.Errorf("refused with %v and %+v", err, c)
			}
			return
		}
		if c.Length != 0 && (c.Length < actuator.MinPulse || c.Length > actuator.MaxPulse) || c.Transition < 0 || c.Transition > actuator.MaxTransition ||
			c.Period != 0 && (c.Period < actuator.MinPeriod || c.Period > actuator.MaxPeriod) || c.Count < 0 || c.Count > actuator.MaxCount || c.Signed || c.MaxOn != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// TestFuzzSeeds: a fuzz target whose seeds are gone tests nothing.
func TestFuzzSeeds(t *testing.T) {
	seeds, err := os.ReadDir("testdata/fuzz/FuzzParse")
	if err != nil || len(seeds) < 5 {
		t.Errorf("%d seeds, %v", len(seeds), err)
	}
}
