package sensor

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What is wired to the machine, through the kernel's drivers.

// named finds the device whose file "name" says so, or whose folder is named so.
func (s *Sensor) named(pattern, name string) (string, error) {
	found, err := filepath.Glob(s.under(pattern))
	if err != nil {
		return "", err
	}
	var names []string
	for _, device := range found {
		text, err := readText(filepath.Join(device, "name"))
		if err == nil && text == name || filepath.Base(device) == name {
			return device, nil
		}
		if err == nil {
			names = append(names, text)
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no device %q: the kernel has none of its kind; is its overlay loaded?", name)
	}
	return "", fmt.Errorf("no device %q; there are: %s", name, strings.Join(names, ", "))
}

// measure is what the kernel's number means: factor makes it the unit.
type measure struct {
	prefix string
	factor float64
	unit   string
}

// iioMeasures is Documentation/ABI/testing/sysfs-bus-iio, as far as it says units.
func iioMeasures() []measure {
	return []measure{
		{"temp", 1e-3, "Cel"},
		{"humidityrelative", 1e-3, "%RH"},
		{"pressure", 1e3, "Pa"},
		{"voltage", 1e-3, "V"},
		{"current", 1e-3, "A"},
		{"power", 1e-3, "W"},
		{"illuminance", 1, "lx"},
		{"resistance", 1, "Ohm"},
		{"distance", 1, "m"},
		{"accel", 1, "m/s2"},
	}
}

// hwmonMeasures is Documentation/hwmon/sysfs-interface.rst.
func hwmonMeasures() []measure {
	return []measure{
		{"temp", 1e-3, "Cel"},
		{"humidity", 1e-3, "%RH"},
		{"in", 1e-3, "V"},
		{"curr", 1e-3, "A"},
		{"power", 1e-6, "W"},
		{"energy", 1e-6, "J"},
		{"fan", 1, "1/min"},
	}
}

// measureOf finds what a channel measures. One that the kernel's documents do not name is taken as it is.
func measureOf(channel string, known []measure) measure {
	for _, m := range known {
		if rest, ok := strings.CutPrefix(channel, m.prefix); ok && (rest == "" || rest[0] == '_' || '0' <= rest[0] && rest[0] <= '9') {
			return m
		}
	}
	return measure{factor: 1}
}

func (s *Sensor) iio() (Reading, error) { return s.iioChannel(s.cfg.Device, s.cfg.Channel) }

// bosch reads a BME280 or BMP280 through the kernel's driver bmp280.
func (s *Sensor) bosch() (Reading, error) {
	channel := map[string]string{"": "temp", "temperature": "temp", "humidity": "humidityrelative", "pressure": "pressure"}[s.cfg.Channel]
	return s.iioChannel(cmp.Or(s.cfg.Device, string(s.cfg.Kind)), channel)
}

func (s *Sensor) iioChannel(device, channel string) (Reading, error) {
	dir, err := s.named("sys/bus/iio/devices/iio:device*", device)
	if err != nil {
		return Reading{}, err
	}
	m := measureOf(channel, iioMeasures())
	base := filepath.Join(dir, "in_"+filepath.Base(channel))
	r, err := readScaled(base+"_input", m.factor, m.unit)
	if !errors.Is(err, os.ErrNotExist) {
		return r, err
	}
	// Not processed by the driver: (raw + offset) × scale.
	raw, err := readScaled(base+"_raw", 1, "")
	if err != nil {
		return Reading{}, err
	}
	offset, err := s.iioModifier(dir, channel, "offset", 0)
	if err != nil {
		return Reading{}, err
	}
	scale, err := s.iioModifier(dir, channel, "scale", 1)
	if err != nil {
		return Reading{}, err
	}
	number, _ := raw.Value.(float64) // readScaled gives nothing else
	return Reading{Value: (number + offset) * scale * m.factor, Unit: m.unit}, nil
}

// iioModifier reads the offset or scale of a channel, or that of all channels of its kind.
func (s *Sensor) iioModifier(dir, channel, what string, otherwise float64) (float64, error) {
	for _, name := range []string{channel, strings.TrimRight(channel, "0123456789")} {
		r, err := readScaled(filepath.Join(dir, "in_"+filepath.Base(name)+"_"+what), 1, "")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		number, _ := r.Value.(float64)
		return number, err
	}
	return otherwise, nil
}

func (s *Sensor) hwmon() (Reading, error) {
	dir, err := s.named("sys/class/hwmon/hwmon*", s.cfg.Device)
	if err != nil {
		return Reading{}, err
	}
	channel := filepath.Base(s.cfg.Channel)
	labels, err := filepath.Glob(filepath.Join(dir, "*_label"))
	if err != nil {
		return Reading{}, err
	}
	for _, path := range labels {
		if text, err := readText(path); err == nil && text == s.cfg.Channel {
			channel = strings.TrimSuffix(filepath.Base(path), "_label")
		}
	}
	m := measureOf(channel, hwmonMeasures())
	return readScaled(filepath.Join(dir, channel+"_input"), m.factor, m.unit)
}

// ds18b20 reads the kernel's w1_therm (Documentation/w1/slaves/w1_therm.rst). Its file w1_slave is as old as the driver
// and says whether the checksum was right.
func (s *Sensor) ds18b20() (Reading, error) {
	pattern := "28-*"
	if s.cfg.Device != "" {
		pattern = filepath.Base(s.cfg.Device)
	}
	found, err := filepath.Glob(s.under("sys/bus/w1/devices", pattern))
	switch {
	case err != nil:
		return Reading{}, err
	case len(found) == 0:
		return Reading{}, fmt.Errorf("no DS18B20 %s: is dtoverlay=w1-gpio set, and the sensor wired?", s.cfg.Device)
	case len(found) > 1:
		slices.Sort(found)
		return Reading{}, fmt.Errorf("several DS18B20; set device to one of those there are, such as %q", filepath.Base(found[0]))
	}
	text, err := readText(filepath.Join(found[0], "w1_slave"))
	if err != nil {
		return Reading{}, err
	}
	crc, rest, _ := strings.Cut(text, "\n")
	_, milli, ok := strings.Cut(rest, "t=")
	switch {
	case !strings.HasSuffix(crc, "YES"):
		return Reading{}, errors.New("the DS18B20's checksum is wrong: look at its wires and its pull-up resistor")
	case !ok:
		return Reading{}, errors.New("the DS18B20 tells no temperature")
	}
	// After power-on it says 85 °C until it has measured: the bytes 50 05, and 0c where a measurement leaves the rest.
	if strings.HasPrefix(text, "50 05 ") && strings.Contains(crc, " 0c 10 ") {
		return Reading{}, errors.New("the DS18B20 has just been powered on and has not measured: look at its supply")
	}
	number, err := strconv.ParseFloat(milli, 64)
	return Reading{Value: number / 1000, Unit: "Cel"}, err
}
