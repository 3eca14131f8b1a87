package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table aligns rows in columns; it shows nothing before flush.
type table struct{ writer *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)} }

// row adds one; an empty cell shows as a dash.
func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = orDefault(cell, "-")
	}
	// tabwriter keeps the first error for Flush.
	_, _ = fmt.Fprintln(t.writer, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.writer.Flush() }
