package homeassistant_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pinseal/agent/homeassistant"
)

// node has one of everything.
func node() homeassistant.Config {
	return homeassistant.Config{
		Prefix: "homeassistant", Node: "raspiflow", Title: "Garden", Area: "Outside", Version: "1.2.3",
		Availability: "pinseal/raspiflow/availability",
		Outputs: []homeassistant.Output{
			output("led", homeassistant.Output{Command: "plain/led"}),
			output("pump", homeassistant.Output{Command: "plain/pump", Entity: homeassistant.Entity{Title: "Pump", Class: "outlet"}}),
			output("lamp", homeassistant.Output{Command: "plain/lamp", Light: true, Effects: []string{"off", "blink", "sos"}, Flashes: true}),
			output("strip", homeassistant.Output{Command: "plain/strip", Light: true, Dims: true}),
			output("gate", homeassistant.Output{Entity: homeassistant.Entity{Class: "garage_door"}}),
		},
		Inputs: []homeassistant.Input{
			{Entity: homeassistant.Entity{Name: "door", Class: "door"}, Topic: "verified/raspiflow/door"},
			{Entity: homeassistant.Entity{Name: "led"}, Topic: "verified/raspiflow/led"}, // as an output is named
		},
		Sensors: []homeassistant.Sensor{
			sensor("cpu", homeassistant.Sensor{Unit: "Cel", Diagnostic: true}),
			sensor("undervoltage", homeassistant.Sensor{Flag: true, Diagnostic: true, Entity: homeassistant.Entity{Class: "problem"}}),
			sensor("load", homeassistant.Sensor{Unit: "count"}),
			sensor("air", homeassistant.Sensor{Unit: "Pa", Entity: homeassistant.Entity{Class: "atmospheric_pressure"}}),
			sensor("text", homeassistant.Sensor{Text: true}),
			sensor("odd", homeassistant.Sensor{Unit: "rad"}),
		},
	}
}

func output(name string, o homeassistant.Output) homeassistant.Output {
	o.Name, o.State, o.Status = name, "pinseal/raspiflow/"+name+"/state", "pinseal/raspiflow/"+name+"/status"
	return o
}

func sensor(name string, s homeassistant.Sensor) homeassistant.Sensor {
	s.Name, s.Topic = name, "verified/raspiflow/"+name
	return s
}

func announce(t *testing.T, now *homeassistant.Config, before homeassistant.Announced) ([]homeassistant.Message, homeassistant.Announced) {
	t.Helper()
	messages, after, err := homeassistant.Announce(now, before)
	if err != nil {
		t.Fatal(err)
	}
	return messages, after
}

