package actuator

import (
	"errors"
	"fmt"
	"time"
)

// Rules are the safety rules of an output. A zero field is no rule. They win over every command.
type Rules struct {
	// MaxOn is the longest that the output is on without a break, counted from when it left off, whatever is commanded
	// meanwhile; blinking counts as on.
	MaxOn time.Duration
	// MinOn is the shortest that it is on. Another rule may end it sooner.
	MinOn time.Duration
	// MinOff is the shortest that it is off, counted from the start after a restart.
	MinOff time.Duration
	// Switches is how often it is switched on at most in any Window.
	Switches int
	Window   time.Duration
	// Hold is how long after the last signed command that asked for on it goes off.
	Hold time.Duration
	// Lost is for how long the broker may be away before the output goes to its exit level.
	Lost time.Duration
	// ExitOn says that the exit level is on: what is safe for this output.
	ExitOn bool
	// Lock is shared by the outputs of a group of which at most one may be on; nil: none.
	Lock *Interlock
}

// The names of the rules as the configuration, the details of verdicts and the status have them.
const (
	RuleMaxOn     = "max_on"
	RulePermit    = "permit" // max_on of who commanded
	RuleMinOn     = "min_on"
	RuleMinOff    = "min_off"
	RuleSwitches  = "max_switches"
	RuleHold      = "hold"
	RuleLost      = "broker_lost"
	RuleWatchdog  = "watchdog"
	RuleInterlock = "interlock"
)

// Check refuses rules that contradict each other, or an output that is on without a command although its rules want to
// know since when. initialOn is the level at the start.
func (r Rules) Check(initialOn bool) error {
	for _, length := range []time.Duration{r.MaxOn, r.MinOn, r.MinOff, r.Window, r.Hold, r.Lost} {
		if length < 0 {
			return errors.New("a length of time is negative")
		}
	}
	switch {
	case r.Switches < 0 || r.Switches > MaxCount:
		return fmt.Errorf("max_switches is not from 1 to %d", MaxCount)
	case r.Switches > 0 && r.Window == 0:
		return errors.New("max_switches needs a switch_window")
	case r.MaxOn > 0 && r.MinOn > r.MaxOn:
		return errors.New("min_on is longer than max_on")
	case r.Hold > 0 && r.MinOn > r.Hold:
		return errors.New("min_on is longer than hold")
	}
	if !initialOn && !r.ExitOn {
		return nil
	}
	for name, set := range map[string]bool{
		RuleMaxOn: r.MaxOn > 0, RuleMinOff: r.MinOff > 0, RuleSwitches: r.Switches > 0, RuleHold: r.Hold > 0, RuleInterlock: r.Lock != nil,
	} {
		if set {
			return fmt.Errorf("an output with %s cannot be on when the node starts or stops: every restart would escape the rule", name)
		}
	}
	return nil
}

// RefusedError is a command that a rule does not let happen. Nothing changed.
type RefusedError struct {
	Rule   string // one of the names above
	Detail string // for who commanded
}

func (e *RefusedError) Error() string { return fmt.Sprintf("by %s: %s", e.Rule, e.Detail) }

func refused(rule, format string, args ...any) error {
	return &RefusedError{Rule: rule, Detail: fmt.Sprintf(format, args...)}
}

// inSeconds words a length of time: "600 s", "0.25 s".
func inSeconds(d time.Duration) string {
	return fmt.Sprintf("%v s", float64(max(d, time.Millisecond).Round(time.Millisecond).Milliseconds())/1000) // Seconds says 1.6680000000000001
}
