// Package homeassistant says in Home Assistant's words what a node has: its outputs, inputs and sensors, as one device
// of MQTT discovery (https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload).
//
// It is pure: a [Config] goes in, the retained messages to publish come out. What was announced before is an argument
// too, because Home Assistant must be told what is gone. Nothing here decides who may command: the command topics are
// those that the node takes unsigned commands on, and the broker's rules say from whom.
package homeassistant

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Config is what a node has.
type Config struct {
	Prefix  string // of discovery topics, "homeassistant" unless Home Assistant was told otherwise
	Node    string // its name: letters, digits, _ and -
	Title   string // what people call it
	Area    string // where it is, may be empty
	Version string // of this program
	// Availability is the topic that says online and offline.
	Availability string
	// States are the topics on which the node's outputs are shown, retained: also of those that are left out here.
	States  []string
	Outputs []Output
	Inputs  []Input
	Sensors []Sensor
}

// Entity is what outputs, inputs and sensors have in common.
type Entity struct {
	Name  string // unique among its kind
	Title string // what people call it; the name if empty
	Class string // Home Assistant's device class, see [ValidClass]; may be empty
}

// Output is something that is switched.
type Output struct {
	Entity
	State  string // topic of ON and OFF
	Status string // topic of everything it shows, as JSON
	// Command is the topic of unsigned commands. Without one Home Assistant shows the output and cannot switch it.
	Command string
	Light   bool     // a light, otherwise a switch
	Dims    bool     // a light that can be dimmed
	Effects []string // what a light can play, "off" among them
	Flashes bool     // whether a light may be told to flash
}

// Input is something that is on or off by itself. Topic carries a JSON object with the member state.
type Input struct {
	Entity
	Topic string
}

// Sensor is something that is measured. Topic carries a JSON object with the member value, or a bare value.
type Sensor struct {
	Entity
	Topic      string
	Flag       bool   // true or false, otherwise a number or a text
	Unit       string // of a number, by its SenML name; empty where it has none or is not known
	Text       bool   // not a number
	Diagnostic bool   // about the machine itself
}

// Message is to be published, retained.
type Message struct {
	Topic   string
	Payload []byte // empty: deletes
}

// Announced is what Home Assistant was told, to be kept until the next time.
type Announced struct {
	Topic      string            `json:"topic"`
	Components map[string]string `json:"components"`       // their platforms
	States     []string          `json:"states,omitempty"` // see [Config]
}

// Topic is where the node's device is announced.
func (c Config) Topic() string { return c.Prefix + "/device/" + c.Node + "/config" }

// Announce makes the messages that bring Home Assistant from what it was told before to what there is now, and what it
// will have been told then. What an output that is gone had shown is deleted, too. A nil now is nothing at all.
func Announce(now *Config, before Announced) ([]Message, Announced, error) {
	var messages []Message
	if before.Topic != "" && (now == nil || before.Topic != now.Topic()) {
		messages = append(messages, Message{Topic: before.Topic})
		before = Announced{States: before.States}
	}
	if now == nil {
		return messages, Announced{}, nil
	}
	d := now.device()
	after := Announced{Topic: now.Topic(), Components: d.platforms(), States: now.States}
	for _, topic := range before.States {
		if !slices.Contains(after.States, topic) {
			messages = append(messages, Message{Topic: topic})
		}
	}
	gone := maps.Clone(before.Components)
	maps.DeleteFunc(gone, func(id, _ string) bool { return after.Components[id] != "" })
	if len(gone) > 0 {
		// A component that has its platform and nothing else is removed; it is left out afterwards.
		farewell := d
		farewell.Components = maps.Clone(d.Components)
		for id, platform := range gone {
			farewell.Components[id] = component{Platform: platform}
		}
		payload, err := json.Marshal(farewell)
		if err != nil {
			return nil, before, fmt.Errorf("announcing to Home Assistant: %w", err)
		}
		messages = append(messages, Message{now.Topic(), payload})
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return nil, before, fmt.Errorf("announcing to Home Assistant: %w", err)
	}
	return append(messages, Message{now.Topic(), payload}), after, nil
}

// Check refuses what Home Assistant would not understand.
func (c Config) Check() error {
	seen := make(map[string]bool)
	for id, p := range c.device().Components {
		if !ValidClass(p.Platform, p.DeviceClass) {
			return fmt.Errorf("%s: Home Assistant has no device class %q for a %s", p.Name, p.DeviceClass, p.Platform)
		}
		if allowed, ok := unitsOf(p.DeviceClass); ok && p.Platform == platformSensor && !slices.Contains(allowed, p.Unit) {
			return fmt.Errorf("%s: the device class %s is not measured in %q", p.Name, p.DeviceClass, p.Unit)
		}
		seen[id] = true
	}
	if len(seen) != len(c.Outputs)+len(c.Inputs)+len(c.Sensors) {
		return fmt.Errorf("two of the node's outputs, inputs or sensors have one name")
	}
	return nil
}
