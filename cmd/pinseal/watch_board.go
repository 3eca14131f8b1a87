package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/encryption"
)

// What a board keeps: others decide how many topics there are.
const (
	maxWatched  = 500
	maxVerdicts = 200
)

// board is what is known of a node. It is used by one goroutine.
type board struct {
	node    string
	keyring *signing.Keyring
	secrets *cryptor
	seen    recent

	connected    bool
	availability string
	outputs      map[string]*reading
	inputs       map[string]*reading
	measures     map[string]*reading
	verdicts     []ruling // the latest last
	rejected     int
	left         int      // readings for which there was no room
	hidden       []string // what the broker does not let us see
	notice       string   // about our own certificate
}

// reading is one line of the board.
type reading struct {
	text   string
	detail string
	at     time.Time
}

// ruling is a verdict and who it was for.
type ruling struct {
	signer string
	agent.Verdict
}

func newBoard(node string, keyring *signing.Keyring, secrets *cryptor) *board {
	return &board{
		node: node, keyring: keyring, secrets: secrets, connected: true, seen: recent{index: map[[32]byte]bool{}},
		outputs: map[string]*reading{}, inputs: map[string]*reading{}, measures: map[string]*reading{},
	}
}

// take learns from a message. The line says what it was, "" if there is nothing to say. Nothing in it can move a cursor.
func (b *board) take(m mqtt.Message, now time.Time) string {
	own, isOwn := strings.CutPrefix(m.Topic, "pinseal/"+b.node+"/")
	if isOwn && looksSealed(m.Payload) && !strings.HasPrefix(own, "verdict/") {
		if m.Payload = b.unveil(m); m.Payload == nil {
			return ""
		}
	}
	switch {
	case m.Topic == agent.AvailabilityTopic(b.node):
		b.availability = printable(string(m.Payload))
		return "node " + b.node + " " + b.availability
	case isOwn && strings.HasPrefix(own, "verdict/"):
		return b.takeVerdict(m)
	case isOwn && strings.HasSuffix(own, "/state"):
		return b.put(b.outputs, "output", strings.TrimSuffix(own, "/state"), printable(string(m.Payload)), now)
	case isOwn && strings.HasSuffix(own, "/status"):
		return b.takeStatus(strings.TrimSuffix(own, "/status"), m.Payload)
	case strings.HasPrefix(m.Topic, "verified/"):
		return b.takeValue(strings.TrimPrefix(m.Topic, "verified/"), m.Payload, now)
	case strings.HasPrefix(m.Topic, "telemetry/"):
		return b.takeSealed(m, now)
	}
	return ""
}

// unveil opens what an output shows and the node has encrypted.
func (b *board) unveil(m mqtt.Message) []byte {
	sealed, who, err := signing.Open(m.Payload, m.Topic, b.keyring)
	if err != nil || who.Name != b.node {
		return nil
	}
	value, err := b.secrets.value(sealed)
	if err != nil {
		return nil
	}
	return []byte(plainText(value))
}

// put keeps a reading and words it.
func (b *board) put(where map[string]*reading, kind, name, text string, now time.Time) string {
	name = printable(name)
	r := where[name]
	if r == nil {
		if len(b.outputs)+len(b.inputs)+len(b.measures) >= maxWatched {
			b.left++
			return ""
		}
		r = &reading{}
		where[name] = r
	}
	r.text, r.at = text, now
	return kind + " " + name + " " + text
}

// takeStatus adds to an output what its state alone does not say.
func (b *board) takeStatus(name string, payload []byte) string {
	var s actuator.Status
	r := b.outputs[printable(name)]
	if json.Unmarshal(payload, &s) != nil || r == nil {
		return ""
	}
	var words []string
	if s.Brightness > 0 {
		words = append(words, fmt.Sprintf("brightness %d", s.Brightness))
	}
	if s.Effect != "" && s.Effect != actuator.EffectOff {
		words = append(words, s.Effect)
	}
	if s.Rule != "" {
		words = append(words, "by "+s.Rule)
	}
	if !s.Until.IsZero() {
		words = append(words, "until "+s.Until.Local().Format(time.TimeOnly))
	}
	detail := printable(strings.Join(words, ", "))
	if detail == r.detail {
		return ""
	}
	if r.detail = detail; detail == "" {
		return ""
	}
	return "output " + printable(name) + " " + detail
}

// takeVerdict believes the node's own key alone.
func (b *board) takeVerdict(m mqtt.Message) string {
	sealed, who, err := signing.Open(m.Payload, m.Topic, b.keyring)
	if err != nil || who.Name != b.node || !b.seen.add(sealed.Digest()) {
		return ""
	}
	said, err := b.secrets.value(sealed)
	if err != nil {
		return ""
	}
	v, err := agent.ParseVerdict(said)
	if err != nil {
		return ""
	}
	r := ruling{strings.TrimPrefix(m.Topic, agent.VerdictTopic(b.node, "")), v}
	if b.verdicts = append(b.verdicts, r); len(b.verdicts) > maxVerdicts {
		b.verdicts = b.verdicts[1:]
	}
	if v.Reason != signing.ReasonApplied {
		b.rejected++
	}
	return r.String()
}

// String is the verdict in one line: "rejected operator ledStatus: stale: sealed 93 s before now".
func (r ruling) String() string {
	verb, rest, _ := strings.Cut(verdictText(r.Verdict), ": ")
	if rest != "" {
		rest = ": " + rest
	}
	return printable(verb + " " + r.signer + " " + r.Topic + rest)
}

// takeValue tells the node's inputs from everything else that is measured.
func (b *board) takeValue(name string, value []byte, now time.Time) string {
	var v struct {
		State     string   `json:"state"`
		Count     *uint64  `json:"count"`
		PerMinute uint64   `json:"per_minute"`
		Value     any      `json:"value"`
		Unit      string   `json:"unit"`
		Time      *float64 `json:"time"`
	}
	err := json.Unmarshal(value, &v)
	input, isOwn := strings.CutPrefix(name, b.node+"/")
	switch {
	case err == nil && isOwn && v.State != "" && v.Count != nil:
		return b.put(b.inputs, "input", input, printable(fmt.Sprintf("%s, count %d, %d a minute", v.State, *v.Count, v.PerMinute)), now)
	case err == nil && v.Value != nil:
		return b.put(b.measures, "measure", name, printable(strings.TrimSpace(fmt.Sprintf("%v %s", v.Value, v.Unit))), now)
	default:
		return b.put(b.measures, "measure", name, printable(string(value)), now)
	}
}

// takeSealed shows encrypted telemetry that we can open; what is not encrypted comes verified by the node.
func (b *board) takeSealed(m mqtt.Message, now time.Time) string {
	sealed, _, err := signing.Open(m.Payload, m.Topic, b.keyring)
	if err != nil || !encryption.Encrypted(sealed.JSON()) || !b.seen.add(sealed.Digest()) {
		return ""
	}
	value, err := b.secrets.value(sealed)
	if err != nil {
		return ""
	}
	return b.takeValue(strings.TrimPrefix(m.Topic, "telemetry/"), []byte(plainText(value)), now)
}
