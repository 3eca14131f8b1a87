package sensor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"
)

// MaxText is how many bytes a file or a command may say.
const MaxText = 4096

// Config says what to read.
type Config struct {
	// Root is where /proc and /sys are; "/" if empty. Paths of Path are not below it unless they are relative.
	Root string
	Kind Kind
	// Device names an IIO or hwmon device as its file "name" does, or a DS18B20 by its number, "28-…"; where there is
	// only one of those, it may be empty.
	Device string
	// Channel is what of a device or of a kind is read; see [Kind].
	Channel string
	// Path is the file to read, or a path on the file system to look at.
	Path string
	// Command is a program with its arguments; no shell is involved.
	Command []string
	// Timeout is how long a command or a file may take; 10 s if zero.
	Timeout time.Duration
	// Scale multiplies every number; 1 if zero.
	Scale float64
	// Unit replaces the kind's own: a name that [KnownUnit] knows, or empty.
	Unit string

	// Interval is how often to read; a minute if zero.
	Interval time.Duration
	// Threshold is how much a number must have changed since it was last passed on; a flag or a text must have changed
	// at all. Zero passes everything on.
	Threshold float64
	// AtLeast is after how long something is passed on whether it has changed or not; an hour if zero.
	AtLeast time.Duration
}

// Kind is a kind of sensor.
type Kind string

// The kinds.
const (
	CPUTemperature Kind = "cpu-temperature" // the processor's, Cel
	Undervoltage   Kind = "undervoltage"    // a flag: the supply is too weak now
	Throttled      Kind = "throttled"       // a flag: slowed down now, by voltage or heat
	ThrottledFlags Kind = "throttled-flags" // all flags of the firmware, also those since the start, as a number
	Load           Kind = "load"            // channels 1m (without one), 5m, 15m
	Memory         Kind = "memory"          // in use, percent; channel available: B
	Disk           Kind = "disk"            // in use, percent, of the file system of Path ("/"); channel available: B
	Uptime         Kind = "uptime"          // s
	IIO            Kind = "iio"             // channels as in sysfs between in_ and _input or _raw, such as temp, voltage0
	BME280         Kind = "bme280"          // channels temperature (without one), humidity, pressure
	BMP280         Kind = "bmp280"          // channels temperature (without one), pressure
	Hwmon          Kind = "hwmon"           // channels such as temp1, fan1, in0, or the label of one
	DS18B20        Kind = "ds18b20"         // Cel
	Exec           Kind = "exec"            // what a command says
	File           Kind = "file"            // what a file says
)

// Kinds lists them.
func Kinds() []Kind {
	return []Kind{
		CPUTemperature, Undervoltage, Throttled, ThrottledFlags, Load, Memory, Disk, Uptime, IIO, BME280, BMP280, Hwmon, DS18B20,
		Exec, File,
	}
}

// Reading is what a sensor said.
type Reading struct {
	Value any    // float64, finite; bool; or string
	Unit  string // of a number, may be empty
}

const (
	defaultInterval = time.Minute
	defaultAtLeast  = time.Hour
	defaultTimeout  = 10 * time.Second
)

// Sensor is a sensor. It is for one goroutine.
type Sensor struct {
	cfg  Config
	read func(context.Context) (Reading, error)
}

// New checks the configuration. It reads nothing: a sensor may be plugged in later.
func New(cfg Config) (*Sensor, error) {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Scale == 0 {
		cfg.Scale = 1
	}
	for _, length := range []struct {
		of        *time.Duration
		otherwise time.Duration
	}{{&cfg.Interval, defaultInterval}, {&cfg.AtLeast, defaultAtLeast}, {&cfg.Timeout, defaultTimeout}} {
		if *length.of == 0 {
			*length.of = length.otherwise
		}
	}
	s := &Sensor{cfg: cfg}
	var err error
	if s.read, err = s.reader(); err != nil {
		return nil, err
	}
	return s, cfg.check()
}

func (cfg *Config) check() error {
	switch {
	case cfg.Unit != "" && !KnownUnit(cfg.Unit):
		return fmt.Errorf("%q is no unit of SenML; those are such as Cel, %%RH, Pa, V, W, /100", cfg.Unit)
	case cfg.Interval < 0 || cfg.AtLeast < 0 || cfg.Timeout < 0:
		return errors.New("a length of time is negative")
	case cfg.Threshold < 0 || math.IsNaN(cfg.Threshold) || math.IsInf(cfg.Scale, 0) || math.IsNaN(cfg.Scale):
		return errors.New("threshold or scale is no number that makes sense")
	}
	return nil
}

