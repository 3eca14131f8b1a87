package gpio_test

import (
	"os"
	"path/filepath"
	"testing"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

func TestSimConforms(t *testing.T) {
	gpiotest.Conformance(t, func(t *testing.T) gpiotest.Bench {
		t.Helper()
		dir := t.TempDir()
		c, err := gpio.OpenSim(dir)
		if err != nil {
			t.Fatal(err)
		}
		return gpiotest.Bench{Chip: c, Drive: func(t *testing.T, line string, l gpio.Level) {
			t.Helper()
			text := map[gpio.Level]string{gpio.Low: "0\n", gpio.High: "1"}[l]
			if err := os.WriteFile(filepath.Join(dir, line), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}}
	})
}
