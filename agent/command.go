package agent

import (
	"encoding/json"
	"strings"

	"pinseal/signing"
)

// action is what a command asks of an output.
type action uint8

const (
	actionOff action = iota
	actionOn
	actionToggle
)

func (a action) String() string { return [...]string{ActionOff, ActionOn, ActionToggle}[a] }

// parseAction reads the name of an action as policies use it.
func parseAction(name string) (action, bool) {
	for _, a := range []action{actionOff, actionOn, actionToggle} {
		if a.String() == name {
			return a, true
		}
	}
	return 0, false
}

// parseWord reads a command as a string, in any case.
func parseWord(s string) (action, bool) {
	switch s {
	case "0":
		return actionOff, true
	case "1":
		return actionOn, true
	}
	return parseAction(strings.ToLower(s))
}

// decodeCommand reads the message of a sealed command: one of the words as a string, the numbers 0 and 1, true and
// false, or an object with the one member state, which is such a string. The JSON is known to be valid.
func decodeCommand(msg []byte) (action, error) {
	var act action
	ok := false
	switch msg[0] {
	case '0', '1', 't', 'f':
		act, ok = decodeLiteral(string(msg))
	case '"':
		act, ok = decodeString(msg)
	case '{':
		var members map[string]json.RawMessage
		if err := json.Unmarshal(msg, &members); err == nil && len(members) == 1 {
			act, ok = decodeString(members["state"])
		}
	}
	if !ok {
		return 0, signing.Refuse(signing.ReasonBadCommand, `not one of 0, 1, on, off, toggle or {"state": …} with one of them`)
	}
	return act, nil
}

func decodeLiteral(msg string) (action, bool) {
	switch msg {
	case "0", "false":
		return actionOff, true
	case "1", "true":
		return actionOn, true
	}
	return 0, false
}

func decodeString(msg []byte) (action, bool) {
	if len(msg) == 0 || msg[0] != '"' {
		return 0, false
	}
	var s string
	if err := json.Unmarshal(msg, &s); err != nil {
		return 0, false
	}
	return parseWord(s)
}

// decodeLegacy reads the text of a legacy message. Toggling is left out: its replay protection is too coarse for it.
func decodeLegacy(text string) (action, error) {
	act, ok := parseWord(text)
	if !ok || act == actionToggle {
		return 0, signing.Refuse(signing.ReasonBadCommand, "not one of 0, 1, on, off")
	}
	return act, nil
}