// reader is how a kind is read.
func (s *Sensor) reader() (func(context.Context) (Reading, error), error) {
	cfg := &s.cfg
	switch cfg.Kind {
	case CPUTemperature:
		return s.files(s.cpuTemperature), cfg.channel("")
	case Undervoltage:
		return s.files(s.undervoltage), cfg.channel("")
	case Throttled:
		return s.files(s.throttled), cfg.channel("")
	case ThrottledFlags:
		return s.files(s.throttledFlags), cfg.channel("")
	case Load:
		return s.files(s.load), cfg.channel("", "1m", "5m", "15m")
	case Memory:
		return s.files(s.memory), cfg.channel("", availableChannel)
	case Disk:
		return s.files(s.disk), cfg.channel("", availableChannel)
	case Uptime:
		return s.files(s.uptime), cfg.channel("")
	case IIO:
		return s.files(s.iio), cfg.needs(map[string]string{"device": cfg.Device, "channel": cfg.Channel})
	case BME280:
		return s.files(s.bosch), cfg.channel("", "temperature", "humidity", "pressure")
	case BMP280:
		return s.files(s.bosch), cfg.channel("", "temperature", "pressure")
	case Hwmon:
		return s.files(s.hwmon), cfg.needs(map[string]string{"device": cfg.Device, "channel": cfg.Channel})
	case DS18B20:
		return s.files(s.ds18b20), cfg.channel("")
	case Exec:
		if len(cfg.Command) == 0 {
			return nil, errors.New("a sensor of kind exec needs a command")
		}
		return s.exec, cfg.channel("")
	case File:
		return s.files(s.file), cfg.needs(map[string]string{"path": cfg.Path})
	}
	return nil, fmt.Errorf("%q is no kind of sensor", cfg.Kind)
}

// channel refuses a channel that the kind does not have.
func (cfg *Config) channel(allowed ...string) error {
	if slices.Contains(allowed, cfg.Channel) {
		return nil
	}
	return fmt.Errorf("a sensor of kind %s has no channel %q", cfg.Kind, cfg.Channel)
}

func (cfg *Config) needs(given map[string]string) error {
	for what, value := range given {
		if value == "" {
			return fmt.Errorf("a sensor of kind %s needs a %s", cfg.Kind, what)
		}
	}
	return nil
}

// files makes a reader of files one that has an end. A device, a pipe or a network may keep a read waiting for ever, and
// nothing can interrupt that: it is left alone, and nothing else is read until it has come back.
func (s *Sensor) files(read func() (Reading, error)) func(context.Context) (Reading, error) {
	type result struct {
		reading Reading
		err     error
	}
	var late chan result
	return func(ctx context.Context) (Reading, error) {
		tooLong := fmt.Errorf("reading takes longer than %v", s.cfg.Timeout)
		if late != nil {
			select {
			case <-late: // too old to be told
				late = nil
			default:
				return Reading{}, tooLong
			}
		}
		done := make(chan result, 1)
		go func() {
			r, err := read()
			done <- result{r, err}
		}()
		limited, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		select {
		case got := <-done:
			return got.reading, got.err
		case <-limited.Done():
			late = done
			return Reading{}, cmp.Or(ctx.Err(), tooLong)
		}
	}
}

// Read reads once.
func (s *Sensor) Read(ctx context.Context) (Reading, error) {
	r, err := s.read(ctx)
	if err != nil {
		return Reading{}, err
	}
	if number, ok := r.Value.(float64); ok {
		number *= s.cfg.Scale
		if math.IsNaN(number) || math.IsInf(number, 0) {
			return Reading{}, fmt.Errorf("%v is no number to report", number)
		}
		// What thousandths of a unit leave behind in binary is no part of the measurement.
		if rounded := math.Round(number*1e6) / 1e6; !math.IsInf(rounded, 0) {
			number = rounded
		}
		r.Value = number
		if s.cfg.Unit != "" {
			r.Unit = s.cfg.Unit
		}
	}
	return r, nil
}

// Run reads at once and then at the interval, until ctx ends. What has changed by the threshold, or has not been passed
// on for long, goes to report; what could not be read to failed, once until it can be read again.
func (s *Sensor) Run(ctx context.Context, report func(Reading, time.Time), failed func(error)) {
	ticker := time.NewTicker(s.cfg.Interval)
	defer ticker.Stop()
	var last *Reading
	var lastAt time.Time
	failing := false
	for {
		r, err := s.Read(ctx)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			failed(err)
		case err == nil && (last == nil || now.Sub(lastAt) >= s.cfg.AtLeast || s.changed(*last, r)):
			report(r, now)
			last, lastAt = &r, now
		}
		failing = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// changed says whether a reading differs enough from the last that was passed on.
func (s *Sensor) changed(from, to Reading) bool {
	a, isNumber := from.Value.(float64)
	b, alsoNumber := to.Value.(float64)
	if isNumber && alsoNumber {
		return math.Abs(b-a) >= s.cfg.Threshold
	}
	return s.cfg.Threshold == 0 || from.Value != to.Value
}

// under is a path below the root.
func (s *Sensor) under(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, parts...)...)
}
