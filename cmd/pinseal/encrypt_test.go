package main

import "testing"

func TestOverlap(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a/b", "a", false},
		{"+", "a", true},
		{"+/b", "a/+", true},
		{"+/b", "a/c", false},
		{"#", "a/b", true},
		{"a/#", "a", true},
		{"a/#", "b", false},
		{"a/#", "+/b", true},
		{"telemetry/+/presence", "telemetry/sensor-1/#", true},
		{"telemetry/sensor-2/#", "telemetry/sensor-1/#", false},
		{"ledStatus", "telemetry/sensor-1/#", false},
	} {
		if overlap(test.a, test.b) != test.want || overlap(test.b, test.a) != test.want {
			t.Errorf("%s and %s: want %v", test.a, test.b, test.want)
		}
	}
}
