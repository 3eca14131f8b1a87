package gpio_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pinseal/gpio"
)

func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// fakePWM is a folder like /sys/class/pwm with one chip of two channels, of which 0 is exported. What the kernel would
// refuse, a file takes: the order of writing is looked at by who writes the code.
func fakePWM(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	device := filepath.Join(folder, "devices", "fe20c000.pwm")
	chip := filepath.Join(folder, "pwmchip0")
	must(t, os.MkdirAll(device, 0o755), os.MkdirAll(chip, 0o755), os.Symlink(device, filepath.Join(chip, "device")))
	put(t, filepath.Join(chip, "npwm"), "2\n")
	must(t, syscall.Mkfifo(filepath.Join(chip, "export"), 0o600))
	fakeChannel(t, filepath.Join(chip, "pwm0"))
	return folder
}

func fakeChannel(t *testing.T, folder string) {
	t.Helper()
	must(t, os.Mkdir(folder+".new", 0o755))
	for name, text := range map[string]string{"period": "0\n", "duty_cycle": "0\n", "enable": "0\n", "polarity": "normal\n"} {
		put(t, filepath.Join(folder+".new", name), text)
	}
	must(t, os.Rename(folder+".new", folder))
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// attribute is the first line of a file: what is written to sysfs replaces all, of a file only as much as it is.
func attribute(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	must(t, err)
	first, _, _ := strings.Cut(string(text), "\n")
	return first
}

func TestPWM(t *testing.T) {
	for _, test := range []struct {
		name                      string
		cfg                       gpio.PWMConfig
		initial, half, full, exit string
	}{
		{"usual", gpio.PWMConfig{}, "0", "501960", "1000000", "0"},
		{"active-low", gpio.PWMConfig{ActiveLow: true}, "1000000", "498040", "0", "1000000"},
		{"on at both ends", gpio.PWMConfig{Initial: true, Exit: true}, "1000000", "501960", "1000000", "1000000"},
	} {
		for _, name := range []string{"pwmchip0/0", "fe20c000.pwm/0"} {
			t.Run(test.name+" "+name, func(t *testing.T) {
				folder := fakePWM(t)
				channel := filepath.Join(folder, "pwmchip0", "pwm0")
				put(t, filepath.Join(channel, "duty_cycle"), "5000000\n") // of another life, longer than our period
				put(t, filepath.Join(channel, "polarity"), "inversed\n")
				test.cfg.Folder, test.cfg.Channel, test.cfg.Frequency = folder, name, 1000
				p, err := gpio.OpenPWM(test.cfg)
				must(t, err)
				wantDuty := func(want string) {
					t.Helper()
					if got := attribute(t, channel, "duty_cycle"); got != want {
						t.Errorf("duty cycle %s, want %s", got, want)
					}
				}
				wantDuty(test.initial)
				if attribute(t, channel, "period") != "1000000" || attribute(t, channel, "enable") != "1" || attribute(t, channel, "polarity") != "normal" {
					t.Error("not set up")
				}
				for level, want := range map[uint8]string{128: test.half, 255: test.full} {
					if err := p.Drive(level); err != nil || p.Level() != level {
						t.Errorf("%d: %v, level %d", level, err, p.Level())
					}
					wantDuty(want)
				}
				if _, err := gpio.OpenPWM(test.cfg); !errors.Is(err, gpio.ErrBusy) {
					t.Errorf("held twice: %v", err)
				}
				must(t, p.Close(), p.Close())
				wantDuty(test.exit)
				again, err := gpio.OpenPWM(test.cfg)
				must(t, err)
				must(t, again.Close())
			})
		}
	}
}

// What cannot be read back may be on: who believed that it is off would not switch it off again.
func TestPWMCannotBeRead(t *testing.T) {
	folder := fakePWM(t)
	p, err := gpio.OpenPWM(gpio.PWMConfig{Folder: folder, Channel: "pwmchip0/0", Frequency: 1000})
	must(t, err)
	duty := filepath.Join(folder, "pwmchip0", "pwm0", "duty_cycle")
	blind(t, duty)
	for _, level := range []uint8{128, 0} {
		if err := p.Drive(level); err == nil || p.Level() != 128 {
			t.Errorf("driven to %d: %v, level %d", level, err, p.Level())
		}
	}
	if err := p.Close(); err == nil {
		t.Error("closing succeeds")
	}
}

// blind makes the open file at path one that takes what is written and gives nothing back.
func blind(t *testing.T, path string) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	for _, fd := range open {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && target == path {
			number, err := strconv.Atoi(fd.Name())
			must(t, err, syscall.Dup3(int(null.Fd()), number, syscall.O_CLOEXEC))
		}
	}
	must(t, null.Close())
}

// A channel that nobody has exported is; udev may take its time.
func TestPWMExports(t *testing.T) {
	folder := fakePWM(t)
	chip := filepath.Join(folder, "pwmchip0")
	exported := make(chan string, 1)
	go func() {
		text, err := os.ReadFile(filepath.Join(chip, "export")) // waits for who writes
		if err != nil {
			t.Error(err)
		}
		exported <- string(text)
		fakeChannel(t, filepath.Join(chip, "pwm1"))
	}()
	p, err := gpio.OpenPWM(gpio.PWMConfig{Folder: folder, Channel: "pwmchip0/1", Frequency: 200})
	must(t, err)
	if got := <-exported; got != "1\n" {
		t.Errorf("exported %q", got)
	}
	if got := attribute(t, chip, "pwm1", "period"); got != "5000000" {
		t.Errorf("period %s", got)
	}
	must(t, p.Close())
}

func TestPWMRefused(t *testing.T) {
	for _, test := range []struct {
		channel, folder, text string
		frequency             int
		want                  error
	}{
		{"pwmchip0", "", "not a PWM channel", 1000, gpio.ErrLineNotFound},
		{"pwmchip0/x", "", "not a PWM channel", 1000, gpio.ErrLineNotFound},
		{"pwmchip0/-1", "", "not a PWM channel", 1000, gpio.ErrLineNotFound},
		{"pwmchip0/2", "", "channels 0 to 1", 1000, gpio.ErrLineNotFound},
		{"pwmchip7/0", "", "there are: pwmchip0 fe20c000.pwm", 1000, gpio.ErrNoChip},
		{"../0", "", "there are: pwmchip0", 1000, gpio.ErrNoChip},
		{"pwmchip0/0", "/nonexistent", "dtoverlay=pwm", 1000, gpio.ErrNoChip},
		{"pwmchip0/0", "", "10 to 20000 Hz", 9, nil},
	} {
		folder := test.folder
		if folder == "" {
			folder = fakePWM(t)
		}
		_, err := gpio.OpenPWM(gpio.PWMConfig{Folder: folder, Channel: test.channel, Frequency: test.frequency})
		if err == nil || !strings.Contains(err.Error(), test.text) || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.channel, err)
		}
	}
}

// A channel that cannot be set up is given back.
func TestPWMThatIsNone(t *testing.T) {
	folder := fakePWM(t)
	period := filepath.Join(folder, "pwmchip0", "pwm0", "period")
	must(t, os.Remove(period))
	cfg := gpio.PWMConfig{Folder: folder, Channel: "pwmchip0/0", Frequency: 1000}
	if _, err := gpio.OpenPWM(cfg); err == nil || !strings.Contains(err.Error(), "pwmchip0/0") {
		t.Errorf("got %v", err)
	}
	put(t, period, "0\n")
	p, err := gpio.OpenPWM(cfg)
	must(t, err)
	must(t, p.Close())
}
