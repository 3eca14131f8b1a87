package gpiotest_test

import (
	"testing"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

func TestFakeConforms(t *testing.T) {
	gpiotest.Conformance(t, func(*testing.T) gpiotest.Bench {
		c := gpiotest.New()
		return gpiotest.Bench{Chip: c, Drive: func(_ *testing.T, line string, l gpio.Level) { c.Drive(line, l) }}
	})
}
