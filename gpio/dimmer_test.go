package gpio_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

// edges is the waveform of a line with times, in microseconds since start.
func edges(c *gpiotest.Chip, line string, start time.Time) string {
	var text []string
	level := gpio.Low
	for _, e := range c.Events(line) {
		if e.Level != level {
			level = e.Level
			text = append(text, fmt.Sprintf("%d:%v", e.At.Sub(start).Microseconds(), map[gpio.Level]int{gpio.Low: 0, gpio.High: 1}[level]))
		}
	}
	return strings.Join(text, " ")
}

func TestDimmerWaveform(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  gpio.DimmerConfig
		want string
	}{
		{"active-high", gpio.DimmerConfig{}, "0:1 2000:0 10000:1 12000:0 20000:1 24000:0 30000:1 35000:0"},
		{"active-low", gpio.DimmerConfig{ActiveLow: true, Exit: true}, "0:1 0:0 2000:1 10000:0 12000:1 20000:0 24000:1 30000:0 35000:1 50000:0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chip, start := gpiotest.New(), time.Now()
				test.cfg.Line, test.cfg.Frequency = "GPIO17", 100
				d, err := gpio.OpenDimmer(chip, test.cfg)
				if err != nil {
					t.Fatal(err)
				}
				for _, step := range []struct {
					level uint8
					after time.Duration
				}{{51, 15 * time.Millisecond}, {102, 15 * time.Millisecond}, {255, 5 * time.Millisecond}, {0, 15 * time.Millisecond}} {
					if err := d.Drive(step.level); err != nil || d.Level() != step.level {
						t.Fatalf("%d: %v, level %d", step.level, err, d.Level())
					}
					time.Sleep(step.after)
					synctest.Wait()
				}
				if err := errors.Join(d.Close(), d.Close()); err != nil {
					t.Fatal(err)
				}
				if got := edges(chip, "GPIO17", start); got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
				for _, level := range []uint8{0, 9, 255} {
					if err := d.Drive(level); !errors.Is(err, os.ErrClosed) {
						t.Errorf("after Close: %v", err)
					}
				}
			})
		})
	}
}

// What goes wrong between two commands is told by the next.
func TestDimmerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := gpiotest.New()
		d, err := gpio.OpenDimmer(chip, gpio.DimmerConfig{Line: "GPIO17", Frequency: 100})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Drive(9); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		chip.FailOut("GPIO17", 1, errHardware)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if err := d.Drive(10); !errors.Is(err, errHardware) {
			t.Errorf("got %v", err)
		}
		chip.FailOut("GPIO17", 1, nil)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		_ = d.Drive(11) // tells of the meantime
		if err := d.Drive(0); err != nil || d.Level() != 0 || chip.Level("GPIO17") != gpio.Low {
			t.Errorf("got %v, level %d", err, d.Level())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestDimmerFrequency(t *testing.T) {
	for _, hertz := range []int{-1, 0, 9, 20001} {
		if _, err := gpio.OpenDimmer(gpiotest.New(), gpio.DimmerConfig{Line: "GPIO17", Frequency: hertz}); err == nil {
			t.Errorf("%d Hz", hertz)
		}
	}
}

// BenchmarkDimmer tells what a dimmer costs: processor time of a second at a level in between, the line being a fake that
// costs nothing.
func BenchmarkDimmer(b *testing.B) {
	for _, hertz := range []int{100, 200, 1000} {
		b.Run(fmt.Sprintf("%dHz", hertz), func(b *testing.B) {
			chip, err := gpio.OpenSim(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			d, err := gpio.OpenDimmer(chip, gpio.DimmerConfig{Line: "GPIO17", Frequency: hertz})
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Drive(100); err != nil {
				b.Fatal(err)
			}
			before, start := processorTime(b), time.Now()
			for b.Loop() {
				time.Sleep(time.Second)
			}
			used, passed := processorTime(b)-before, time.Since(start)
			b.ReportMetric(100*used.Seconds()/passed.Seconds(), "%cpu")
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
