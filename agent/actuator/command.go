package actuator

import (
	"strings"
	"time"
)

// Action is what a signer may be permitted to do with an output.
type Action string

// The actions, as policies name them.
const (
	Off        Action = "off"
	On         Action = "on"
	Toggle     Action = "toggle"
	Pulse      Action = "pulse"      // on for a time that the node keeps
	Blink      Action = "blink"      // on and off
	Effect     Action = "effect"     // a named pattern
	Flash      Action = "flash"      // blink for a while, then as before
	Brightness Action = "brightness" // a level between off and on, or a transition to it
)

// Actions lists every action.
func Actions() []Action {
	return []Action{Off, On, Toggle, Pulse, Blink, Effect, Flash, Brightness}
}

// What a command may ask for, both ends included.
const (
	MaxLevel      = 255 // fully on
	MinPulse      = 10 * time.Millisecond
	MaxPulse      = 24 * time.Hour
	MinPeriod     = 100 * time.Millisecond
	MaxPeriod     = time.Hour
	MaxCount      = 10000
	MaxFlash      = time.Minute
	MaxTransition = time.Hour
)

// What a command means that does not say.
const (
	defaultPulse  = time.Second
	defaultPeriod = time.Second
	defaultFlash  = 2 * time.Second
)

// Command is what is asked of an output.
type Command struct {
	// Action is the main one: every one but Brightness.
	Action Action
	// Dims says that Level or Transition were given; only an output that can be dimmed takes them.
	Dims bool
	// Level to be on at, 1 to 255; 0 is the level it had when it was on last.
	Level uint8
	// Transition is how long the change to on or off takes, at most an hour.
	Transition time.Duration
	// Length of a pulse or a flash; 0 is the output's own.
	Length time.Duration
	// Period of one on and one off of Blink; 0 is 1 s.
	Period time.Duration
	// Count is how often Blink or Effect is played; 0 is until something else is commanded.
	Count int
	// Pattern is the name of the effect, one of Patterns.
	Pattern string

	// MaxOn is for how long who commands may have the output on; 0 is no limit but the output's.
	MaxOn time.Duration
	// Signed says that the command is signed and, by a trusted clock, fresh: only such ones satisfy Hold. Without a clock
	// whoever carries the commands could keep some, and hand them over one by one.
	Signed bool
}

// Needs lists the actions that must be permitted to who commands this. A pulse does not need on: who may open a gate
// for a second may not leave it open.
func (c Command) Needs() []Action {
	if c.Dims {
		return []Action{c.Action, Brightness}
	}
	return []Action{c.Action}
}

// word reads a command as one word, in any case.
func word(s string) (Command, bool) {
	switch s = strings.ToLower(s); s {
	case "0":
		s = string(Off)
	case "1":
		s = string(On)
	}
	if _, ok := pattern(s); ok {
		return Command{Action: Effect, Pattern: s}, true
	}
	switch a := Action(s); a {
	case Off, On, Toggle, Pulse, Blink:
		return Command{Action: a}, true
	default:
		return Command{}, false
	}
}
