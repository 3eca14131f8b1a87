package main

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
)

// maxExamples is how many of a row's faults are shown; all of them are counted.
const maxExamples = 5

// row is a line of the table. Its methods are safe for concurrent use.
type row struct {
	what string

	mu       sync.Mutex
	tried    int
	wrong    int
	examples []string
	notes    []string
}

func newRow(what string) *row { return &row{what: what} }

// try counts what was tried.
func (r *row) try(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried += n
}

// fail counts one thing that went wrong.
func (r *row) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong++
	if len(r.examples) < maxExamples {
		r.examples = append(r.examples, fmt.Sprintf(format, args...))
	}
}

// note adds what was measured beside.
func (r *row) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// table is what the rows of a run add up to.
type table struct {
	rows []*row
	took time.Duration
}

func (t *table) wrong() (sum int) {
	for _, r := range t.rows {
		sum += r.wrong
	}
	return sum
}

func (t *table) write(to io.Writer) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%9s%7s  %s\n", "tried", "wrong", "what")
	for _, r := range t.rows {
		fmt.Fprintf(&text, "%9d%7d  %s\n", r.tried, r.wrong, r.what)
		for _, note := range r.notes {
			fmt.Fprintf(&text, "%16s    %s\n", "", note)
		}
		for _, example := range r.examples {
			fmt.Fprintf(&text, "%16s  ! %s\n", "", example)
		}
	}
	fmt.Fprintf(&text, "\n%d wrong; %s on %s/%s, %d processors, %s\n", t.wrong(), t.took.Round(time.Second),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	_, err := to.Write(text.Bytes())
	return err
}
