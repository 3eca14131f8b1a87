package sensor_test

import (
	"testing"

	"pinseal/agent/sensor"
)

func TestExpectedUnit(t *testing.T) {
	for _, test := range []struct {
		cfg  sensor.Config
		want string
	}{
		{sensor.Config{Kind: sensor.CPUTemperature}, "Cel"},
		{sensor.Config{Kind: sensor.CPUTemperature, Unit: "K"}, "K"},
		{sensor.Config{Kind: sensor.Memory}, "/100"},
		{sensor.Config{Kind: sensor.Disk, Channel: "available"}, "B"},
		{sensor.Config{Kind: sensor.BME280}, "Cel"},
		{sensor.Config{Kind: sensor.BME280, Channel: "humidity"}, "%RH"},
		{sensor.Config{Kind: sensor.IIO, Channel: "voltage0"}, "V"},
		{sensor.Config{Kind: sensor.Hwmon, Channel: "fan1"}, "1/min"},
		{sensor.Config{Kind: sensor.Hwmon, Channel: "a label"}, ""},
		{sensor.Config{Kind: sensor.Exec}, ""},
	} {
		if got := test.cfg.ExpectedUnit(); got != test.want {
			t.Errorf("%v: %q, want %q", test.cfg, got, test.want)
		}
	}
}
