package main

import (
	"errors"
	"fmt"

	"pinseal/gpio"
)

type gpioExitCmd struct {
	dirFlag
	Config string `help:"Read this configuration instead." type:"existingfile" placeholder:"FILE"`
}

// Run drives every output of the configuration to its exit level and lets go of it: what the node itself does when it
// stops, for when it could not. A line that somebody holds, such as a running node, is left alone and is an error.
func (c *gpioExitCmd) Run(std streams) (err error) {
	l := c.layout()
	if c.Config != "" {
		l = l.withConfig(c.Config)
	}
	cfg, err := readConfig(l.config)
	if err != nil {
		return err
	}
	chip, err := openChip(cfg.GPIO.Chip, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	var failed []error // one that cannot be driven must not keep the others on
	for _, o := range cfg.Outputs {
		if err := driveToExit(chip, cfg.GPIO.Chip == "sim", o); err != nil {
			failed = append(failed, fmt.Errorf("output %s: %w", o.Name, err))
			continue
		}
		fmt.Fprintf(std.out, "%s %s\n", o.Name, o.Exit)
	}
	return errors.Join(failed...)
}

func driveToExit(chip gpio.Chip, simulated bool, o outputConfig) error {
	output, err := openDriver(chip, simulated, o, bool(o.Exit))
	if err != nil {
		return err
	}
	return output.Close()
}

// String is the word of the configuration.
func (o onOff) String() string {
	if o {
		return "on"
	}
	return "off"
}
