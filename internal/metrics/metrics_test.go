package metrics_test

import (
	"math"
	"strings"
	"testing"

	"pinseal/internal/metrics"
)

func TestText(t *testing.T) {
	var w metrics.Writer
	w.Gauge("b", "Back\\slash\nand line.", math.Inf(1))
	w.Counter("a_total", "Counts.", 1<<53, "reason", "x", "who", "quote\" back\\ line\n bad\xff")
	w.Counter("a_total", "Counts.", 0, "reason", "w", "who", "")
	w.Gauge("c", "Halves.", metrics.Bool(true)/2)
	w.Gauge("d", "Nothing.", metrics.Bool(false))
	want := `# HELP a_total Counts.
# TYPE a_total counter
a_total{reason="w",who=""} 0
a_total{reason="x",who="quote\" back\\ line\n bad` + "\uFFFD" + `"} 9.007199254740992e+15
# HELP b Back\\slash\nand line.
# TYPE b gauge
b +Inf
# HELP c Halves.
# TYPE c gauge
c 0.5
# HELP d Nothing.
# TYPE d gauge
d 0
`
	var got strings.Builder
	if n, err := w.WriteTo(&got); err != nil || got.String() != want || n != int64(len(want)) {
		t.Errorf("%d, %v\n%s\nwant\n%s", n, err, got.String(), want)
	}
}

func TestMistakes(t *testing.T) {
	for name, collect := range map[string]metrics.Collector{
		"a name with a dash":      func(w *metrics.Writer) { w.Gauge("a-b", "", 1) },
		"no name":                 func(w *metrics.Writer) { w.Gauge("", "", 1) },
		"a counter like a gauge":  func(w *metrics.Writer) { w.Counter("a", "", 1) },
		"a label without a value": func(w *metrics.Writer) { w.Gauge("a", "", 1, "x") },
		"a label with a dash":     func(w *metrics.Writer) { w.Gauge("a", "", 1, "x-y", "z") },
		"twice":                   func(w *metrics.Writer) { w.Gauge("a", "", 1, "x", "y"); w.Gauge("a", "", 2, "x", "y") },
		"two helps":               func(w *metrics.Writer) { w.Gauge("a", "", 1, "x", "y"); w.Gauge("a", "b", 2, "x", "z") },
		"of two kinds":            func(w *metrics.Writer) { w.Counter("a_total", "", 1); w.Gauge("a_total", "", 2, "x", "z") },
	} {
		var w metrics.Writer
		collect(&w)
		var got strings.Builder
		if _, err := w.WriteTo(&got); err == nil || got.Len() > 0 {
			t.Errorf("%s: no error, and %q", name, got.String())
		}
	}
}
