package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pinseal/broker"
)

// TestDocumented holds docs/configuration.md to the configuration: a key that is not explained does not exist for a user.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(reflect.TypeFor[config]()) {
		if !strings.Contains(string(page), "`"+key) && !strings.Contains(string(page), "."+key+"`") && !strings.Contains(string(page), "[["+key+"]]") && !strings.Contains(string(page), "["+key+"]") {
			t.Errorf("docs/configuration.md does not explain %q", key)
		}
	}
}

// TestLimits: every limit of the broker has a name in the configuration, and reaches the broker.
func TestLimits(t *testing.T) {
	var written limitsConfig
	distinct := int64(1)
	for _, field := range reflect.ValueOf(&written).Elem().Fields() {
		field.SetInt(distinct)
		distinct++
	}
	given := reflect.ValueOf(written.limits())
	for field, value := range given.Fields() {
		want := reflect.ValueOf(written).FieldByName(field.Name)
		if !want.IsValid() {
			t.Errorf("the limit %s has no name in the configuration", field.Name)
		} else if value.Int() != want.Int() {
			t.Errorf("the limit %s does not reach the broker", field.Name)
		}
	}
}

// TestDocumentedDefaults: what docs/configuration.md calls a limit's default is the broker's.
func TestDocumentedDefaults(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	defaults := reflect.ValueOf(broker.DefaultLimits())
	for field := range reflect.TypeFor[limitsConfig]().Fields() {
		want := fmt.Sprint(defaults.FieldByName(field.Name).Interface())
		if field.Type == reflect.TypeFor[positiveLength]() {
			want = "`\"" + strings.TrimSuffix(want, "0m0s") + "\"`"
		}
		if row := "| `" + field.Tag.Get("toml") + "` | " + want + " |"; !strings.Contains(string(page), row) {
			t.Errorf("docs/configuration.md does not have the row %s", row)
		}
	}
}

func keys(of reflect.Type) []string {
	var found []string
	for field := range of.Fields() {
		found = append(found, field.Tag.Get("toml"))
		inner := field.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			found = append(found, keys(inner)...)
		}
	}
	return found
}

