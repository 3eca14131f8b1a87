package sensor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/agent/sensor"
)

// tree makes a fake /proc and /sys.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// pi is what a Raspberry Pi 4 with a few things wired to it shows.
func pi() map[string]string {
	const (
		firmware = "sys/devices/platform/soc/soc:firmware/"
		bme      = "sys/bus/iio/devices/iio:device1/"
		adc      = "sys/bus/iio/devices/iio:device0/"
		hwmon    = "sys/class/hwmon/hwmon2/"
	)
	return map[string]string{
		"sys/class/thermal/thermal_zone0/type": "other\n", "sys/class/thermal/thermal_zone0/temp": "99000\n",
		"sys/class/thermal/thermal_zone1/type": "cpu-thermal\n", "sys/class/thermal/thermal_zone1/temp": "48312\n",
		firmware + "get_throttled": "50005\n",
		"proc/loadavg":             "0.52 0.58 0.59 1/467 12345\n",
		"proc/uptime":              "350735.47 234388.90\n",
		"proc/meminfo":             "MemTotal:        1000 kB\nMemFree:           10 kB\nMemAvailable:     628 kB\nHugePages_Total:       0\n",
		bme + "name":               "bme280\n", bme + "in_temp_input": "21350\n", bme + "in_humidityrelative_input": "45123\n", bme + "in_pressure_input": "101.325023437\n",
		adc + "name": "ads1015\n", adc + "in_voltage0_raw": "1200\n", adc + "in_voltage_scale": "2.5\n", adc + "in_voltage1_raw": "100\n", adc + "in_voltage1_scale": "2\n", adc + "in_voltage1_offset": "-50\n", adc + "in_thing_raw": "7\n",
		hwmon + "name": "ina219\n", hwmon + "in1_input": "5012\n", hwmon + "power1_input": "1250000\n", hwmon + "fan1_input": "1200\n", hwmon + "temp1_input": "-4500\n", hwmon + "temp1_label": "Freezer\n",
		"sys/bus/w1/devices/28-0316a2795bff/w1_slave": "5a 01 4b 46 7f ff 0c 10 93 : crc=93 YES\n5a 01 4b 46 7f ff 0c 10 93 t=21625\n",
		"srv/number": " 12.5\n", "srv/flag": "true\n", "srv/text": "all well\n", "srv/empty": "\n", "srv/long": strings.Repeat("x", 5000), "srv/raw": "\xff\xfe",
		"srv/inf": "Inf", "srv/hex": "0x10", "srv/huge": "1e999",
	}
}

