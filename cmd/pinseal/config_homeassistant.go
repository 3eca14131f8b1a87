package main

import (
	"slices"
	"strings"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/agent/homeassistant"
	"pinseal/agent/sensor"
)

// homeAssistantConfig is [homeassistant]: announcing the node by MQTT discovery.
type homeAssistantConfig struct {
	Enable bool   `toml:"enable"`
	Prefix name   `toml:"prefix"`
	Title  string `toml:"title"`
	Area   string `toml:"area"`
}

const defaultDiscoveryPrefix = "homeassistant"

func (h homeAssistantConfig) prefix() string {
	return orDefault(string(h.Prefix), defaultDiscoveryPrefix)
}

// status is where Home Assistant says that it has started; so it does unless it was told otherwise.
func (h homeAssistantConfig) status() string { return h.prefix() + "/status" }

// entityConfig is [[entity]]: how Home Assistant shows an output, an input, a sensor or what another device measures.
type entityConfig struct {
	Of    string       `toml:"of"` // a name, or DEVICE/MEASURE
	As    entityAs     `toml:"as"`
	Title string       `toml:"title"`
	Class string       `toml:"class"`
	Unit  senmlUnit    `toml:"unit"` // of what another device measures
	Hide  bool         `toml:"hide"`
	Kind  entityOrigin `toml:"kind"` // where an output has the name of an input or a sensor
}

type (
	entityAs     string // light, switch
	entityOrigin string // output, input, sensor
)

func (a entityAs) check() error     { return oneOf(a, "light", "switch") }
func (o entityOrigin) check() error { return oneOf(o, "output", "input", "sensor") }

// checkHomeAssistant wants every [[entity]] to be of something, and what is announced to be understood.
func (c *config) checkHomeAssistant(data []byte) error {
	for i, e := range c.Entities {
		device, measure, foreign := strings.Cut(e.Of, "/")
		switch {
		case foreign && (name(device).check() != nil || measure == "" || topicName(e.Of).check() != nil):
			return at(data, place{"entity", i, "of"}, "%q is not DEVICE/MEASURE", e.Of)
		case !foreign && !c.has(e):
			return at(data, place{"entity", i, "of"}, "no output, input or sensor is named %q", e.Of)
		case e.Unit != "" && !foreign:
			return at(data, place{"entity", i, "unit"}, "a sensor has its unit in its own block")
		}
	}
	if !c.HomeAssistant.Enable {
		return nil
	}
	if err := c.homeAssistant().Check(); err != nil {
		return at(data, place{"homeassistant", 0, "enable"}, "%w", err)
	}
	return nil
}

func (c *config) has(e entityConfig) bool {
	of := name(e.Of)
	is := func(kind entityOrigin) bool { return e.Kind == "" || e.Kind == kind }
	return is("output") && slices.ContainsFunc(c.Outputs, func(o outputConfig) bool { return o.Name == of }) ||
		is("input") && slices.ContainsFunc(c.Inputs, func(in inputConfig) bool { return in.Name == of }) ||
		is("sensor") && slices.ContainsFunc(c.Sensors, func(s sensorConfig) bool { return s.Name == of })
}

// entity is what [[entity]] says of a thing.
func (c *config) entity(kind entityOrigin, of name) entityConfig {
	for _, e := range c.Entities {
		if e.Of == string(of) && (e.Kind == "" || e.Kind == kind) {
			return e
		}
	}
	return entityConfig{}
}

