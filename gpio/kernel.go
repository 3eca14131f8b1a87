package gpio

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"
)

// AutoLabel asks OpenChip for the chip behind the 40-pin header of whichever Raspberry Pi this is.
const AutoLabel = "auto"

// OpenChip opens a chip of the kernel: "auto" or "" the Raspberry Pi's header chip, else an exact label
// ("pinctrl-bcm2711"), a name ("gpiochip0") or a path ("/dev/gpiochip0"). Prefer labels: the numbers in names and
// paths have changed from kernel to kernel. Chips that share the label are opened as one, and the one that has the line
// asked for is used. Errors: ErrNoChip (says what there is), ErrPermission.
func OpenChip(which string) (Chip, error) {
	if path, ok := devicePath(which); ok {
		d, err := openDevice(path)
		if err != nil {
			return nil, err
		}
		return &kernelChip{devices: []*device{d}}, nil
	}
	devices, denied, err := openDevices()
	if err != nil {
		return nil, err
	}
	chosen := choose(devices, which)
	for _, d := range devices {
		if !slices.Contains(chosen, d) {
			_ = d.file.Close() // only looked at
		}
	}
	switch {
	case len(chosen) > 0:
		return &kernelChip{devices: chosen}, nil
	case denied != nil:
		return nil, denied // the chip asked for may be among those
	}
	return nil, noChip(devices, which)
}

// devicePath returns the path of a chip that is asked for by its path or name.
func devicePath(which string) (string, bool) {
	if number, ok := strings.CutPrefix(which, "gpiochip"); ok {
		_, err := strconv.ParseUint(number, 10, 32)
		return filepath.Join("/dev", which), err == nil
	}
	return which, filepath.IsAbs(which)
}

// choose returns the devices that are meant.
func choose(devices []*device, which string) []*device {
	labels := []string{which}
	if which == "" || which == AutoLabel {
		labels = headerLabels()
	}
	for _, label := range labels {
		meant := slices.DeleteFunc(slices.Clone(devices), func(d *device) bool { return d.label != label })
		if len(meant) > 0 {
			return meant
		}
	}
	return nil
}

func noChip(devices []*device, which string) error {
	if len(devices) == 0 {
		return fmt.Errorf("%w: this machine has no /dev/gpiochip*", ErrNoChip)
	}
	var there []string
	for _, d := range devices {
		there = append(there, fmt.Sprintf("%q (%s)", d.label, d.name))
	}
	wanted := strconv.Quote(which)
	if which == "" || which == AutoLabel {
		wanted = "a Raspberry Pi's header (" + strings.Join(headerLabels(), ", ") + ")"
	}
	return fmt.Errorf("%w for %s; name one of those there are: %s", ErrNoChip, wanted, strings.Join(there, ", "))
}

// device is one open /dev/gpiochipN.
type device struct {
	file        *os.File
	name, label string
	lines       uint32
}

// openDevices opens every chip that can be opened, in the order of their numbers; denied is why another one could not.
func openDevices() (devices []*device, denied, err error) {
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return nil, nil, fmt.Errorf("looking for GPIO chips: %w", err)
	}
	for _, e := range entries {
		// A Pi 5 has /dev/gpiochip4 as a link to gpiochip0, for programs that count on old numbers: the same chip again.
		if !strings.HasPrefix(e.Name(), "gpiochip") || e.Type()&fs.ModeSymlink != 0 {
			continue
		}
		d, err := openDevice(filepath.Join("/dev", e.Name()))
		if err != nil {
			denied = cmp.Or(denied, err)
			continue
		}
		devices = append(devices, d)
	}
	slices.SortFunc(devices, func(a, b *device) int {
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return devices, denied, nil
}

func openDevice(path string) (*device, error) {
	// Lines are claimed through a read-only descriptor too, but the group's right to write is the right to claim.
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	var info uapiChipInfo
	if err := ioctl(f, getChipInfo, &info); err != nil {
		_ = f.Close() // reported is why it is of no use
		return nil, fmt.Errorf("%w: %s is something else: %w", ErrNoChip, path, err)
	}
	d := &device{file: f, name: text(info.name), label: text(info.label), lines: info.lines}
	d.label = cmp.Or(d.label, d.name)
	return d, nil
}

// kernelChip is the chips of one label, nearly always one.
type kernelChip struct{ devices []*device }

// Lines implements Chip.
func (c *kernelChip) Lines() ([]LineInfo, error) {
	_, infos, err := c.look()
	return infos, err
}

// look returns every line, none claimed, and what the kernel says about each.
func (c *kernelChip) look() (lines []*kernelLine, infos []LineInfo, err error) {
	for _, d := range c.devices {
		for offset := range d.lines {
			info, err := d.look(offset)
			if err != nil {
				return nil, nil, err
			}
			lines = append(lines, &kernelLine{device: d, offset: offset, info: info, turn: newTurn()})
			infos = append(infos, info)
		}
	}
	return lines, infos, nil
}

// look asks the kernel about a line.
func (d *device) look(offset uint32) (LineInfo, error) {
	info := uapiLineInfo{offset: offset}
	err := ioctl(d.file, getLineInfo, &info)
	if errors.Is(err, unix.EINVAL) {
		return LineInfo{}, fmt.Errorf("looking at %s: its ABI v2 is missing: Linux 5.10 or newer is needed", d.file.Name())
	}
	if err != nil {
		return LineInfo{}, fmt.Errorf("looking at line %d of %s: %w", offset, d.label, err)
	}
	l := LineInfo{
		Chip: d.label, Path: d.file.Name(), Name: text(info.name), Offset: int(offset), Direction: In,
		ActiveLow: info.flags&flagActiveLow != 0, Used: info.flags&flagUsed != 0, Consumer: text(info.consumer),
	}
	if info.flags&flagOutput != 0 {
		l.Direction = Out
	}
	return l, nil
}

// Output implements Chip.
func (c *kernelChip) Output(line string, initial Level) (OutputLine, error) {
	l, err := c.find(line)
	if err != nil {
		return nil, err
	}
	if err := l.Out(initial); err != nil {
		return nil, err
	}
	return l, nil
}

// Input implements Chip.
func (c *kernelChip) Input(line string, pull Pull) (InputLine, error) {
	l, err := c.find(line)
	if err != nil {
		return nil, err
	}
	if err := l.In(pull, gpio.BothEdges); err != nil {
		return nil, err
	}
	return l, nil
}

// find returns the line, not yet claimed.
func (c *kernelChip) find(line string) (*kernelLine, error) {
	lines, infos, err := c.look()
	if err != nil {
		return nil, err
	}
	info, err := FindLine(infos, line)
	if err != nil {
		return nil, err
	}
	return lines[slices.Index(infos, info)], nil
}

// Close implements Chip.
func (c *kernelChip) Close() error {
	var errs []error
	for _, d := range c.devices {
		if err := d.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
