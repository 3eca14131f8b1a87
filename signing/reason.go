package signing

import "fmt"

// Reason says in one word why a message was refused, or that it was applied.
// The list is fixed: it is part of the format and of every verdict.
type Reason string

// The reasons, in the order of the steps that give them.
const (
	ReasonRetained            Reason = "retained"             // a command stored by a broker
	ReasonMalformed           Reason = "malformed"            // not a sealed message of this format
	ReasonUnknownKey          Reason = "unknown-key"          // no trusted key has this kid
	ReasonRateLimited         Reason = "rate-limited"         // more than the key's own rate
	ReasonBadSignature        Reason = "bad-signature"        // the key did not make this signature
	ReasonWrongTopic          Reason = "wrong-topic"          // sealed for another topic
	ReasonNotPermitted        Reason = "not-permitted"        // the signer may not do this here
	ReasonStale               Reason = "stale"                // too old, or expired
	ReasonFuture              Reason = "future"               // sealed too far ahead of the receiver's clock
	ReasonClockUnsynchronised Reason = "clock-unsynchronised" // the receiver cannot judge the time
	ReasonBadCommand          Reason = "bad-command"          // genuine, but not a command
	ReasonReplay              Reason = "replay"               // a sequence number already passed
	ReasonDuplicate           Reason = "duplicate"            // the very message accepted before
	ReasonEquivocation        Reason = "equivocation"         // an accepted number with other content
	ReasonHardware            Reason = "hardware"             // accepted, but the line could not be driven
	ReasonApplied             Reason = "applied"              // done
)

// Reasons returns every reason of the format, in a slice of the caller's own.
func Reasons() []Reason {
	return []Reason{
		ReasonMalformed, ReasonUnknownKey, ReasonBadSignature, ReasonWrongTopic,
		ReasonNotPermitted, ReasonStale, ReasonFuture, ReasonClockUnsynchronised,
		ReasonBadCommand, ReasonReplay, ReasonDuplicate, ReasonEquivocation,
		ReasonRetained, ReasonRateLimited, ReasonHardware, ReasonApplied,
	}
}

// RefusedError says why a message was refused. Detail is for people; it never
// holds bytes of the message, so it may be logged.
type RefusedError struct {
	Reason Reason
	Detail string
}

// Error returns the reason and, if there is one, the detail.
func (e *RefusedError) Error() string {
	if e.Detail == "" {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + e.Detail
}

// Refuse returns a *[RefusedError]. The caller keeps payload bytes out of args.
func Refuse(r Reason, format string, args ...any) error {
	if len(args) == 0 {
		return &RefusedError{Reason: r, Detail: format}
	}
	return &RefusedError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}
