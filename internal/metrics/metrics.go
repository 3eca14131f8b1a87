// Package metrics writes numbers in the text format that Prometheus reads (text exposition format 0.0.4).
//
// Whoever has something to tell is a [Collector]: it is called for each reading and adds what it knows at that moment.
// Nothing is kept in between, so what a metric shows and what the program itself goes by are the same number.
package metrics

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the media type of what [Writer.WriteTo] writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Collector adds what it knows to a reading. It must be safe for concurrent use.
type Collector func(*Writer)

// Writer collects one reading. Its zero value is ready for use; it is not safe for concurrent use.
type Writer struct {
	families map[string]*family
	err      error // the first mistake of a collector
}

// family is a metric with all its series.
type family struct {
	kind, help string
	series     map[string]float64 // by their labels
}

// Counter adds a number that only grows while the program runs; its name ends in _total. labels are names and values in
// turn. The same name has the same help everywhere, and the same name with the same labels is given once.
func (w *Writer) Counter(name, help string, value uint64, labels ...string) {
	if !strings.HasSuffix(name, "_total") {
		w.mistake("counter %s does not end in _total", name)
	}
	w.add("counter", name, help, float64(value), labels)
}

// Gauge adds a number that goes up and down.
func (w *Writer) Gauge(name, help string, value float64, labels ...string) {
	w.add("gauge", name, help, value, labels)
}

// Bool is 1 for true.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (w *Writer) mistake(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *Writer) add(kind, name, help string, value float64, labels []string) {
	if w.families == nil {
		w.families = map[string]*family{}
	}
	f := w.families[name]
	if f == nil {
		f = &family{kind, help, map[string]float64{}}
		w.families[name] = f
		if !validName(name) {
			w.mistake("%q is not the name of a metric", name)
		}
	}
	text := w.labels(name, labels)
	if _, twice := f.series[text]; twice || f.kind != kind || f.help != help {
		w.mistake("metric %s%s is given twice", name, text)
	}
	f.series[text] = value
}

func validName(name string) bool {
	return regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`).MatchString(name) // neither colons nor UTF-8, so that it is a label's too
}

func (w *Writer) labels(name string, labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	if len(labels)%2 != 0 {
		w.mistake("metric %s has a label without a value", name)
		return ""
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var parts []string
	for pair := range slices.Chunk(labels, 2) {
		if !validName(pair[0]) {
			w.mistake("%q of metric %s is not the name of a label", pair[0], name)
		}
		parts = append(parts, fmt.Sprintf(`%s="%s"`, pair[0], escape.Replace(strings.ToValidUTF8(pair[1], "\uFFFD"))))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// WriteTo writes the reading, ordered by name. A mistake of a collector is an error, and nothing is written.
func (w *Writer) WriteTo(to io.Writer) (int64, error) {
	if w.err != nil {
		return 0, w.err
	}
	var text strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	for _, name := range slices.Sorted(maps.Keys(w.families)) {
		f := w.families[name]
		fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s %s\n", name, escape.Replace(f.help), name, f.kind)
		for _, labels := range slices.Sorted(maps.Keys(f.series)) {
			text.WriteString(name + labels + " " + strconv.FormatFloat(f.series[labels], 'g', -1, 64) + "\n")
		}
	}
	n, err := io.WriteString(to, text.String())
	return int64(n), err
}