func TestRead(t *testing.T) {
	root := tree(t, pi())
	for _, c := range []struct {
		cfg  sensor.Config
		want string // value and unit, or part of the error
	}{
		{sensor.Config{Kind: sensor.CPUTemperature}, "48.312 Cel"},
		{sensor.Config{Kind: sensor.Undervoltage}, "true "},
		{sensor.Config{Kind: sensor.Throttled}, "true "},
		{sensor.Config{Kind: sensor.ThrottledFlags}, "327685 "},
		{sensor.Config{Kind: sensor.Load}, "0.52 count"},
		{sensor.Config{Kind: sensor.Load, Channel: "15m"}, "0.59 count"},
		{sensor.Config{Kind: sensor.Memory}, "37.2 /100"},
		{sensor.Config{Kind: sensor.Memory, Channel: "available"}, "643072 B"},
		{sensor.Config{Kind: sensor.Uptime}, "350735.47 s"},
		{sensor.Config{Kind: sensor.BME280}, "21.35 Cel"},
		{sensor.Config{Kind: sensor.BME280, Channel: "humidity"}, "45.123 %RH"},
		{sensor.Config{Kind: sensor.BME280, Channel: "pressure"}, "101325.023437 Pa"},
		{sensor.Config{Kind: sensor.BME280, Channel: "pressure", Scale: 0.01, Unit: "hPa"}, "1013.250234 hPa"},
		{sensor.Config{Kind: sensor.BMP280}, `no device "bmp280"; there are: ads1015, bme280`},
		{sensor.Config{Kind: sensor.BMP280, Device: "bme280"}, "21.35 Cel"},
		{sensor.Config{Kind: sensor.IIO, Device: "iio:device1", Channel: "temp"}, "21.35 Cel"},
		{sensor.Config{Kind: sensor.IIO, Device: "ads1015", Channel: "voltage0"}, "3 V"},
		{sensor.Config{Kind: sensor.IIO, Device: "ads1015", Channel: "voltage1"}, "0.1 V"},
		{sensor.Config{Kind: sensor.IIO, Device: "ads1015", Channel: "thing"}, "7 "},
		{sensor.Config{Kind: sensor.IIO, Device: "ads1015", Channel: "voltage9"}, "no such file"},
		{sensor.Config{Kind: sensor.IIO, Device: "ads1015", Channel: "../../../proc/uptime"}, "no such file"},
		{sensor.Config{Kind: sensor.Hwmon, Device: "ina219", Channel: "in1"}, "5.012 V"},
		{sensor.Config{Kind: sensor.Hwmon, Device: "ina219", Channel: "power1"}, "1.25 W"},
		{sensor.Config{Kind: sensor.Hwmon, Device: "ina219", Channel: "fan1"}, "1200 1/min"},
		{sensor.Config{Kind: sensor.Hwmon, Device: "ina219", Channel: "Freezer"}, "-4.5 Cel"},
		{sensor.Config{Kind: sensor.Hwmon, Device: "nct6775", Channel: "in1"}, `no device "nct6775"; there are: ina219`},
		{sensor.Config{Kind: sensor.DS18B20}, "21.625 Cel"},
		{sensor.Config{Kind: sensor.DS18B20, Device: "28-0316a2795bff"}, "21.625 Cel"},
		{sensor.Config{Kind: sensor.DS18B20, Device: "28-000000000000"}, "no DS18B20 28-000000000000"},
		{sensor.Config{Kind: sensor.File, Path: "srv/number"}, "12.5 "},
		{sensor.Config{Kind: sensor.File, Path: "srv/number", Scale: 2, Unit: "V"}, "25 V"},
		{sensor.Config{Kind: sensor.File, Path: filepath.Join(root, "srv/flag")}, "true "},
		{sensor.Config{Kind: sensor.File, Path: "srv/text"}, "all well "},
		{sensor.Config{Kind: sensor.File, Path: "srv/inf"}, "Inf "},
		{sensor.Config{Kind: sensor.File, Path: "srv/hex"}, "0x10 "},
		{sensor.Config{Kind: sensor.File, Path: "srv/huge"}, "1e999 "},
		{sensor.Config{Kind: sensor.File, Path: "srv/number", Scale: 1.7e308}, "is no number to report"},
		{sensor.Config{Kind: sensor.File, Path: "srv/empty"}, "it says nothing"},
		{sensor.Config{Kind: sensor.File, Path: "srv/raw"}, "no UTF-8"},
		{sensor.Config{Kind: sensor.File, Path: "srv/long"}, "more than 4096 bytes"},
		{sensor.Config{Kind: sensor.File, Path: "srv/none"}, "no such file"},
		{sensor.Config{Kind: sensor.Disk, Path: "/none"}, "no such file"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"echo", "12.5"}, Unit: "Cel"}, "12.5 Cel"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"echo", "false"}}, "false "},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"false"}}, "running false: exit status 1"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"no-such-program"}}, "executable file not found"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"yes"}}, "yes says more than 4096 bytes"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"true"}}, "true: it says nothing"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"sh", "-c", "yes & yes & wait"}}, "sh says more than 4096 bytes"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"head", "-c", "4097", "/dev/zero"}}, "head says more than 4096 bytes"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"head", "-c", "4096", "/dev/zero"}}, strings.Repeat("\x00", 4096) + " "},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"printf", `\377\376`}}, "printf: what it says is no UTF-8"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"printf", `1\n2`}}, "1\n2 "},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"printf", `\033[2J\a"`}}, "\x1b[2J\a\" "},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"sh", "-c", "trap '' TERM INT HUP; exec >&-; sleep 60"}, Timeout: 50 * time.Millisecond}, "sh takes longer than 50ms"},
		{sensor.Config{Kind: sensor.Exec, Command: []string{"sh", "-c", "sleep 60 & sleep 60"}, Timeout: 50 * time.Millisecond}, "sh takes longer than 50ms"},
	} {
		c.cfg.Root = root
		t.Run(fmt.Sprintf("%s %s%s%v", c.cfg.Kind, c.cfg.Channel, c.cfg.Path, c.cfg.Command), func(t *testing.T) {
			s, err := sensor.New(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Read(t.Context())
			if err != nil {
				if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, want %s", err, c.want)
				}
				return
			}
			if got := fmt.Sprint(format(r.Value), " ", r.Unit); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func format(value any) string {
	if number, ok := value.(float64); ok {
		return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.6f", number), "0"), ".")
	}
	return fmt.Sprint(value)
}

// A file that keeps who reads it waiting is told of after the timeout, keeps nothing else waiting, and is read again once
// it has let go.
func TestReadHangs(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sensor.New(sensor.Config{Kind: sensor.File, Path: pipe, Timeout: 50 * time.Millisecond, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	const tooLong = "reading takes longer than 50ms"
	for range 3 {
		if _, err := s.Read(t.Context()); err == nil || err.Error() != tooLong {
			t.Fatalf("got %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Run(ctx, func(sensor.Reading, time.Time) { t.Error("something was reported") }, func(err error) {
		if err.Error() != tooLong {
			t.Errorf("got %v", err)
		}
		cancel()
	})

	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for who reads
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.WriteString("7")
	if err := errors.Join(err, os.Remove(pipe), os.WriteFile(pipe, []byte("8"), 0o600), w.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	s.Run(ctx, func(r sensor.Reading, _ time.Time) {
		if r.Value != 8.0 {
			t.Errorf("got %v, want what is read now", r.Value)
		}
		cancel()
	}, func(error) {})
}

// What a command leaves behind in its group goes with it, or there would be more of it after every reading.
func TestExecLeavesNothing(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	s, err := sensor.New(sensor.Config{Kind: sensor.Exec, Command: []string{"sh", "-c", `sleep 600 & echo $! >"$0"; echo 5`, pid}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context()); err == nil || err.Error() != "sh leaves something behind that keeps its output open" {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	stat := filepath.Join("/proc", strings.TrimSpace(string(text)), "stat")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		state, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(state), ") Z ") { // gone, or nobody has asked yet how it ended
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %s", state)
		}
	}
}

func TestReadDisk(t *testing.T) {
	for _, channel := range []string{"", "available"} {
		s, err := sensor.New(sensor.Config{Kind: sensor.Disk, Channel: channel, Path: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Read(t.Context())
		number, ok := r.Value.(float64)
		if err != nil || !ok || number < 0 || channel == "" && (number > 100 || r.Unit != "/100") || channel != "" && r.Unit != "B" {
			t.Errorf("%q: %+v, %v", channel, r, err)
		}
	}
}

// What is broken, half there or not there at all.
func TestReadBroken(t *testing.T) {
	const w1 = "sys/bus/w1/devices/28-1/w1_slave"
	for _, c := range []struct {
		name  string
		kind  sensor.Kind
		files map[string]string
		want  string
	}{
		{"nothing", sensor.CPUTemperature, nil, "no thermal zone"},
		{"no firmware", sensor.Throttled, nil, "no Raspberry Pi firmware"},
		{"flags that are none", sensor.Throttled, map[string]string{"sys/devices/platform/soc/soc:firmware/get_throttled": "x"}, "no hexadecimal number"},
		{"a Pi 5's firmware", sensor.ThrottledFlags, map[string]string{"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0"}, "0 "},
		{"voltage by hwmon", sensor.Undervoltage, map[string]string{"sys/class/hwmon/hwmon1/name": "rpi_volt", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1"}, "true "},
		{"no voltage", sensor.Undervoltage, nil, "no Raspberry Pi firmware"},
		{"no load", sensor.Load, map[string]string{"proc/loadavg": "0.5"}, `says "0.5"`},
		{"a load that is none", sensor.Load, map[string]string{"proc/loadavg": "a b c"}, `"a" is no number`},
		{"no memory", sensor.Memory, map[string]string{"proc/meminfo": "MemTotal: x kB"}, "does not tell"},
		{"more memory than there is", sensor.Memory, map[string]string{"proc/meminfo": "MemTotal: 1 kB\nMemAvailable: 2 kB"}, "does not tell"},
		{"no bus", sensor.DS18B20, nil, "no DS18B20"},
		{"wrong checksum", sensor.DS18B20, map[string]string{w1: "5a 01 4b 46 7f ff 0c 10 93 : crc=13 NO\n5a 01 t=21625"}, "checksum is wrong"},
		{"no temperature", sensor.DS18B20, map[string]string{w1: "5a : crc=93 YES\n5a 01"}, "tells no temperature"},
		{"just powered on", sensor.DS18B20, map[string]string{w1: "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t=85000"}, "just been powered on"},
		{"really 85 °C", sensor.DS18B20, map[string]string{w1: "50 05 4b 46 7f ff 10 10 1c : crc=1c YES\n50 05 4b 46 7f ff 10 10 1c t=85000"}, "85 Cel"},
		{"two", sensor.DS18B20, map[string]string{w1: "", "sys/bus/w1/devices/28-2/w1_slave": ""}, `such as "28-1"`},
		{"empty", sensor.DS18B20, map[string]string{w1: ""}, "checksum is wrong"},
		{"no device", sensor.BME280, nil, "is its overlay loaded?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := sensor.New(sensor.Config{Kind: c.kind, Root: tree(t, c.files)})
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Read(t.Context())
			if got := fmt.Sprint(format(r.Value), " ", r.Unit); err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		cfg  sensor.Config
		want string
	}{
		{sensor.Config{Kind: "barometer"}, `"barometer" is no kind of sensor`},
		{sensor.Config{Kind: sensor.Load, Channel: "1h"}, `no channel "1h"`},
		{sensor.Config{Kind: sensor.BMP280, Channel: "humidity"}, `no channel "humidity"`},
		{sensor.Config{Kind: sensor.Uptime, Channel: "x"}, `no channel "x"`},
		{sensor.Config{Kind: sensor.IIO, Channel: "temp"}, "needs a device"},
		{sensor.Config{Kind: sensor.Hwmon, Device: "x"}, "needs a channel"},
		{sensor.Config{Kind: sensor.Exec}, "needs a command"},
		{sensor.Config{Kind: sensor.File}, "needs a path"},
		{sensor.Config{Kind: sensor.Uptime, Unit: "°C"}, `"°C" is no unit of SenML`},
		{sensor.Config{Kind: sensor.Uptime, Threshold: -1}, "threshold or scale"},
		{sensor.Config{Kind: sensor.Uptime, Interval: -1}, "negative"},
	} {
		if _, err := sensor.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %s", c.cfg, err, c.want)
		}
	}
	for _, kind := range sensor.Kinds() {
		cfg := sensor.Config{Kind: kind, Device: "d", Channel: "", Path: "p", Command: []string{"c"}}
		if kind == sensor.IIO || kind == sensor.Hwmon {
			cfg.Channel = "temp1"
		}
		if _, err := sensor.New(cfg); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// run runs a sensor that reads a file, which says one text after the other, and returns what was reported and when.
func run(t *testing.T, cfg sensor.Config, texts ...string) (got string) {
	t.Helper()
	cfg.Kind, cfg.Path = sensor.File, filepath.Join(t.TempDir(), "value")
	s, err := sensor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(cfg.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(texts[0])
	begin := time.Now()
	go s.Run(t.Context(), func(r sensor.Reading, at time.Time) {
		got += fmt.Sprintf("%v:%s ", at.Sub(begin).Seconds(), format(r.Value))
	}, func(error) { got += "failed " })
	for _, text := range texts[1:] {
		time.Sleep(cfg.Interval / 2)
		synctest.Wait()
		write(text)
		time.Sleep(cfg.Interval / 2)
	}
	synctest.Wait()
	return strings.TrimSpace(got)
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   sensor.Config
		texts []string
		want  string
	}{
		{"everything", sensor.Config{}, []string{"1", "1", "2"}, "0:1 10:1 20:2"},
		{"what changed enough", sensor.Config{Threshold: 0.5}, []string{"1", "1.4", "1.6", "1.2", "1", "1"}, "0:1 20:1.6 40:1"},
		{"slow drift", sensor.Config{Threshold: 1}, []string{"1", "1.4", "1.8", "2.2"}, "0:1 30:2.2"},
		{"at least", sensor.Config{Threshold: 1, AtLeast: 20 * time.Second}, []string{"1", "1", "1", "1", "1"}, "0:1 20:1 40:1"},
		{"a flag", sensor.Config{Threshold: 1}, []string{"true", "true", "false", "false", "true"}, "0:true 20:false 40:true"},
		{"another kind of value", sensor.Config{Threshold: 1}, []string{"1", "off", "off", "1"}, "0:1 10:off 30:1"},
		{"a fault is told once", sensor.Config{}, []string{"1", "", "", "2", ""}, "0:1 failed 30:2 failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Interval = 10 * time.Second
				if got := run(t, c.cfg, c.texts...); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestPack(t *testing.T) {
	at := time.UnixMicro(1763787388250000)
	number := func(name string, v float64, unit string, after time.Duration) sensor.Record {
		return sensor.Record{Name: name, Reading: sensor.Reading{Value: v, Unit: unit}, At: at.Add(after)}
	}
	timeless := number("cpu", 1, "Cel", 0)
	timeless.At = time.Time{}
	for _, c := range []struct {
		name    string
		records []sensor.Record
		want    string
	}{
		{"one", []sensor.Record{number("cpu", 48.3, "Cel", 0)}, `[{"bn":"attic/","bt":1763787388.250000,"n":"cpu","u":"Cel","v":48.3}]`},
		{
			"several",
			[]sensor.Record{
				number("cpu", 0, "Cel", 0), number("cpu", 1e-7, "", 10500*time.Millisecond), number("load", 2, "count", -time.Second),
				{Name: "door", Reading: sensor.Reading{Value: false}, At: at},
				{Name: "says", Reading: sensor.Reading{Value: `a "b"`}, At: at},
			},
			`[{"bn":"attic/","bt":1763787388.250000,"n":"cpu","u":"Cel","v":0},{"n":"cpu","v":1e-7,"t":10.500000},` +
				`{"n":"load","u":"count","v":2,"t":-1.000000},{"n":"door","vb":false},{"n":"says","vs":"a \"b\""}]`,
		},
		{"secondary units need a version", []sensor.Record{number("cpu", 1, "Cel", 0), number("memory", 37.2, "/100", 0)}, `[{"bn":"attic/","bt":1763787388.250000,"bver":26,"n":"cpu","u":"Cel","v":1},{"n":"memory","u":"/100","v":37.2}]`},
		{"no clock", []sensor.Record{timeless, timeless}, `[{"bn":"attic/","n":"cpu","u":"Cel","v":1},{"n":"cpu","u":"Cel","v":1}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := sensor.Pack("attic", c.records)
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestUnits(t *testing.T) {
	for _, name := range []string{"Cel", "%RH", "/", "/100", "1/min", "m3/s"} {
		if !sensor.KnownUnit(name) {
			t.Errorf("%s is no unit", name)
		}
	}
	for _, name := range []string{"", "°C", "Cel Pa", "percent"} {
		if sensor.KnownUnit(name) {
			t.Errorf("%q is a unit", name)
		}
	}
}
