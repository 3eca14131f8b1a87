package replay

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Outcome is what a sequence number is, compared with those accepted before.
type Outcome uint8

// The outcomes.
const (
	// New was not accepted before; from now on it was.
	New Outcome = iota + 1
	// Duplicate is an accepted message once more, the same signed bytes.
	Duplicate
	// Replay is a number that can no longer be accepted.
	Replay
	// Equivocation is an accepted number with other signed bytes: the signer, or
	// a thief of its key, used one number twice.
	Equivocation
)

// String returns the outcome's name in lower case.
func (o Outcome) String() string {
	switch o {
	case New:
		return "new"
	case Duplicate:
		return "duplicate"
	case Replay:
		return "replay"
	case Equivocation:
		return "equivocation"
	}
	return "unknown"
}

// kind is a way of judging, and the bucket of the records judged so.
type kind string

const (
	commands  kind = "commands"
	telemetry kind = "telemetry"
	legacy    kind = "legacy"
)

// most is how many entries a record of this kind holds.
func (k kind) most() int {
	if k == commands {
		return 1
	}
	return 64
}

// recordKey names a record.
type recordKey struct {
	kind kind
	kid  string
	name string // output, topic, or empty
}

// maxNameBytes is above what any kid or topic can be, and with two of them
// far below the longest key of bbolt (32768 bytes): a record that bbolt refuses
// would spoil the commit of all others.
const maxNameBytes = 1024

func (k recordKey) bytes() []byte {
	b := make([]byte, 0, 2+len(k.kid)+len(k.name))
	b = binary.BigEndian.AppendUint16(b, uint16(len(k.kid))) //nolint:gosec // at most maxNameBytes
	b = append(b, k.kid...)
	return append(b, k.name...)
}

func parseRecordKey(k kind, b []byte) (recordKey, error) {
	if len(b) < 2 {
		return recordKey{}, fmt.Errorf("%w: a record has a short key", ErrDamaged)
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return recordKey{}, fmt.Errorf("%w: a record has a short key", ErrDamaged)
	}
	return recordKey{kind: k, kid: string(b[:n]), name: string(b[n:])}, nil
}

// entry is one accepted message.
type entry struct {
	number uint64
	digest [32]byte
}

// entries are what a record remembers, ascending by number.
type entries []entry

// acceptHighest judges by the rule of commands (most = 1) and telemetry
// (most = 64), and remembers what is New.
func (es *entries) acceptHighest(e entry, most int) Outcome {
	i, found := slices.BinarySearchFunc(*es, e.number, func(e entry, n uint64) int { return cmp.Compare(e.number, n) })
	switch {
	case found && (*es)[i].digest == e.digest:
		return Duplicate
	case found:
		return Equivocation
	case len(*es) < most:
		*es = slices.Insert(*es, i, e)
	case i == 0:
		return Replay
	default: // the lowest makes room
		copy(*es, (*es)[1:i])
		(*es)[i-1] = e
	}
	return New
}

// acceptSecond judges by the rule of the legacy format, and remembers what is New.
func (es *entries) acceptSecond(e entry, most int) Outcome {
	if len(*es) == 0 || e.number > (*es)[0].number {
		*es = append((*es)[:0], e)
		return New
	}
	switch {
	case e.number < (*es)[0].number:
		return Replay
	case slices.Contains(*es, e):
		return Duplicate
	case len(*es) == most:
		return Replay
	}
	*es = append(*es, e)
	return New
}

const entryBytes = 8 + 32

// marshal returns the value to store.
func (es entries) marshal() []byte {
	b := make([]byte, 0, len(es)*entryBytes)
	for _, e := range es {
		b = binary.BigEndian.AppendUint64(b, e.number)
		b = append(b, e.digest[:]...)
	}
	return b
}

func parseEntries(k kind, b []byte) (entries, error) {
	n := len(b) / entryBytes
	if n == 0 || n > k.most() || len(b)%entryBytes != 0 {
		return nil, fmt.Errorf("%w: a record has a wrong length", ErrDamaged)
	}
	es := make(entries, n)
	for i := range es {
		es[i].number = binary.BigEndian.Uint64(b[i*entryBytes:])
		copy(es[i].digest[:], b[i*entryBytes+8:])
	}
	return es, nil
}
