package sensor

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// What the machine says about itself.

const availableChannel = "available"

// cpuTemperature reads the thermal zone of the processor (Documentation/ABI/testing/sysfs-class-thermal).
func (s *Sensor) cpuTemperature() (Reading, error) {
	zones, err := filepath.Glob(s.under("sys/class/thermal/thermal_zone*"))
	if err != nil || len(zones) == 0 {
		return Reading{}, errors.New("the kernel knows no thermal zone here")
	}
	slices.Sort(zones)
	zone := zones[0]
	for _, z := range zones {
		// cpu-thermal on every Raspberry Pi, x86_pkg_temp on a PC.
		if kind, err := readText(filepath.Join(z, "type")); err == nil && (kind == "cpu-thermal" || kind == "x86_pkg_temp") {
			zone = z
			break
		}
	}
	return readScaled(filepath.Join(zone, "temp"), 1e-3, "Cel")
}

// The firmware's flags (raspberrypi.com/documentation, vcgencmd get_throttled): what is now, and 16 bits higher what
// has been since the start.
const (
	flagUndervoltage = 1 << 0
	flagsSlow        = 1<<1 | 1<<2 | 1<<3 // frequency capped, throttled, soft temperature limit
)

func (s *Sensor) flags() (uint64, error) {
	for _, pattern := range []string{"sys/devices/platform/soc*/*firmware/get_throttled", "sys/devices/platform/*/*:firmware/get_throttled"} {
		found, err := filepath.Glob(s.under(pattern))
		if err != nil || len(found) == 0 {
			continue
		}
		text, err := readText(found[0])
		if err != nil {
			return 0, err
		}
		flags, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 32)
		if err != nil {
			return 0, fmt.Errorf("%s: %q is no hexadecimal number", found[0], clip(text))
		}
		return flags, nil
	}
	return 0, errNoFirmware
}

var errNoFirmware = errors.New("no Raspberry Pi firmware that tells of throttling")

// undervoltage asks the firmware; kernels that do not show its flags have a hwmon device for this one.
func (s *Sensor) undervoltage() (Reading, error) {
	flags, err := s.flags()
	if !errors.Is(err, errNoFirmware) {
		return Reading{Value: flags&flagUndervoltage != 0}, err
	}
	device, err := s.named("sys/class/hwmon/hwmon*", "rpi_volt")
	if err != nil {
		return Reading{}, errNoFirmware
	}
	r, err := readScaled(filepath.Join(device, "in0_lcrit_alarm"), 1, "")
	return Reading{Value: r.Value != 0.0}, err
}

func (s *Sensor) throttled() (Reading, error) {
	flags, err := s.flags()
	return Reading{Value: flags&flagsSlow != 0}, err
}

func (s *Sensor) throttledFlags() (Reading, error) {
	flags, err := s.flags()
	return Reading{Value: float64(flags)}, err
}

// load reads proc_loadavg(5).
func (s *Sensor) load() (Reading, error) {
	fields, err := readFields(s.under("proc/loadavg"), 3)
	if err != nil {
		return Reading{}, err
	}
	return parseNumber(fields[map[string]int{"": 0, "1m": 0, "5m": 1, "15m": 2}[s.cfg.Channel]], 1, "count")
}

func (s *Sensor) uptime() (Reading, error) {
	fields, err := readFields(s.under("proc/uptime"), 1)
	if err != nil {
		return Reading{}, err
	}
	return parseNumber(fields[0], 1, "s")
}

// memory reads proc_meminfo(5).
func (s *Sensor) memory() (Reading, error) {
	text, err := readText(s.under("proc/meminfo"))
	if err != nil {
		return Reading{}, err
	}
	kib := map[string]float64{}
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 {
			kib[fields[0]], _ = strconv.ParseFloat(fields[1], 64) // 0 is missed below
		}
	}
	return s.used(kib["MemTotal:"]*1024, kib["MemAvailable:"]*1024)
}

// disk is the fill level as df(1) has it: what root keeps for itself counts for neither side.
func (s *Sensor) disk() (Reading, error) {
	path := s.cfg.Path
	if path == "" {
		path = "/"
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return Reading{}, fmt.Errorf("looking at %s: %w", path, err)
	}
	size := float64(fs.Bsize)
	available := float64(fs.Bavail) * size
	return s.used(float64(fs.Blocks-fs.Bfree)*size+available, available)
}

// used gives the channel of a total in bytes of which some is available.
func (s *Sensor) used(total, available float64) (Reading, error) {
	switch {
	case total <= 0 || available < 0 || available > total:
		return Reading{}, errors.New("the kernel does not tell how much there is")
	case s.cfg.Channel == availableChannel:
		return Reading{Value: available, Unit: "B"}, nil
	}
	return Reading{Value: (total - available) / total * 100, Unit: "/100"}, nil
}