func TestParseConfig(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
	}{
		{"smallest", `node = "a"`, ""},
		{"no node", ``, `1:1: node is missing`},
		{"bad node", `node = "a b"`, `1:8: "a b" is not a name`},
		{"empty node", `node = ""`, `1:8: node is missing`},
		{"number for node", `node = 7`, `1:8: `},
		{"unknown key", "node = \"a\"\ncolour = 1", `2:1: unknown key "colour"`},
		{"unknown table", "node = \"a\"\n[colours]\nred = 1", `2:2: unknown key "colours"`},
		{"unknown key in the second block", "node = \"a\"\n[[acl]]\nidentity = \"x\"\n[[acl]]\nidentity = \"y\"\nread = []", `6:1: unknown key "acl.read"`},
		{"key twice", "node = \"a\"\nnode = \"b\"", `2:1: `},
		{"not TOML", "node", `1:4: `},
		{"trust", "node = \"a\"\n[clock]\ntrust = \"maybe\"", `3:9: "maybe" is none of auto, always, never`},
		{"max_age", "node = \"a\"\n[agent]\nmax_age = \"61s\"", `3:11: agent.max_age: 61s is more than the 1m0s a command may be old`},
		{"max_age negative", "node = \"a\"\n[agent]\nmax_age = \"-1s\"", `3:11: agent.max_age: "-1s" is not a length of time`},
		{"broker", "node = \"a\"\n[agent]\nbroker = \"mqtt://x\"", `3:10: "mqtt://x" is not a broker`},
		{"broker and listener", "node = \"a\"\n[agent]\nbroker = \"mqtts://x\"\n[[listener]]\naddress = \":1\"", `3:10: an agent with a broker elsewhere has no listener`},
		{"broker without certificate", "node = \"a\"\n[agent]\nbroker = \"mqtts://x\"", `3:10: a broker elsewhere needs a client certificate`},
		{"address", "node = \"a\"\n[[listener]]\naddress = \"8883\"", `3:11: "8883" is not an address`},
		{"tls", "node = \"a\"\n[[listener]]\nmin_tls = \"1.1\"", `3:11: listener.min_tls: "1.1" is none of 1.2, 1.3`},
		{"output without name", "node = \"a\"\n[[output]]\nline = \"GPIO1\"", `2:3: an output needs a name`},
		{"output without line", "node = \"a\"\n[[output]]\nname = \"x\"", `2:3: output "x" needs a line`},
		{"outputs of one name", outputs(`name = "x"`, `name = "x"`), `6:8: two outputs are named "x"`},
		{"outputs on one line", outputs("name = \"x\"\nline = \"GPIO9\"", "name = \"y\"\nline = \"GPIO9\""), `7:8: two outputs use the line "GPIO9"`},
		{"outputs on one topic", outputs("name = \"x\"\ntopic = \"t\"", "name = \"y\"\ntopic = \"t\""), `8:9: the topic "t" is used twice`},
		{"the node's own topic", outputs("name = \"x\"\ntopic = \"pinseal/a/x/state\"", `name = "y"`), `4:9: topics under pinseal/ are the node's own`},
		{"topic with a wildcard", outputs("name = \"x\"\ntopic = \"a/+\"", `name = "y"`), `4:9: "a/+" is not a topic`},
		{"input", "node = \"a\"\n[[input]]\nname = \"x\"\nline = \"GPIO1\"\ndebounce = \"0s\"", ""},
		{"input without name", "node = \"a\"\n[[input]]\nline = \"GPIO1\"", `2:3: an input needs a name`},
		{"input without line", "node = \"a\"\n[[input]]\nname = \"x\"", `2:3: input "x" needs a line`},
		{"input on an output's line", outputs(`name = "x"`) + "\n[[input]]\nname = \"y\"\nline = \"GPIO0\"", `7:8: the line "GPIO0" is used twice`},
		{"input without its output", "node = \"a\"\n[[input]]\nname = \"x\"\nline = \"GPIO1\"\noutput = \"y\"\naction = \"on\"", `5:10: no output is named "y"`},
		{"input without action", outputs(`name = "x"`) + "\n[[input]]\nname = \"y\"\nline = \"GPIO1\"\noutput = \"x\"", `8:10: an input that is bound to an output needs both`},
		{"input's action", "node = \"a\"\n[[input]]\naction = \"burn\"", `3:10: "burn" is none of on, off, toggle, follow`},
		{"input's pull", "node = \"a\"\n[[input]]\npull = \"hard\"", `3:8: "hard" is none of none, up, down, float`},
		{"input's report", "node = \"a\"\n[[input]]\nreport = \"often\"", `3:10: "often" is none of change, interval, both, never`},
		{"input's debounce", "node = \"a\"\n[[input]]\ndebounce = \"1m\"", `3:12: input.debounce: "1m" is not a length of time from "0s" to "10s"`},
		{"sensor", "node = \"a\"\n[[batch]]\nname = \"b\"\n[[sensor]]\nname = \"x\"\nkind = \"uptime\"\nbatch = \"b\"", ""},
		{"sensor without name", "node = \"a\"\n[[sensor]]\nkind = \"uptime\"", `2:3: a sensor needs a name`},
		{"sensor without kind", "node = \"a\"\n[[sensor]]\nname = \"x\"", `2:3: sensor "x" needs a kind`},
		{"sensor's kind", "node = \"a\"\n[[sensor]]\nkind = \"nose\"", `3:8: "nose" is none of cpu-temperature, `},
		{"sensor's unit", "node = \"a\"\n[[sensor]]\nunit = \"°C\"", `3:8: "°C" is no unit of SenML`},
		{"sensor's channel", "node = \"a\"\n[[sensor]]\nname = \"x\"\nkind = \"load\"\nchannel = \"1h\"", `4:8: a sensor of kind load has no channel "1h"`},
		{"sensor with a command", "node = \"a\"\n[[sensor]]\nname = \"x\"\nkind = \"load\"\ncommand = [\"w\"]", `4:8: only a sensor of kind exec`},
		{"sensor named as an input", "node = \"a\"\n[[input]]\nname = \"x\"\nline = \"GPIO1\"\n[[sensor]]\nname = \"x\"\nkind = \"load\"", `6:8: two things that report are named "x"`},
		{"input in no batch", "node = \"a\"\n[[input]]\nname = \"x\"\nline = \"GPIO1\"\nbatch = \"b\"", `5:9: no batch is named "b"`},
		{"input that is never reported, in a batch", "node = \"a\"\n[[input]]\nname = \"x\"\nline = \"GPIO1\"\nreport = \"never\"\nbatch = \"b\"\n[[batch]]\nname = \"b\"", `6:9: an input that is never reported is in no batch`},
		{"sensor in no batch", "node = \"a\"\n[[sensor]]\nname = \"x\"\nkind = \"load\"\nbatch = \"b\"", `5:9: no batch is named "b"`},
		{"batch without name", "node = \"a\"\n[[batch]]\ninterval = \"1s\"", `2:3: a batch needs a name`},
		{"max_on and on at the start", outputs("name = \"x\"\nmax_on = \"1m\"\ninitial = \"on\""), `3:8: output "x": an output with max_on cannot be on when the node starts or stops`},
		{"min_on and max_on", outputs("name = \"x\"\nmax_on = \"1m\"\nmin_on = \"2m\""), `3:8: output "x": min_on is longer than max_on`},
		{"a group of one", outputs("name = \"x\"\ninterlock = \"door\"", `name = "y"`), `4:13: no other output is in the group "door"`},
		{"window of nothing", outputs("name = \"x\"\nswitch_window = \"1m\""), `4:17: switch_window goes with max_switches`},
		{"restore and hold", outputs("name = \"x\"\nrestore = \"1m\"\nhold = \"1s\""), `4:11: with hold, or with initial = "on", there is nothing to restore`},
		{"plain_actions of nothing", outputs("name = \"x\"\nplain_actions = [\"on\"]"), `4:1: there is no plain_topic for it`},
		{"pwm", outputs("name = \"x\"\npwm = \"fast\""), `4:7: "fast" is neither "software" nor a channel`},
		{"pwm and line", outputs("name = \"x\"\npwm = \"pwmchip0/1\""), `5:8: output "x" has a PWM channel`},
		{"pwm_frequency of nothing", outputs("name = \"x\"\npwm_frequency = 100"), `4:17: pwm_frequency goes with pwm`},
		{"pwm_frequency", outputs("name = \"x\"\npwm = \"software\"\npwm_frequency = 9"), `5:17: a frequency is from 10 to 20000 Hz`},
		{"permit shorter than min_on", outputs("name = \"x\"\nmin_on = \"1m\"") + "\n[[permit]]\nsigner = \"s\"\noutput = \"x\"\nactions = [\"on\"]\nmax_on = \"30s\"", `10:10: shorter than the output's min_on`},
		{"permit for no output", "node = \"a\"\n[[permit]]\nsigner = \"s\"\noutput = \"x\"", `4:10: no output is named "x"`},
		{"permit without actions", "node = \"a\"\n[[output]]\nname = \"x\"\nline = \"l\"\n[[permit]]\nsigner = \"s\"\noutput = \"x\"", `5:3: a permit without actions`},
		{"action", "node = \"a\"\n[[permit]]\nactions = [\"on\", \"burn\"]", `3:1: "burn" is none of off, on, toggle, pulse, blink, effect, flash, brightness`},
		{"telemetry", "node = \"a\"\n[[telemetry]]\nsigner = \"*\"", `2:3: a telemetry rule needs`},
		{"telemetry elsewhere", "node = \"a\"\n[[telemetry]]\nsigner = \"*\"\ntopic = \"sensors/+\"", `4:9: "sensors/+" is not below telemetry/`},
		{"legacy", "node = \"a\"\n[[legacy]]\nsigner = \"s\"\nhash = \"sha1\"\ntopic = \"t\"", `5:9: no output has the topic "t"`},
		{"hash", "node = \"a\"\n[[legacy]]\nhash = \"md5\"", `3:8: "md5" is none of sha1, sha256`},
		{"filter", "node = \"a\"\n[[acl]]\nidentity = \"*\"\npublish = [\"a\", \"a/#/b\"]", `4:1: "a/#/b" is not a topic filter`},
		{"acl for nobody", "node = \"a\"\n[[acl]]\npublish = []", `2:3: an acl rule needs an identity`},
		{"durability", "node = \"a\"\n[persistence]\ndurability = \"often\"", `3:14: "often" is none of sync, interval, none`},
		{"interval without need", "node = \"a\"\n[persistence]\ninterval = \"5s\"", `3:12: an interval is for durability = "interval"`},
		{"negative limit", "node = \"a\"\n[limits]\nmax_connections = -1", `3:19: `},
		{"negative rate", "node = \"a\"\n[agent]\nrate = -1.0", `3:8: `},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig([]byte(test.text))
			if got := fmt.Sprint(err); test.want == "" && err != nil || !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// outputs is a configuration with two outputs; what a block does not say is filled in.
func outputs(blocks ...string) string {
	text := `node = "a"`
	for i, block := range blocks {
		text += "\n[[output]]\n" + block
		if !strings.Contains(block, "line") {
			text += fmt.Sprintf("\nline = \"GPIO%d\"", i)
		}
	}
	return text
}

// FuzzConfig: whatever is in the file, it is read or refused at a place inside it.
func FuzzConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := parseConfig(text)
		if at, ok := err.(*positionError); ok { //nolint:errorlint // the very type, not a wrapped one
			if lines := strings.Count(string(text), "\n") + 1; at.line < 1 || at.line > lines || at.column < 1 {
				t.Errorf("the place %d:%d is not in a text of %d lines", at.line, at.column, lines)
			}
		}
	})
}

// TestFuzzSeeds: a fuzz target whose seeds are gone tests nothing.
func TestFuzzSeeds(t *testing.T) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzConfig/*")
	if err != nil || len(seeds) < 3 {
		t.Errorf("%d seeds, %v", len(seeds), err)
	}
}

// TestReadme: the Python sender that the README shows is the one that the scripts run.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	sender, err := os.ReadFile("../../docs/examples/send.py")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), string(sender)) {
		t.Error("the README does not show docs/examples/send.py as it is")
	}
	if lines := strings.Count(string(sender), "\n"); lines >= 20 {
		t.Errorf("the sender has %d lines, the README says under 20", lines)
	}
}
