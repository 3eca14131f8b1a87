package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// listFlag is what every command has that prints a table.
type listFlag struct {
	JSON bool `name:"json" help:"For scripts: an array of objects, whose members are called as the columns."`
}

// table starts one with these columns.
func (f listFlag) table(w io.Writer, columns ...string) *table {
	t := newTable(w)
	if f.JSON {
		t.objects = []map[string]string{} // an empty table is an array, too
		for _, column := range columns {
			t.members = append(t.members, strings.ReplaceAll(strings.ToLower(column), " ", "_"))
		}
		return t
	}
	t.row(columns...)
	return t
}

// table aligns rows in columns, or makes an object of each; it shows nothing before flush.
type table struct {
	out     io.Writer
	writer  *tabwriter.Writer
	members []string            // of an object
	objects []map[string]string // nil: columns
}

func newTable(w io.Writer) *table {
	return &table{out: w, writer: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
}

// row adds one; an empty cell shows as a dash, and is no member of an object.
func (t *table) row(cells ...string) {
	if t.objects != nil {
		object := map[string]string{}
		for i, cell := range cells {
			if cell != "" {
				object[t.members[i]] = cell
			}
		}
		t.objects = append(t.objects, object)
		return
	}
	for i, cell := range cells {
		cells[i] = orDefault(cell, "-")
	}
	// tabwriter keeps the first error for Flush.
	_, _ = fmt.Fprintln(t.writer, strings.Join(cells, "\t"))
}

func (t *table) flush() error {
	if t.objects != nil {
		return writeJSON(t.out, t.objects)
	}
	return t.writer.Flush()
}

// writeJSON writes a value and a line feed, without escapes that only HTML needs.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