func parse(t *testing.T, payload []byte) map[string]any {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal(payload, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func object(t *testing.T, of map[string]any, member string) map[string]any {
	t.Helper()
	o, ok := of[member].(map[string]any)
	if !ok {
		t.Fatalf("%s is %v", member, of[member])
	}
	return o
}

func TestDocument(t *testing.T) {
	now := node()
	if err := now.Check(); err != nil {
		t.Fatal(err)
	}
	messages, after := announce(t, &now, homeassistant.Announced{})
	if len(messages) != 1 || messages[0].Topic != "homeassistant/device/raspiflow/config" {
		t.Fatalf("announced %v", messages)
	}
	d := parse(t, messages[0].Payload)
	checkSchema(t, d)
	components := object(t, d, "components")
	for id, want := range map[string]string{
		"output_led_switch":                 `{"platform":"switch","unique_id":"pinseal_raspiflow_output_led_switch","name":"led","state_topic":"pinseal/raspiflow/led/state","command_topic":"plain/led","json_attributes_topic":"pinseal/raspiflow/led/status"}`,
		"output_pump_switch":                `{"platform":"switch","unique_id":"pinseal_raspiflow_output_pump_switch","name":"Pump","device_class":"outlet","state_topic":"pinseal/raspiflow/pump/state","command_topic":"plain/pump","json_attributes_topic":"pinseal/raspiflow/pump/status"}`,
		"output_lamp_light":                 `{"platform":"light","unique_id":"pinseal_raspiflow_output_lamp_light","name":"lamp","schema":"json","state_topic":"pinseal/raspiflow/lamp/status","command_topic":"plain/lamp","json_attributes_topic":"pinseal/raspiflow/lamp/status","supported_color_modes":["onoff"],"effect":true,"effect_list":["off","blink","sos"],"transition":false,"flash":true}`,
		"output_strip_light":                `{"platform":"light","unique_id":"pinseal_raspiflow_output_strip_light","name":"strip","schema":"json","state_topic":"pinseal/raspiflow/strip/status","command_topic":"plain/strip","json_attributes_topic":"pinseal/raspiflow/strip/status","supported_color_modes":["brightness"],"brightness":true,"transition":true,"flash":false}`,
		"output_gate_binary_sensor":         `{"platform":"binary_sensor","unique_id":"pinseal_raspiflow_output_gate_binary_sensor","name":"gate","device_class":"garage_door","state_topic":"pinseal/raspiflow/gate/state","json_attributes_topic":"pinseal/raspiflow/gate/status"}`,
		"input_door_binary_sensor":          `{"platform":"binary_sensor","unique_id":"pinseal_raspiflow_input_door_binary_sensor","name":"door","device_class":"door","state_topic":"verified/raspiflow/door","json_attributes_topic":"verified/raspiflow/door","value_template":"{{ value_json.state }}"}`,
		"sensor_cpu_sensor":                 `{"platform":"sensor","unique_id":"pinseal_raspiflow_sensor_cpu_sensor","name":"cpu","device_class":"temperature","entity_category":"diagnostic","state_topic":"verified/raspiflow/cpu","value_template":"{{ value_json.value if value_json is mapping else value }}","unit_of_measurement":"°C","state_class":"measurement"}`,
		"sensor_text_sensor":                `{"platform":"sensor","unique_id":"pinseal_raspiflow_sensor_text_sensor","name":"text","state_topic":"verified/raspiflow/text","value_template":"{{ value_json.value if value_json is mapping else value }}"}`,
		"sensor_odd_sensor":                 `{"platform":"sensor","unique_id":"pinseal_raspiflow_sensor_odd_sensor","name":"odd","state_topic":"verified/raspiflow/odd","value_template":"{{ value_json.value if value_json is mapping else value }}","unit_of_measurement":"rad","state_class":"measurement"}`,
		"input_led_binary_sensor":           "",
		"sensor_load_sensor":                "",
		"sensor_air_sensor":                 "",
		"sensor_undervoltage_binary_sensor": "",
	} {
		if got := object(t, components, id); want != "" && !reflect.DeepEqual(got, parse(t, []byte(want))) {
			t.Errorf("%s is %v, want %s", id, got, want)
		}
	}
	if len(components) != 13 || len(after.Components) != 13 || after.Components["output_led_switch"] != "switch" {
		t.Errorf("%d components, remembers %v", len(components), after)
	}
}

// TestStatesOfOutputsThatAreGone: what they had shown is retained, and deleted once; also where the device moves.
func TestStatesOfOutputsThatAreGone(t *testing.T) {
	now := node()
	now.States = []string{"pinseal/raspiflow/led/state", "pinseal/raspiflow/gate/state", "pinseal/raspiflow/hidden/state"}
	messages, before := announce(t, &now, homeassistant.Announced{})
	if len(messages) != 1 {
		t.Errorf("at first there are %d messages", len(messages))
	}
	now.States = now.States[:1]
	now.Prefix = "ha"
	messages, after := announce(t, &now, before)
	var deleted []string
	for _, m := range messages {
		if len(m.Payload) == 0 {
			deleted = append(deleted, m.Topic)
		}
	}
	want := []string{"homeassistant/device/raspiflow/config", "pinseal/raspiflow/gate/state", "pinseal/raspiflow/hidden/state"}
	if !slices.Equal(deleted, want) {
		t.Errorf("deleted: %q, not %q", deleted, want)
	}
	if again, _ := announce(t, &now, after); len(again) != 1 {
		t.Errorf("the next time there are %d messages", len(again))
	}
}

// TestRemoval: what is gone is said to be gone, and then left out; a device that is gone is deleted.
func TestRemoval(t *testing.T) {
	all := node()
	_, before := announce(t, &all, homeassistant.Announced{})
	now := node()
	now.Outputs[0].Light = true // another platform: another entity
	now.Inputs = nil
	messages, after := announce(t, &now, before)
	if len(messages) != 2 {
		t.Fatalf("%d messages", len(messages))
	}
	first, second := parse(t, messages[0].Payload), parse(t, messages[1].Payload)
	checkSchema(t, second)
	gone := map[string]any{
		"output_led_switch": "switch", "input_door_binary_sensor": "binary_sensor", "input_led_binary_sensor": "binary_sensor",
	}
	components := object(t, first, "components")
	for id, platform := range gone {
		if got := object(t, components, id); len(got) != 1 || got["platform"] != platform {
			t.Errorf("%s is %v", id, got)
		}
		delete(components, id)
	}
	if !reflect.DeepEqual(first, second) {
		t.Errorf("beside what is gone, the messages differ:\n%s\n%s", messages[0].Payload, messages[1].Payload)
	}
	if again, _ := announce(t, &now, after); len(again) != 1 {
		t.Errorf("the next time there are %d messages", len(again))
	}

	now.Prefix = "ha"
	messages, moved := announce(t, &now, after)
	if len(messages) != 2 || messages[0].Topic != "homeassistant/device/raspiflow/config" || len(messages[0].Payload) > 0 || messages[1].Topic != "ha/device/raspiflow/config" {
		t.Errorf("after a move: %v", messages)
	}
	messages, left := announce(t, nil, moved)
	if len(messages) != 1 || messages[0].Topic != "ha/device/raspiflow/config" || len(messages[0].Payload) > 0 || left.Topic != "" {
		t.Errorf("after the end: %v, %v", messages, left)
	}
	if messages, _ := announce(t, nil, left); len(messages) != 0 {
		t.Errorf("out of nothing: %v", messages)
	}
}

func TestCheck(t *testing.T) {
	for name, change := range map[string]func(*homeassistant.Config){
		"class of a switch": func(c *homeassistant.Config) { c.Outputs[0].Class = "door" },
		"class of a light":  func(c *homeassistant.Config) { c.Outputs[2].Class = "outlet" },
		"class of an input": func(c *homeassistant.Config) { c.Inputs[0].Class = "temperature" },
		"unknown class":     func(c *homeassistant.Config) { c.Sensors[0].Class = "coolness" },
		"class and unit":    func(c *homeassistant.Config) { c.Sensors[0].Class = "humidity" },
		"class and no unit": func(c *homeassistant.Config) { c.Sensors[2].Class = "power" },
		"one name twice":    func(c *homeassistant.Config) { c.Sensors[1].Name, c.Sensors[1].Flag = "cpu", false },
	} {
		c := node()
		change(&c)
		if err := c.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The rules of discovery as Home Assistant documents them, for the keys that we use.
type rule struct{ required, optional []string }

func rules() map[string]rule {
	common := []string{"platform", "unique_id", "name"}
	more := []string{"device_class", "entity_category", "json_attributes_topic"}
	return map[string]rule{
		"device":        {[]string{"identifiers", "name"}, []string{"manufacturer", "model", "sw_version", "suggested_area"}},
		"origin":        {[]string{"name"}, []string{"sw_version"}},
		"switch":        {append(common, "command_topic"), append(more, "state_topic")},
		"light":         {append(common, "command_topic", "schema"), append(more, "state_topic", "supported_color_modes", "brightness", "effect", "effect_list", "transition", "flash")},
		"binary_sensor": {append(common, "state_topic"), append(more, "value_template")},
		"sensor":        {append(common, "state_topic"), append(more, "value_template", "unit_of_measurement", "state_class")},
		"discovery":     {[]string{"device", "origin", "components"}, []string{"availability_topic", "qos"}},
	}
}

func (r rule) check(t *testing.T, what string, o map[string]any) {
	t.Helper()
	for _, key := range r.required {
		if o[key] == nil || o[key] == "" {
			t.Errorf("%s lacks %s", what, key)
		}
	}
	for key := range o {
		if !slices.Contains(r.required, key) && !slices.Contains(r.optional, key) {
			t.Errorf("%s has %s, which Home Assistant does not document", what, key)
		}
	}
}

func checkSchema(t *testing.T, d map[string]any) {
	t.Helper()
	all := rules()
	all["discovery"].check(t, "the document", d)
	all["device"].check(t, "device", object(t, d, "device"))
	all["origin"].check(t, "origin", object(t, d, "origin"))
	ids := map[any]bool{}
	for name, value := range object(t, d, "components") {
		o, ok := value.(map[string]any)
		if !ok {
			t.Fatalf("%s is no object", name)
		}
		platform, _ := o["platform"].(string)
		r, ok := all[platform]
		if !ok {
			t.Errorf("%s has the platform %q", name, platform)
		}
		r.check(t, name, o)
		if ids[o["unique_id"]] {
			t.Errorf("the unique_id of %s is not", name)
		}
		ids[o["unique_id"]] = true
		checkEntity(t, name, platform, o)
	}
	for key, value := range topics(d) {
		if text, ok := value.(string); !ok || text == "" || strings.ContainsAny(text, "+#") {
			t.Errorf("%s is %v", key, value)
		}
	}
}

func checkEntity(t *testing.T, name, platform string, o map[string]any) {
	t.Helper()
	class, _ := o["device_class"].(string)
	if !homeassistant.ValidClass(platform, class) {
		t.Errorf("%s has the class %q", name, class)
	}
	if category := o["entity_category"]; category != nil && category != "diagnostic" && category != "config" {
		t.Errorf("%s has the category %v", name, category)
	}
	if state := o["state_class"]; state != nil && state != "measurement" {
		t.Errorf("%s has the state class %v", name, state)
	}
	if o["unit_of_measurement"] != nil && o["state_class"] == nil {
		t.Errorf("%s has a unit and no state class", name)
	}
	if platform != "light" {
		return
	}
	// brightness and onoff stand alone (valid_supported_color_modes).
	modes, _ := o["supported_color_modes"].([]any)
	if o["schema"] != "json" || len(modes) != 1 || modes[0] != "onoff" && modes[0] != "brightness" {
		t.Errorf("%s has the schema %v and the modes %v", name, o["schema"], modes)
	}
	if (o["effect"] == true) != (o["effect_list"] != nil) {
		t.Errorf("%s has effect %v and the list %v", name, o["effect"], o["effect_list"])
	}
}

// topics finds the topics anywhere in an object.
func topics(o map[string]any) map[string]any {
	found := map[string]any{}
	for key, value := range o {
		if strings.HasSuffix(key, "_topic") {
			found[key] = value
		}
		if inner, ok := value.(map[string]any); ok {
			for innerKey, topic := range topics(inner) {
				found[key+"."+innerKey] = topic
			}
		}
	}
	return found
}
