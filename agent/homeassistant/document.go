package homeassistant

import "cmp"

// The platforms used.
const (
	platformLight  = "light"
	platformSwitch = "switch"
	platformBinary = "binary_sensor"
	platformSensor = "sensor"
)

// qos is that of what Home Assistant publishes and subscribes to.
const qos = 1

// document is the payload of a discovery message. The names are Home Assistant's own; it knows shorter ones, for
// machines with little memory.
type document struct {
	Device       device               `json:"device"`
	Origin       origin               `json:"origin"`
	Components   map[string]component `json:"components"`
	Availability string               `json:"availability_topic"`
	QoS          int                  `json:"qos"`
}

type device struct {
	Identifiers  []string `json:"identifiers"`
	Name         string   `json:"name"`
	Manufacturer string   `json:"manufacturer"`
	Model        string   `json:"model"`
	Version      string   `json:"sw_version,omitempty"`
	Area         string   `json:"suggested_area,omitempty"`
}

// origin is who speaks, which Home Assistant writes into its log.
type origin struct {
	Name    string `json:"name"`
	Version string `json:"sw_version,omitempty"`
}

// component is one entity. With the platform alone it says that there is none any more.
type component struct {
	Platform    string   `json:"platform"`
	UniqueID    string   `json:"unique_id,omitempty"`
	Name        string   `json:"name,omitempty"`
	DeviceClass string   `json:"device_class,omitempty"`
	Category    string   `json:"entity_category,omitempty"`
	State       string   `json:"state_topic,omitempty"`
	Command     string   `json:"command_topic,omitempty"`
	Attributes  string   `json:"json_attributes_topic,omitempty"`
	Template    string   `json:"value_template,omitempty"`
	Unit        string   `json:"unit_of_measurement,omitempty"`
	StateClass  string   `json:"state_class,omitempty"`
	Schema      string   `json:"schema,omitempty"`
	ColorModes  []string `json:"supported_color_modes,omitempty"`
	Brightness  bool     `json:"brightness,omitempty"`
	Effect      bool     `json:"effect,omitempty"`
	Effects     []string `json:"effect_list,omitempty"`
	Transition  *bool    `json:"transition,omitempty"`
	Flash       *bool    `json:"flash,omitempty"`
}

func (c Config) device() document {
	d := document{
		Device: device{
			Identifiers: []string{"pinseal_" + c.Node}, Name: cmp.Or(c.Title, c.Node), Manufacturer: "pinseal", Model: "node",
			Version: c.Version, Area: c.Area,
		},
		Origin:       origin{"pinseal", c.Version},
		Components:   make(map[string]component),
		Availability: c.Availability,
		QoS:          qos,
	}
	for _, o := range c.Outputs {
		c.add(d, "output", o.Entity, o.component())
	}
	for _, i := range c.Inputs {
		c.add(d, "input", i.Entity, component{
			Platform: platformBinary, State: i.Topic, Attributes: i.Topic, Template: "{{ value_json.state }}",
		})
	}
	for _, s := range c.Sensors {
		c.add(d, "sensor", s.Entity, s.component())
	}
	return d
}

// add gives a component its names. The platform is part of them: what becomes another one is another entity.
func (c Config) add(d document, kind string, e Entity, p component) {
	id := kind + "_" + e.Name + "_" + p.Platform
	p.UniqueID = "pinseal_" + c.Node + "_" + id
	p.Name = cmp.Or(e.Title, e.Name)
	p.DeviceClass = cmp.Or(e.Class, p.DeviceClass)
	d.Components[id] = p
}

func (o Output) component() component {
	switch {
	case o.Command == "":
		return component{Platform: platformBinary, State: o.State, Attributes: o.Status}
	case !o.Light:
		return component{Platform: platformSwitch, State: o.State, Command: o.Command, Attributes: o.Status}
	}
	p := component{
		Platform: platformLight, Schema: "json", State: o.Status, Command: o.Command, Attributes: o.Status,
		ColorModes: []string{"onoff"}, Transition: &o.Dims, Flash: &o.Flashes,
	}
	if o.Dims {
		p.ColorModes, p.Brightness = []string{"brightness"}, true
	}
	if len(o.Effects) > 0 {
		p.Effect, p.Effects = true, o.Effects
	}
	return p
}

// The templates take a bare value as well: {{ 21.5 }} has no members.
const (
	numberTemplate = "{{ value_json.value if value_json is mapping else value }}"
	flagTemplate   = "{{ 'ON' if (value_json.value if value_json is mapping else value_json) else 'OFF' }}"
)

func (s Sensor) component() component {
	p := component{Platform: platformSensor, State: s.Topic, Template: numberTemplate}
	if s.Diagnostic {
		p.Category = "diagnostic"
	}
	switch {
	case s.Flag:
		p.Platform, p.Template = platformBinary, flagTemplate
	case !s.Text:
		p.StateClass = "measurement"
		p.Unit, p.DeviceClass = unit(s.Unit)
	}
	return p
}

func (d document) platforms() map[string]string {
	platforms := make(map[string]string, len(d.Components))
	for id, p := range d.Components {
		platforms[id] = p.Platform
	}
	return platforms
}
