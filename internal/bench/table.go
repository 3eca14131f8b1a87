package main

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// The rows that are named in more than one place.
const (
	rowRate   = "signed commands acted on, a second"
	rowLost   = "commands lost under that load"
	rowCPU    = "processor time of broker and agent for a command then, µs"
	rowOwn    = "processor time of the load generator for a command then, µs"
	rowMemory = "resident memory of broker and agent after it, MB"
	rowStart  = "start to first command acted on, ms"
	rowES256  = "opening a sealed ES256 message / bare P-256 verification, µs"
	rowES256K = "opening a sealed ES256K message / bare secp256k1 verification, µs"
	rowDisk50 = "fdatasync p50"
	rowDisk99 = "fdatasync p99"
	rowShare  = "commands acted on / what all processors can verify in bare P-256, a second"
)

// row is a row of the table: two figures and their ratio, by the names of who gave them.
type row struct {
	name        string
	left, right string // names of stacks, or bare
	digits      int
}

// bare gives the figures of the curve operation alone.
const bare = "bare"

func rows() []row {
	var list []row
	for _, p := range paces() {
		list = append(list, row{p.p50, nameOurs, nameTheirs, 2}, row{p.p99, nameOurs, nameTheirs, 2})
	}
	return append(list,
		row{rowRate, nameOurs, nameTheirs, 0},
		row{rowLost, nameOurs, nameTheirs, 0},
		row{rowCPU, nameOurs, nameTheirs, 0},
		row{rowOwn, nameOurs, nameTheirs, 0},
		row{rowMemory, nameOurs, nameTheirs, 1},
		row{rowStart, nameOurs, nameTheirs, 0},
		row{rowES256, nameOurs, bare, 1},
		row{rowES256K, nameOurs, bare, 1},
		row{rowShare, nameOurs, bare, 0},
	)
}

// results collects figures by who gave them and row.
type results map[string]map[string][]float64

func (r results) add(who string, f figures) {
	if r[who] == nil {
		r[who] = map[string][]float64{}
	}
	for row, value := range f {
		r[who][row] = append(r[who][row], value)
	}
}

// write prints the one table, medians over the rounds.
func (r results) write(to io.Writer, rounds int, took time.Duration) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "medians of %d rounds in turns, %s; %s/%s, %d processors, %s\n", rounds, took.Round(time.Second),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	fmt.Fprintf(&text, "an fdatasync of 4 KiB on this disk: p50 %.2f ms, p99 %.2f ms\n\n",
		median(r[bare][rowDisk50]), median(r[bare][rowDisk99]))
	fmt.Fprintf(&text, "%10s%12s%8s\n", "pinseal", "other", "ratio")
	for _, row := range rows() {
		left, right := median(r[row.left][row.name]), median(r[row.right][row.name])
		fmt.Fprintf(&text, "%10.*f%12.*f%8s  %s\n", row.digits, left, row.digits, right, ratio(left, right), row.name)
	}
	fmt.Fprintf(&text, "\nother: %s, unless the row names another\n", nameTheirs)
	_, err := to.Write(text.Bytes())
	return err
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
