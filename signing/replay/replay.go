// Package replay remembers which sealed messages were accepted, over restarts
// and power cuts.
package replay

import (
	"errors"
	"os"
	"time"
)

// Outcome is what a sequence number is, compared with those accepted before.
type Outcome uint8

// The outcomes.
const (
	// New was never seen: it is remembered from now on.
	New Outcome = iota + 1
	// Duplicate is an accepted message again, the same bytes.
	Duplicate
	// Replay is a number that is used up.
	Replay
	// Equivocation is an accepted number with other signed bytes: the signer,
	// or someone with its key, sealed two messages with one number.
	Equivocation
)

// String returns the outcome's name in lower case.
func (o Outcome) String() string { return "new" }

// Options are what a Store can be told. The zero value is ready to use.
type Options struct {
	// Since is kept in a file made by this call, and ignored where the file
	// exists. See [Store.Since].
	Since time.Time
	// FlushEvery is how long telemetry may stay in memory; 0 means 5 s.
	FlushEvery time.Duration
	// OpenFile opens the database file; nil is [os.OpenFile].
	OpenFile func(name string, flag int, perm os.FileMode) (*os.File, error)
}

// Store is the memory of one node. It is safe for concurrent use.
type Store struct{}

// Open opens the database at path, or makes it (mode 0600). The caller closes it.
func Open(path string, o Options) (*Store, error) { return nil, errors.New("not yet") }

// Since is the time at or before which a command must have been sealed to be
// refused: zero for a store made with the node, later for one that replaced a
// lost file.
func (s *Store) Since() time.Time { return time.Time{} }

// Command judges a command for an output and, where it is New, uses its number
// up. The decision is made at once, in the order of the calls; it is durable
// when the Commit says so. The Commit is never nil.
func (s *Store) Command(kid, output string, seq uint64, digest [32]byte) (Outcome, *Commit) {
	return Replay, &Commit{}
}

// Commit is the way of one decision to the disk.
type Commit struct{}

// Wait returns nil once the decision is on disk.
func (c *Commit) Wait() error { return nil }

// Telemetry judges a telemetry message and remembers it where it is New.
func (s *Store) Telemetry(kid, topic string, seq uint64, digest [32]byte) Outcome { return Replay }

// Legacy judges a legacy message by the second it carries.
func (s *Store) Legacy(kid string, second int64, digest [32]byte) (Outcome, *Commit) {
	return Replay, &Commit{}
}

// Reset forgets everything of a key, durably.
func (s *Store) Reset(kid string) error { return nil }

// Close writes what is pending and closes the file.
func (s *Store) Close() error { return nil }