// homeAssistant is what of the node Home Assistant is told.
func (c *config) homeAssistant() homeassistant.Config {
	node := string(c.Node)
	version, _ := buildVersion()
	h := homeassistant.Config{
		Prefix: c.HomeAssistant.prefix(), Node: node, Title: c.HomeAssistant.Title, Area: c.HomeAssistant.Area, Version: version,
		Availability: agent.AvailabilityTopic(node),
	}
	for _, o := range c.Outputs {
		h.States = append(h.States, agent.StateTopic(node, string(o.Name)), agent.StatusTopic(node, string(o.Name)))
		if e := c.entity("output", o.Name); !e.Hide && !c.encrypts(agent.StateTopic(node, string(o.Name))) {
			h.Outputs = append(h.Outputs, c.outputEntity(o, e))
		}
	}
	for _, in := range c.Inputs {
		topic, shown := c.verifiedTopic(node + "/" + string(in.Name))
		if e := c.entity("input", in.Name); !e.Hide && shown && in.Report != reportNever && in.Batch == "" {
			h.Inputs = append(h.Inputs, homeassistant.Input{Entity: e.entity(string(in.Name)), Topic: topic})
		}
	}
	for _, s := range c.Sensors {
		topic, shown := c.verifiedTopic(node + "/" + string(s.Name))
		if e := c.entity("sensor", s.Name); !e.Hide && shown && s.Batch == "" {
			h.Sensors = append(h.Sensors, s.entity(e, topic))
		}
	}
	for _, e := range c.Entities {
		topic, shown := c.verifiedTopic(e.Of)
		if strings.Contains(e.Of, "/") && shown && !e.Hide {
			h.Sensors = append(h.Sensors, homeassistant.Sensor{
				Entity: e.entity(strings.ReplaceAll(e.Of, "/", "_")), Topic: topic, Unit: string(e.Unit), Text: e.Unit == "" && e.Class == "",
			})
		}
	}
	return h
}

// verifiedTopic is where a measure is published in the clear, unless it is encrypted.
func (c *config) verifiedTopic(measure string) (topic string, shown bool) {
	rule, encrypted := c.encryptRule("telemetry/" + measure)
	return "verified/" + measure, !encrypted || rule.Republish
}

func (c *config) encrypts(topic string) bool {
	_, encrypted := c.encryptRule(topic)
	return encrypted
}

func (e entityConfig) entity(name string) homeassistant.Entity {
	return homeassistant.Entity{Name: name, Title: e.Title, Class: e.Class}
}

func (c *config) outputEntity(o outputConfig, e entityConfig) homeassistant.Output {
	may := func(a actuator.Action) bool { return slices.Contains(strs(o.PlainActions), string(a)) }
	entity := homeassistant.Output{
		Entity: e.entity(string(o.Name)), State: agent.StateTopic(string(c.Node), string(o.Name)),
		Status: agent.StatusTopic(string(c.Node), string(o.Name)), Command: string(o.PlainTopic),
		Light: e.As == "light", Dims: o.PWM != "" && may(actuator.Brightness), Flashes: may(actuator.Flash),
	}
	if may(actuator.Blink) {
		entity.Effects = append(entity.Effects, string(actuator.Blink))
	}
	if may(actuator.Effect) {
		entity.Effects = append(entity.Effects, actuator.Patterns()...)
	}
	if len(entity.Effects) > 0 {
		entity.Effects = append([]string{actuator.EffectOff}, entity.Effects...)
	}
	return entity
}

func (s sensorConfig) entity(e entityConfig, topic string) homeassistant.Sensor {
	entity := homeassistant.Sensor{Entity: e.entity(string(s.Name)), Topic: topic, Unit: s.sensor().ExpectedUnit()}
	switch kind := sensor.Kind(s.Kind); kind {
	case sensor.Undervoltage, sensor.Throttled:
		entity.Flag, entity.Diagnostic = true, true
		entity.Class = orDefault(entity.Class, "problem")
	case sensor.CPUTemperature, sensor.ThrottledFlags, sensor.Load, sensor.Memory, sensor.Disk, sensor.Uptime:
		entity.Diagnostic = true
	case sensor.Exec, sensor.File:
		entity.Text = s.Unit == "" && e.Class == ""
	default:
	}
	return entity
}

// homeAssistantTopics are what Home Assistant may publish and subscribe to: the outputs it was given, and what it shows.
func (c *config) homeAssistantTopics() (publish, subscribe []string) {
	node := string(c.Node)
	publish = []string{c.HomeAssistant.status()}
	for _, o := range c.Outputs {
		if o.PlainTopic != "" && !c.entity("output", o.Name).Hide {
			publish = append(publish, string(o.PlainTopic))
		}
	}
	return publish, []string{
		c.HomeAssistant.prefix() + "/#", agent.AvailabilityTopic(node), agent.StateTopic(node, "+"), agent.StatusTopic(node, "+"), "verified/#",
	}
}
