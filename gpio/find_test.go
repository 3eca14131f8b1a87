package gpio_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pinseal/gpio"
)

// chip makes a chip's lines; the offsets count up from 0.
func chip(label string, names ...string) []gpio.LineInfo {
	var lines []gpio.LineInfo
	for i, name := range names {
		lines = append(lines, gpio.LineInfo{Chip: label, Name: name, Offset: i})
	}
	return lines
}

// header is a chip whose lines are named as the mainline kernel names those of a Pi: after their other function.
func header(label string) []gpio.LineInfo {
	names := make([]string, 54)
	for i := range names {
		names[i] = fmt.Sprintf("GPIO%d", i)
	}
	names[2], names[4], names[28] = "SDA1", "GPIO_GCLK", "RGMII_MDIO"
	return chip(label, names...)
}

func TestFindLine(t *testing.T) {
	twins := append(chip("twin", "A", "B"), chip("twin", "B", "C")...)
	for _, c := range []struct {
		name  string
		lines []gpio.LineInfo
		ask   string
		want  string // chip/offset, or what the error says
	}{
		{"exact", header("pinctrl-rp1"), "GPIO17", "pinctrl-rp1/17"},
		{"other case", header("pinctrl-rp1"), "sda1", "pinctrl-rp1/2"},
		{"number", header("other"), "17", "other/17"},
		{"number with prefix", header("other"), "bcm17", "other/17"},
		{"offset", header("other"), "line:4", "other/4"},
		{"offset beyond the names", header("other"), "line:54", "not found"},
		{"offset of a chip without names", chip("bare", "", ""), "line:1", "bare/1"},
		{"number of a header line with another name", header("pinctrl-bcm2711"), "GPIO2", "pinctrl-bcm2711/2"},
		{"bare number of a header line with another name", header("pinctrl-bcm2835"), "4", "pinctrl-bcm2835/4"},
		{"number of a line that is not on the header", header("pinctrl-rp1"), "GPIO28", "not found"},
		{"number of a line with another name, another chip", header("other"), "GPIO2", "not found"},
		{"header chip of an old kernel, without names", chip("pinctrl-bcm2835", make([]string, 54)...), "GPIO17", "pinctrl-bcm2835/17"},
		{"exact before other case", chip("c", "led", "LED"), "LED", "c/1"},
		{"case that could be two", chip("c", "led", "LED"), "Led", "led of c or LED of c"},
		{"on the second of two chips", twins, "C", "twin/1"},
		{"on both of two chips: the first", twins, "B", "twin/1"},
		{"offset on two chips", twins, "line:0", "A of twin or B of twin"},
		{"no name", chip("bare", "", ""), "", "line:0 to line:1"},
		{"no lines", nil, "GPIO17", "no lines"},
		{"swapped digits", header("pinctrl-rp1"), "GPIO71", "GPIO17"},
		{"header name with a typing error", header("pinctrl-rp1"), "GPOI17", "near it: GPIO17"},
		{"number out of range", header("pinctrl-rp1"), "GPIO99999999999999999999", "not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := gpio.FindLine(c.lines, c.ask)
			if err != nil {
				if !errors.Is(err, gpio.ErrLineNotFound) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, want %s", err, c.want)
				}
				return
			}
			if have := fmt.Sprintf("%s/%d", got.Chip, got.Offset); have != c.want {
				t.Errorf("got %s, want %s", have, c.want)
			}
		})
	}
}
