package actuator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pinseal/internal/atomicfile"
)

// Clock is the node's idea of the time.
type Clock interface {
	Now() time.Time
	// Trusted says whether Now may be used to tell how long something is ago.
	Trusted() bool
}

// File is a Store: one small file, replaced as a whole. How old a record is, it knows for certain within one run of the
// kernel; over a reboot only if the clock was trusted when it was written and is again.
type File struct {
	path  string
	clock Clock
	// Boot names this run of the kernel, and says for how long it lasts. Tests replace it.
	Boot func() (id string, uptime time.Duration, err error)
}

// NewFile keeps a record at path. It touches nothing.
func NewFile(path string, c Clock) *File { return &File{path: path, clock: c, Boot: thisBoot} }

// Kept is a record as it was found.
type Kept struct {
	Record
	file *File
	kept *keptRecord
}

// keptRecord is the file's content. Lengths of time are in nanoseconds.
type keptRecord struct {
	Version  int             `json:"version"`
	Boot     string          `json:"boot"`
	Uptime   time.Duration   `json:"uptime"`
	Time     time.Time       `json:"time"`
	Trusted  bool            `json:"trusted"`
	On       bool            `json:"on"`
	Level    uint8           `json:"level"`
	OnFor    time.Duration   `json:"on_for"`
	Left     time.Duration   `json:"left"`
	Switched []time.Duration `json:"switched"`
}

const keptVersion = 1

// Save implements Store.
func (f *File) Save(r Record) error {
	boot, uptime, err := f.Boot()
	if err != nil {
		return err
	}
	text, err := json.Marshal(keptRecord{
		Version: keptVersion, Boot: boot, Uptime: uptime, Time: f.clock.Now().UTC(), Trusted: f.clock.Trusted(),
		On: r.On, Level: r.Level, OnFor: r.OnFor, Left: r.Left, Switched: r.Switched,
	})
	if err != nil {
		return err
	}
	return atomicfile.Write(f.path, append(text, '\n'), 0o600)
}

// Load reads the record; where there is none it is empty, and no error.
func (f *File) Load() (Kept, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Kept{Record: Record{Left: -1}}, nil
	}
	if err != nil {
		return Kept{}, err
	}
	var k keptRecord
	if err := json.Unmarshal(text, &k); err != nil {
		return Kept{}, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if k.Version != keptVersion || k.OnFor < 0 || k.On && k.Level == 0 {
		return Kept{}, fmt.Errorf("reading %s: not a state of an output", f.path)
	}
	return Kept{Record{k.On, k.Level, k.OnFor, k.Left, k.Switched}, f, &k}, nil
}

// Elapsed says how long ago the record was made, and whether that is known.
func (k Kept) Elapsed() (elapsed time.Duration, known bool) {
	if k.file == nil {
		return 0, true
	}
	boot, uptime, err := k.file.Boot()
	if err == nil && boot == k.kept.Boot && uptime >= k.kept.Uptime {
		return uptime - k.kept.Uptime, true
	}
	elapsed = k.file.clock.Now().Sub(k.kept.Time)
	if !k.kept.Trusted || !k.file.clock.Trusted() || elapsed < 0 {
		return 0, false
	}
	return elapsed, true
}

func thisBoot() (id string, uptime time.Duration, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // random(4)
	if err != nil {
		return "", 0, fmt.Errorf("telling this run of the kernel from others: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return "", 0, fmt.Errorf("reading the uptime: %w", err)
	}
	return strings.TrimSpace(string(text)), time.Duration(now.Nano()), nil
}
