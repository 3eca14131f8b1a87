package main

import (
	"errors"
	"fmt"
	"regexp"

	"pinseal/gpio"
)

type (
	pwmChannel string // "software", or CHIP/NUMBER
	hertz      int    // from gpio.MinFrequency to gpio.MaxFrequency; 0 is the default
)

const pwmSoftware = "software"

// Frequencies that do not flicker: as low as that for software, which pays for each period, and high enough for
// hardware that nothing hums.
const (
	softwareFrequency = 200
	hardwareFrequency = 1000
)

func (p pwmChannel) check() error {
	if p == pwmSoftware || regexp.MustCompile(`^[A-Za-z0-9._:-]+/[0-9]+$`).MatchString(string(p)) {
		return nil
	}
	return fmt.Errorf(`%q is neither "software" nor a channel such as "pwmchip0/0" or "fe20c000.pwm/0"`, p)
}

func (p pwmChannel) hardware() bool { return p != "" && p != pwmSoftware }

func (h hertz) check() error {
	if h < gpio.MinFrequency || h > gpio.MaxFrequency {
		return fmt.Errorf("a frequency is from %d to %d Hz", gpio.MinFrequency, gpio.MaxFrequency)
	}
	return nil
}

// where names what the output drives: a line or a PWM channel.
func (o outputConfig) where() string {
	if o.PWM.hardware() {
		return string(o.PWM)
	}
	return o.Line
}

// frequency of the PWM in hertz.
func (o outputConfig) frequency() int {
	switch {
	case o.PWMFrequency > 0:
		return int(o.PWMFrequency)
	case o.PWM.hardware():
		return hardwareFrequency
	}
	return softwareFrequency
}

// driver is what an output drives. Levels are from 0, off, to 255.
type driver interface {
	Drive(level uint8) error
	Level() uint8
	// Close drives the exit level and lets go.
	Close() error
}

// errNoPWM: the simulated chip has no channels.
var errNoPWM = errors.New(`the simulated chip has no PWM channels; write pwm = "software"`)

// openDriver claims what an output drives, at its initial level or another.
func openDriver(chip gpio.Chip, simulated bool, o outputConfig, initial bool) (d driver, err error) {
	switch {
	case o.PWM.hardware() && simulated:
		return nil, errNoPWM
	case o.PWM.hardware():
		d, err = gpio.OpenPWM(gpio.PWMConfig{
			Folder: gpio.PWMFolder, Channel: string(o.PWM), ActiveLow: o.ActiveLow, Initial: initial, Exit: bool(o.Exit), Frequency: o.frequency(),
		})
	case o.PWM == pwmSoftware:
		d, err = gpio.OpenDimmer(chip, gpio.DimmerConfig{
			Line: o.Line, ActiveLow: o.ActiveLow, Initial: initial, Exit: bool(o.Exit), Frequency: o.frequency(),
		})
	default:
		d, err = gpio.OpenOutput(chip, gpio.OutputConfig{Line: o.Line, ActiveLow: o.ActiveLow, Initial: initial, Exit: bool(o.Exit)})
	}
	if err != nil {
		return nil, err // and no driver that is a nil pointer
	}
	return d, nil
}
