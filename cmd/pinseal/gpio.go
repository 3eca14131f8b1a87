package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"pinseal/gpio"

	"golang.org/x/sync/errgroup"
)

type gpioCmd struct {
	List    gpioListCmd    `cmd:"" help:"List the lines and who uses them."`
	Set     gpioSetCmd     `cmd:"" help:"Drive a line for as long as the command runs."`
	Pulse   gpioPulseCmd   `cmd:"" help:"Have a line on for a time."`
	Blink   gpioBlinkCmd   `cmd:"" help:"Have a line blink."`
	Watch   gpioWatchCmd   `cmd:"" help:"Print every edge of some lines."`
	Monitor gpioMonitorCmd `cmd:"" help:"Tell how often some lines change, and how briefly."`
	Exit    gpioExitCmd    `cmd:"" name:"exit-levels" hidden:"" help:"Drive every output of the configuration to its exit level."`
}

// chipFlag is --chip of the commands that work on lines without a node.
type chipFlag struct {
	dirFlag
	Chip string `help:"GPIO chip: auto, sim, a label or a device." default:"auto"`
}

func (f chipFlag) open() (gpio.Chip, error) { return openChip(f.Chip, f.layout()) }

type gpioListCmd struct {
	chipFlag
	listFlag
}

// Run prints a table of the lines.
func (c *gpioListCmd) Run(std streams) (err error) {
	chip, err := c.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	lines, err := chip.Lines()
	if err != nil {
		return err
	}
	table := c.table(std.out, "LINE", "OFFSET", "DIRECTION", "USED BY", "CHIP")
	for _, line := range lines {
		user := line.Consumer
		if line.Used && user == "" {
			user = "somebody"
		}
		table.row(line.Name, strconv.Itoa(line.Offset), string(line.Direction), user, line.Chip)
	}
	return table.flush()
}

type gpioSetCmd struct {
	chipFlag
	Line  string        `arg:"" help:"Line, such as GPIO17."`
	Level string        `arg:"" help:"0, 1, off or on." enum:"0,1,off,on"`
	For   time.Duration `help:"Let go after this time; default: at Ctrl-C." placeholder:"TIME"`
}

// Run holds the line: the kernel may let a line float once nobody holds it.
func (c *gpioSetCmd) Run(ctx context.Context, std streams) (err error) {
	if c.For < 0 {
		return usagef("--for is a length of time, not below 0")
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	chip, err := c.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	on := c.Level == "1" || c.Level == "on"
	line, err := chip.Output(c.Line, gpio.Level(on))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, line.Close()) }()
	level, err := line.Level()
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s is %s, held until %s\n", c.Line, strings.ToLower(level.String()), c.until())
	<-ctx.Done()
	return nil
}

func (c *gpioSetCmd) until() string {
	if c.For > 0 {
		return c.For.String() + " are over"
	}
	return "Ctrl-C"
}

type gpioWatchCmd struct {
	chipFlag
	Lines []string `arg:"" help:"Lines, such as GPIO22."`
	Pull  string   `help:"Bias: none, up or down." default:"none" enum:"none,up,down"`
}

// Run prints a line for each edge until a signal ends it.
func (c *gpioWatchCmd) Run(ctx context.Context, std streams) (err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	chip, err := c.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range c.Lines {
		line, err := chip.Input(name, pullOf(c.Pull))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, line.Close()) }()
		group.Go(func() error { return watch(ctx, std, name, line) })
	}
	return group.Wait()
}

func pullOf(word string) gpio.Pull {
	switch word {
	case "up":
		return gpio.PullUp
	case "down":
		return gpio.PullDown
	default:
		return gpio.PullNoChange
	}
}

func watch(ctx context.Context, std streams, name string, line gpio.InputLine) error {
	level, err := line.Level()
	for edge := (gpio.Edge{Level: level, At: time.Now()}); err == nil; edge, err = line.WaitEdge(ctx) {
		fmt.Fprintf(std.out, "%s %s %s\n", edge.At.Format("15:04:05.000000"), name, strings.ToLower(edge.Level.String()))
	}
	if errors.Is(err, context.Canceled) { // a signal is how watching ends
		return nil
	}
	return err
}
