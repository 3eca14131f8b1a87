package actuator

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// ErrCommand is what every error of Parse is.
var ErrCommand = errors.New("not a command")

func bad(text string) error { return &commandError{text} }

// commandError says what is wrong without repeating what was written, for it ends up in a log.
type commandError struct{ text string }

func (e *commandError) Error() string { return e.text }

func (e *commandError) Is(target error) bool { return target == ErrCommand }

var errWord = bad(`not one of 0, 1, on, off, toggle, pulse, blink, an effect, or {"state": "ON" …}`)

// Parse reads a command from its JSON, which is known to be valid and without duplicate members: a string that is one of
// the words in any case, the numbers 0 and 1, true and false, or an object with the member state. The error is ErrCommand,
// worded for the sender.
func Parse(msg []byte) (Command, error) {
	if len(msg) == 0 {
		return Command{}, errWord
	}
	switch msg[0] {
	case '{':
		return parseObject(msg)
	case '"':
		return parseString(msg)
	}
	switch string(msg) {
	case "0", "false":
		return Command{Action: Off}, nil
	case "1", "true":
		return Command{Action: On}, nil
	}
	return Command{}, errWord
}

// ParseWord reads a command that is one word: 0, 1, on, off, toggle, pulse, blink or an effect, in any case.
func ParseWord(s string) (Command, error) {
	c, ok := word(s)
	if !ok {
		return Command{}, errWord
	}
	return c, nil
}

func parseString(msg []byte) (Command, error) {
	var s string
	if err := json.Unmarshal(msg, &s); err != nil {
		return Command{}, errWord
	}
	return ParseWord(s)
}

// members of the object, in the order in which they are read: each may stand only beside what it says.
type members map[string]json.RawMessage

func parseObject(msg []byte) (Command, error) {
	var m members
	if err := json.Unmarshal(msg, &m); err != nil {
		return Command{}, errWord
	}
	c, err := m.state()
	if err != nil {
		return Command{}, err
	}
	for _, read := range []func(members, *Command) error{
		members.pulse, members.effect, members.flash, members.period, members.count, members.brightness, members.transition,
	} {
		if err := read(m, &c); err != nil {
			return Command{}, err
		}
	}
	if len(m) > 0 {
		return Command{}, bad("an unknown member")
	}
	return c, nil
}

// take gives a member and marks it as read.
func (m members) take(name string) (json.RawMessage, bool) {
	value, ok := m[name]
	delete(m, name)
	return value, ok
}

func (m members) state() (Command, error) {
	value, ok := m.take("state")
	if !ok || value[0] != '"' {
		return Command{}, bad(`the member state is missing: "ON", "OFF" or "TOGGLE"`)
	}
	c, err := parseString(value)
	if err != nil || c.Action != On && c.Action != Off && c.Action != Toggle {
		return Command{}, bad(`the state is none of "ON", "OFF", "TOGGLE"`)
	}
	return c, nil
}

func (m members) pulse(c *Command) (err error) {
	value, ok := m.take("pulse")
	if !ok {
		return nil
	}
	if c.Action != On {
		return bad("a pulse has the state ON")
	}
	c.Action = Pulse
	c.Length, err = seconds(value, "pulse", MinPulse, MaxPulse)
	return err
}

func (m members) effect(c *Command) error {
	value, ok := m.take("effect")
	if !ok {
		return nil
	}
	var name string
	if c.Action != On || json.Unmarshal(value, &name) != nil || value[0] != '"' {
		return bad("an effect is a string, has the state ON, and is no pulse")
	}
	switch _, known := pattern(name); {
	case name == EffectOff: // steady
	case name == string(Blink):
		c.Action = Blink
	case known:
		c.Action, c.Pattern = Effect, name
	default:
		return bad("no such effect")
	}
	return nil
}

func (m members) flash(c *Command) (err error) {
	value, ok := m.take("flash")
	if !ok {
		return nil
	}
	if c.Action != On {
		return bad("flash has the state ON, and is neither pulse nor effect")
	}
	c.Action = Flash
	c.Length, err = seconds(value, "flash", MinPeriod, MaxFlash)
	return err
}

func (m members) period(c *Command) (err error) {
	value, ok := m.take("period")
	if !ok {
		return nil
	}
	if c.Action != Blink {
		return bad(`period goes with the effect "blink"`)
	}
	c.Period, err = seconds(value, "period", MinPeriod, MaxPeriod)
	return err
}

func (m members) count(c *Command) error {
	value, ok := m.take("count")
	if !ok {
		return nil
	}
	n, err := strconv.ParseUint(string(value), 10, 16)
	if c.Action != Blink && c.Action != Effect || err != nil || n < 1 || n > MaxCount {
		return bad(fmt.Sprintf("count goes with an effect and is a number from 1 to %d", MaxCount))
	}
	c.Count = int(n)
	return nil
}

func (m members) brightness(c *Command) error {
	value, ok := m.take("brightness")
	if !ok {
		return nil
	}
	n, err := strconv.ParseUint(string(value), 10, 8)
	if err != nil || c.Action == Off || c.Action == Toggle {
		return bad("brightness has the state ON and is a number from 0 to 255")
	}
	if c.Dims, c.Level = true, uint8(n); n > 0 {
		return nil
	}
	if c.Action != On {
		return bad("brightness 0 is off, and has no pulse, effect or flash")
	}
	c.Action = Off
	return nil
}

func (m members) transition(c *Command) (err error) {
	value, ok := m.take("transition")
	if !ok {
		return nil
	}
	if c.Action != On && c.Action != Off {
		return bad("a transition leads to on, off or a brightness")
	}
	c.Dims = true
	c.Transition, err = seconds(value, "transition", 0, MaxTransition)
	return err
}

// seconds reads a length of time, fractions allowed, within its bounds.
func seconds(value json.RawMessage, name string, least, most time.Duration) (time.Duration, error) {
	s, err := strconv.ParseFloat(string(value), 64) // of JSON: no NaN, no hexadecimal
	if err != nil || s < least.Seconds() || s > most.Seconds() {
		return 0, bad(fmt.Sprintf("%s is a number of seconds from %v to %v", name, least.Seconds(), most.Seconds()))
	}
	return time.Duration(math.Round(s * float64(time.Second))), nil
}
