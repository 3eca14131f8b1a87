package agent

import (
	"context"
	"log/slog"
	"net"
	"time"

	"pinseal/signing"
	"pinseal/signing/boxtec"
	"pinseal/signing/replay"
)

// Line is what an output drives. The agent calls Set for one output from one goroutine at a time, and On only there
// and before Run.
type Line interface {
	// Set drives the line and returns when it has changed.
	Set(on bool) error
	// On says what the line was last driven to.
	On() bool
}

// Clock is the node's idea of the time. It must be safe for concurrent use and cheap.
type Clock interface {
	Now() time.Time
	// Trusted says whether Now may be used to judge how old a message is.
	Trusted() bool
}

// Sequence gives every number once, each above the one before, also over restarts. *sequence.Counter is one.
type Sequence interface {
	// Reserve gives n numbers in a row and returns the first.
	Reserve(now time.Time, n uint64) (first uint64, err error)
}

// Output is something the node drives on command.
type Output struct {
	Name string // letters, digits, _ and -, at most 64
	// Topic commands the output, as SetTopic does. It may be empty.
	Topic string
	// PlainTopic commands it without a signature: 0 or 1. Empty, as it should be, there is none.
	PlainTopic string
	Line       Line
}

// Config is what an agent is made of. All fields are required but those that say otherwise.
type Config struct {
	Node     string              // the node's name
	Key      *signing.PrivateKey // signs verdicts and the challenge
	Sequence Sequence            // numbers what Key signs
	// Dial opens a connection to the broker, TLS included.
	Dial func(context.Context) (net.Conn, error)
	// Username is given to the broker; may be empty.
	Username string
	// ClientID names the session that the broker keeps while the node is away. Without one there is no such session,
	// and what is sent meanwhile is lost.
	ClientID string
	Outputs  []Output
	Policy   *Policy
	Replay   *replay.Store
	Clock    Clock
	Log      *slog.Logger // may be nil
	// OwnBroker says that the broker lives and ends with this node. See [Agent.Loopback].
	OwnBroker bool
	// QueueLength is how many messages of one topic may be under way, 4096 if zero. At most 4 MiB of them are, anyhow.
	QueueLength int
}

// Policy says who may do what. It must not be changed once it was given to an agent; make a new one for SetPolicy.
type Policy struct {
	Keyring   *signing.Keyring
	Permits   []Permit
	Telemetry []TelemetryRule
	Legacy    []LegacyKey
	// MaxAge is how old a command may be: 30 s if zero, at most 60 s.
	MaxAge time.Duration
	// Rate is how many commands and telemetry messages a second each key is allowed, 1000 if zero; Burst is how many
	// at once, 2000 if zero.
	Rate  float64
	Burst int
}

// Permit lets a signer command an output.
type Permit struct {
	Signer, Output string
	Actions        []string // of ActionOn, ActionOff, ActionToggle; at least one
}

// The actions of a [Permit].
const (
	ActionOn     = "on"
	ActionOff    = "off"
	ActionToggle = "toggle"
)

// TelemetryRule lets a signer publish telemetry on the topics that match Filter, which begins with "telemetry/".
type TelemetryRule struct {
	Signer, Filter string
	MaxAge         time.Duration // 5 minutes if zero
}

// LegacyKey is a key that commands an output in the legacy format, on one topic, and is of no use for anything else.
// What its signer may do is in the permits.
type LegacyKey struct {
	Signer string
	Topic  string // one that commands an output
	Hash   boxtec.Hash
	Key    *signing.PublicKey
}

// Stats counts what [Agent.Counters] does not.
type Stats struct {
	Telemetry  uint64 // accepted and published as verified
	Unjudged   uint64 // of these: accepted by sequence alone, the clock not being trusted
	Unanswered uint64 // verdicts not sent: beyond the key's rate, or for want of room
}
