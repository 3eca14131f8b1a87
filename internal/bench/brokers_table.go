package main

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

const (
	nameMosquitto = "mosquitto"

	rowIdle       = "memory of an idle connection at 1,000, KiB"
	rowHandshakes = "connects a second, 4 at a time"
)

// brokerResults collects costs by broker and row.
type brokerResults map[string]map[string][]cost

func (r brokerResults) add(who, row string, c cost) {
	if r[who] == nil {
		r[who] = map[string][]cost{}
	}
	r[who][row] = append(r[who][row], c)
}

// of is the medians of a row.
func (r brokerResults) of(who, row string) (rate float64, processor time.Duration) {
	var rates, times []float64
	for _, c := range r[who][row] {
		rates, times = append(rates, c.perSecond), append(times, float64(c.processor))
	}
	return median(rates), time.Duration(median(times))
}

// write prints the table: rates, and the processor time behind them.
func (r brokerResults) write(to io.Writer) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "\nthe brokers alone, mutual TLS; CPU is that of the broker for 100,000 deliveries or connects\n\n")
	fmt.Fprintf(&text, "%10s%11s%8s%12s%11s%8s\n", "pinseal", nameMosquitto, "ratio", "pinseal CPU", "its CPU", "ratio")
	for _, m := range measurements() {
		row := m.row
		if len(r[nameOurs][row]) == 0 {
			continue // not asked for
		}
		ours, oursCPU := r.of(nameOurs, row)
		theirs, theirsCPU := r.of(nameMosquitto, row)
		fmt.Fprintf(&text, "%10.0f%11.0f%8s%s  %s\n", ours, theirs, ratio(ours, theirs), cpuColumns(oursCPU, theirsCPU), row)
	}
	_, err := to.Write(text.Bytes())
	return err
}

// cpuColumns is in seconds for 100,000.
func cpuColumns(ours, theirs time.Duration) string {
	if ours == 0 || theirs == 0 {
		return fmt.Sprintf("%12s%11s%8s", "", "", "")
	}
	const many = 100_000
	return fmt.Sprintf("%10.2f s%9.2f s%8s", many*ours.Seconds(), many*theirs.Seconds(), ratio(ours.Seconds(), theirs.Seconds()))
}

func ratio(left, right float64) string {
	if right == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", left/right)
}
