package agent

import (
	"github.com/go-json-experiment/json/jsontext"

	"pinseal/agent/actuator"
	"pinseal/signing"
)

// decodeCommand reads the message of a sealed command. The JSON is known to be valid.
func decodeCommand(msg []byte) (actuator.Command, error) {
	c, err := actuator.Parse(msg)
	if err != nil {
		return actuator.Command{}, signing.Refuse(signing.ReasonBadCommand, "%v", err)
	}
	return c, nil
}

// decodeLegacy reads the text of a legacy message. Its replay protection is too coarse for anything that means something
// else the second time.
func decodeLegacy(text string) (actuator.Command, error) {
	c, err := actuator.ParseWord(text)
	if err != nil || c.Action != actuator.On && c.Action != actuator.Off {
		return actuator.Command{}, signing.Refuse(signing.ReasonBadCommand, "not one of 0, 1, on, off")
	}
	return c, nil
}

// decodePlain reads an unsigned command: what a sealed one could say, or a bare word.
func decodePlain(payload []byte) (actuator.Command, error) {
	parse := func(text []byte) (actuator.Command, error) { return actuator.ParseWord(string(text)) }
	if jsontext.Value(payload).IsValid() {
		parse = actuator.Parse
	}
	c, err := parse(payload)
	if err != nil {
		return actuator.Command{}, signing.Refuse(signing.ReasonMalformed, "%v", err)
	}
	return c, nil
}
