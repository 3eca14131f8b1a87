package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"pinseal/signing"
)

// Verdict is the node's answer to a message: the msg of a sealed message on [VerdictTopic]. Topic, KeyID and Sequence
// name the message it answers.
type Verdict struct {
	Topic    string         `json:"topic"`
	KeyID    string         `json:"kid"`
	Sequence uint64         `json:"seq"` // of a legacy message: its second
	Reason   signing.Reason `json:"reason"`
	Detail   string         `json:"detail"` // for people, may be empty
	State    string         `json:"state"`  // of the output afterwards, [On] or [Off]; empty for telemetry
	Time     time.Time      `json:"time"`   // by the node's clock, RFC 3339
}

// ParseVerdict reads a verdict from the JSON of a verified message.
func ParseVerdict(msg []byte) (Verdict, error) {
	var v Verdict
	if err := json.Unmarshal(msg, &v); err != nil {
		return Verdict{}, fmt.Errorf("reading a verdict: %w", err)
	}
	if v.Topic == "" || v.KeyID == "" || v.Reason == "" {
		return Verdict{}, errors.New("reading a verdict: topic, kid or reason is missing")
	}
	return v, nil
}
