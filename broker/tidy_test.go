package broker_test

import (
	"testing"

	"pinseal/broker"
)

func TestTidyAfterAWaveOfHandshakes(t *testing.T) {
	var tidier broker.Tidier
	for second, step := range []struct {
		handshakes uint64
		due        bool
	}{
		{0, false},
		{10, false},
		{10, false}, // too few
		{50, false},
		{100, false}, // it goes on
		{100, true},
		{100, false}, // it is over, once
		{130, false},
		{130, false},
		{170, false},
		{170, true},
	} {
		if due := tidier.Due(step.handshakes); due != step.due {
			t.Errorf("second %d, %d handshakes: %v", second, step.handshakes, due)
		}
	}
}
