package main

import (
	"strings"
	"testing"
)

// TestLengthsNeedUnits: a number without a unit would be taken for nanoseconds, which no safety rule survives.
func TestLengthsNeedUnits(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"in a block", "[[output]]\nname = \"a\"\nline = \"GPIO1\"\n\n[[output]]\nname = \"b\"\nline = \"GPIO2\"\nmax_on = 30\n", `9:10: max_on: 30 has no unit`},
		{"in a table", "[agent]\nmax_age = 5\n", `3:11: max_age: 5 has no unit`},
		{"zero", "[[input]]\nname = \"a\"\nline = \"GPIO1\"\ndebounce = 0\n", `5:12: debounce: 0 has no unit`},
		{"a fraction", "[enrol]\naddress = \":8443\"\nlifetime = 1.5\n", `4:12: lifetime: 1.5 has no unit`},
		{"a nested table", "[auth.token]\nrefresh = 15\n", `refresh: 15 has no unit`},
		{"text for a number", "[limits]\nmax_connections = \"many\"\n", `3:19: limits.max_connections: cannot be of the kind string`},
		{"a number for text", "[gpio]\nchip = 4\n", `3:8: gpio.chip: cannot be of the kind integer`},
		{"no quotes", "[gpio]\nchip = sim\n", `3:8: this is no value: text stands in quotes`},
		{"no", "[reload]\non_change = no\n", `3:13: this is no value: text stands in quotes`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig([]byte("node = \"n\"\n" + test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}
