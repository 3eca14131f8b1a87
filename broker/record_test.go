package broker_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"pinseal/broker"
)

// FuzzRecords: a stored value is refused, or read as what it says; writing that reads as the same again.
func FuzzRecords(f *testing.F) {
	records := broker.Records()
	f.Fuzz(func(t *testing.T, b []byte) {
		for kind, again := range records {
			once, err := again(b)
			if err != nil {
				continue
			}
			twice, err := again(once)
			if err != nil || !bytes.Equal(once, twice) {
				t.Errorf("%s % x is written as % x, and that as % x, %v", kind, b, once, twice, err)
			}
		}
	})
}

// TestFuzzRecordsSeeds: a fuzz target whose seeds are gone tests nothing.
func TestFuzzRecordsSeeds(t *testing.T) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzRecords/*")
	if err != nil || len(seeds) < 4 {
		t.Errorf("%d seeds, %v", len(seeds), err)
	}
}

func TestRecordsRefused(t *testing.T) {
	for _, tc := range []struct {
		name, kind string
		record     []byte
	}{
		{"empty", "message", nil},
		{"without topic", "message", []byte{1, 0, 0, 0, 0, 0}},
		{"QoS 3", "message", []byte{3, 0, 0, 1, 'x', 0, 0}},
		{"cut", "message", []byte{1, 0, 0, 9, 'x', 0, 0}},
		{"byte too many", "message", []byte{1, 0, 0, 1, 'x', 0, 0, 0}},
		{"unknown flags", "message", []byte{0x80, 1, 0, 0, 1, 'x', 0, 0}},
		{"version 6", "session", []byte{0, 6, 0, 0, 0}},
		{"will cut", "session", []byte{2, 5, 0, 0, 0}},
		{"QoS 3", "subscription", []byte{3, 0, 0}},
		{"retain handling 3", "subscription", []byte{1, 3, 0}},
		{"without identifier", "delivery", []byte{1, 0, 1, 0}},
		{"QoS 0", "delivery", []byte{0, 1, 1, 0}},
		{"without message", "delivery", []byte{1, 1, 0, 0}},
		{"identifiers cut", "delivery", []byte{1, 1, 1, 2, 1}},
	} {
		if again, err := broker.Records()[tc.kind](tc.record); err == nil {
			t.Errorf("%s, %s: read as % x", tc.kind, tc.name, again)
		}
	}
}
