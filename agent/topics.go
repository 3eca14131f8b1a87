package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"pinseal/agent/actuator"
)

// SetTopic is the full name of the topic that commands an output.
func SetTopic(node, output string) string { return "pinseal/" + node + "/" + output + "/set" }

// StateTopic is where the node publishes [On] or [Off], retained, after the line changed.
func StateTopic(node, output string) string { return "pinseal/" + node + "/" + output + "/state" }

// StatusTopic is where the node publishes all that an output shows, an [actuator.Status], retained.
func StatusTopic(node, output string) string { return "pinseal/" + node + "/" + output + "/status" }

// AvailabilityTopic is where the node says [Online], and the broker [Offline] when the node is gone; retained.
func AvailabilityTopic(node string) string { return "pinseal/" + node + "/availability" }

// VerdictTopic is where the node answers a signer.
func VerdictTopic(node, signer string) string { return "pinseal/" + node + "/verdict/" + signer }

// ChallengeTopic is where the node publishes the challenge of its run, sealed and retained. See [ParseChallenge].
func ChallengeTopic(node string) string { return "pinseal/" + node + "/challenge" }

// TelemetryTopic is where a node publishes what it measures, sealed.
func TelemetryTopic(node, measure string) string { return telemetryPrefix + node + "/" + measure }

// LoopbackTopic is where a node hears itself. Nobody else has a use for it.
func LoopbackTopic(node string) string { return "loopback/" + node }

// VerifiedTopic is where the plain value of verified telemetry goes: telemetry/D/M becomes verified/D/M. The second
// result says whether topic is a telemetry topic.
func VerifiedTopic(topic string) (string, bool) {
	rest, ok := strings.CutPrefix(topic, telemetryPrefix)
	return verifiedPrefix + rest, ok && rest != ""
}

const (
	telemetryPrefix = "telemetry/"
	verifiedPrefix  = "verified/"
)

// What the node publishes on its state and availability topics.
const (
	On      = actuator.StateOn
	Off     = actuator.StateOff
	Online  = "online"
	Offline = "offline"
)

// challengeBytes is the length of a challenge before base64url.
const challengeBytes = 16

type challengeMessage struct {
	Challenge string `json:"challenge"`
}

// ParseChallenge returns the challenge from the JSON of a verified message on [ChallengeTopic]: it is the nonce to
// seal a command with while the node's clock is not trusted.
func ParseChallenge(msg []byte) (string, error) {
	var c challengeMessage
	if err := json.Unmarshal(msg, &c); err != nil {
		return "", fmt.Errorf("reading the challenge: %w", err)
	}
	if c.Challenge == "" {
		return "", errors.New("reading the challenge: there is none")
	}
	return c.Challenge, nil
}

// checkFilter refuses a topic filter of a telemetry rule that is not valid (MQTT 3.1.1, 4.7) or reaches beyond
// telemetry.
func checkFilter(filter string) error {
	if !strings.HasPrefix(filter, telemetryPrefix) || len(filter) == len(telemetryPrefix) {
		return fmt.Errorf("telemetry filter %q does not begin with %q", filter, telemetryPrefix)
	}
	if err := wellFormed(filter); err != nil {
		return fmt.Errorf("telemetry %w", err)
	}
	return nil
}

func wellFormed(filter string) error {
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		switch {
		case level == "+", level == "#" && i == len(levels)-1:
		case strings.ContainsAny(level, "+#\x00"):
			return fmt.Errorf("filter %q is malformed", filter)
		}
	}
	return nil
}

// Matches reports whether a valid topic filter covers a topic; neither begins with $.
func Matches(filter, topic string) bool { return matches(filter, topic) }

// matches says whether a valid filter covers a topic (MQTT 3.1.1, 4.7.1). Neither begins with $ here.
func matches(filter, topic string) bool {
	for {
		f, restF, moreF := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, restT, moreT := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !moreF || !moreT {
			// a/# covers a too.
			return moreF == moreT || moreF && restF == "#"
		}
		filter, topic = restF, restT
	}
}
