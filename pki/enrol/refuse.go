package enrol

import (
	"errors"
	"fmt"
	"net/http"

	"pinseal/pki"
)

// Reason says in one word why somebody was not let in. The list is fixed, and
// goes on with that of [pki.Reason].
type Reason = pki.Reason

// The reasons beside those of a signing request.
const (
	ReasonNoCode       Reason = "no-code"              // neither code, nor token, nor certificate
	ReasonWrongCode    Reason = "wrong-code"           // not the one that this name was given, or it was given none
	ReasonUsedCode     Reason = "used-code"            // it was used before
	ReasonExpiredCode  Reason = "expired-code"         // it was right once
	ReasonRateLimited  Reason = "rate-limited"         // too many wrong codes or requests from this address, or renewals of this name
	ReasonWrongToken   Reason = "wrong-token"          // no operator has it
	ReasonNotPermitted Reason = "not-permitted"        // this name cannot be had this way
	ReasonKnownKey     Reason = "known-key"            // the signing key is trusted already, or was revoked, or is the TLS key or one for encryption too
	ReasonClock        Reason = "clock-unsynchronised" // the node does not know from when to when
	ReasonFailed       Reason = "failed"               // not the asker's fault
)

func refuse(reason Reason, format string, args ...any) error {
	return &pki.RefusedError{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// reasonOf finds why; whatever is no refusal is a failure of our own.
func reasonOf(err error) Reason {
	if refused, ok := errors.AsType[*pki.RefusedError](err); ok {
		return refused.Reason
	}
	return ReasonFailed
}

// status is the HTTP status that goes with a reason.
func status(reason Reason) int {
	switch reason {
	case ReasonNoCode, ReasonWrongCode, ReasonUsedCode, ReasonExpiredCode, ReasonWrongToken:
		return http.StatusUnauthorized
	case ReasonRateLimited:
		return http.StatusTooManyRequests
	case ReasonNotPermitted, ReasonKnownKey, pki.ReasonOtherName, pki.ReasonOutsideProfile:
		return http.StatusForbidden
	case pki.ReasonOversized:
		return http.StatusRequestEntityTooLarge
	case ReasonClock:
		return http.StatusServiceUnavailable
	case ReasonFailed:
		return http.StatusInternalServerError
	default:
		return http.StatusBadRequest
	}
}
