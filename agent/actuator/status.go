package actuator

import (
	"encoding/json"
	"time"
)

// Status is what an output shows of itself. As JSON it is what Home Assistant's MQTT light of the JSON schema reads as a
// state, with more members, which that ignores.
type Status struct {
	State string `json:"state"` // "ON" or "OFF"
	// Brightness is the level that it is on at, or will be at the end of a transition, 1 to 255; 0 for an output that
	// cannot be dimmed, and while it is off.
	Brightness uint8 `json:"brightness,omitempty"`
	// ColorMode is "brightness" for an output that can be dimmed, "onoff" for others.
	ColorMode string `json:"color_mode"`
	// Effect is what it plays: "blink", "pulse", "flash" or the name of a pattern; "off" while it plays none.
	Effect string `json:"effect"`
	// Rule is the safety rule that switched it off or will do so at Until, or that holds it as it is.
	Rule string `json:"rule,omitempty"`
	// Until is when that will be, by the node's clock.
	Until time.Time `json:"until,omitzero"`
}

// The states of an output.
const (
	StateOn  = "ON"
	StateOff = "OFF"
)

// JSON is the status as it is published.
func (s Status) JSON() []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return []byte("{}") // cannot be: a year beyond 9999 would be needed
	}
	return text
}

// ParseStatus reads a status as it was published.
func ParseStatus(text []byte) (s Status, err error) {
	err = json.Unmarshal(text, &s)
	return s, err
}

// Status shows the machine at a time. Until is when the rule, or what it plays, ends; never where nothing does. The
// member of the status is left to who knows the clock.
func (m *Machine) Status(now time.Duration, dims bool) (s Status, until time.Duration) {
	s = Status{State: StateOff, ColorMode: "onoff", Effect: EffectOff, Rule: m.rule}
	if dims {
		s.ColorMode = string(Brightness)
	}
	if !m.Active(now) {
		return s, never
	}
	s.State = StateOn
	p := m.program.current(now)
	if p.name != "" && now < p.ends() {
		s.Effect = p.name
	}
	switch {
	case dims && p.level > 0:
		s.Brightness = p.level
	case dims:
		s.Brightness = m.level
	}
	end, rule := m.end(now)
	switch over := m.program.over(); {
	case over <= now && m.overruled: // the line does not obey
		until = never
	case over <= now:
		s.Rule, until = RuleMinOn, m.onAt+m.rules.MinOn
	case end < over:
		s.Rule, until = rule, end
	default:
		until = over
	}
	return s, until
}
