package agent

import (
	"context"
	"log/slog"
	"net"
	"time"

	"pinseal/agent/actuator"
	"pinseal/agent/outbox"
	"pinseal/signing"
	"pinseal/signing/boxtec"
	"pinseal/signing/encryption"
	"pinseal/signing/replay"
)

// Actuator is what carries out the commands of an output. *actuator.Actuator is one. The agent calls Do for one output
// from one goroutine at a time.
type Actuator interface {
	// Do carries out a command and returns when the line has changed. The detail says how a safety rule changed what was
	// asked for; where one forbids it, the error is an actuator.RefusedError.
	Do(c actuator.Command) (detail string, err error)
	// Status shows the output as it is.
	Status() actuator.Status
	// Watch has f called after every change of the status, those by Do before it returns.
	Watch(f func())
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
	// PlainTopic commands it without a signature. Empty, as it should be, there is none.
	PlainTopic string
	// PlainActions are those that PlainTopic may ask for: on and off if there are none here.
	PlainActions []actuator.Action
	// PlainRate is how many unsigned commands a second are taken, 100 if zero; PlainBurst how many at once, 200 if zero.
	PlainRate  float64
	PlainBurst int
	// Dims says that the output knows levels between off and on. Others refuse a brightness.
	Dims     bool
	Actuator Actuator
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
	// OnBroker is told when the broker can be heard, and when not; may be nil. It must not block.
	OnBroker func(up bool)
	// Discovery may be nil.
	Discovery *Discovery
	// ServeTime answers those who ask this node for the time, on [TimeRequestTopic], while its clock is trusted.
	ServeTime bool
	// TimeFrom names the signer in the policy, a node that serves the time, who is asked for it when TellTime wants to be
	// told. Without it TellTime is not used.
	TimeFrom string
	TellTime TimeTaker
	// Receiver names the signer in the policy, a node, whom the telemetry of this one is for: it is kept in Outbox, which
	// the caller closes after Run, until that node has acknowledged it. Without it telemetry is for whoever listens.
	Receiver string
	Outbox   *outbox.Box
	// QueueLength is how many messages of one topic may be under way, 4096 if zero. At most 4 MiB of them are, anyhow.
	QueueLength int
}

// Policy says who may do what. It must not be changed once it was given to an agent; make a new one for SetPolicy.
type Policy struct {
	Keyring   *signing.Keyring
	Permits   []Permit
	Telemetry []TelemetryRule
	Legacy    []LegacyKey
	// Encryption says what is encrypted, and Keys opens what is encrypted to the node; may be nil.
	Encryption []EncryptionRule
	Keys       *encryption.Keys
	// MaxAge is how old a command may be: 30 s if zero, at most 60 s.
	MaxAge time.Duration
	// Rate is how many commands and telemetry messages a second each key is allowed, 1000 if zero; Burst is how many
	// at once, 2000 if zero.
	Rate  float64
	Burst int
}

// Permit lets a signer command an output. Where several name both, each action counts as the most lenient says.
type Permit struct {
	Signer, Output string
	Actions        []actuator.Action // at least one
	// MaxOn is for how long the signer may have the output on; 0 is no limit but the output's own.
	MaxOn time.Duration
}

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
	Telemetry  uint64 // accepted, and published as verified unless it is encrypted
	Unjudged   uint64 // of these: accepted by sequence alone, the clock not being trusted
	Unanswered uint64 // verdicts not sent: beyond the key's rate, or for want of room
}
