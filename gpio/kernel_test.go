//go:build kernelgpio

package gpio_test

// The same tests on chips of the kernel, made by its gpio-sim driver, with the kernel's own trace as the oscilloscope.
// They need root and a Linux from 5.17 with gpio-sim, best in a virtual machine; there is no hardware to harm:
//
//	CGO_ENABLED=0 GOARCH=arm64 go test -c -tags kernelgpio -o gpio.test ./gpio
//	sudo ./gpio.test -test.run Kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/driver/driverreg"
	periph "periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"
)

const simLabel = "pinctrl-rp1"

// kernelSim is two chips of the kernel with the label of a Pi 5's header chip.
type kernelSim struct {
	main, twin string // such as gpiochip2
	lines      string // folder of the main chip's lines in sysfs
}

// newKernelSim makes the chips: the first as the mainline kernel names a header's lines, the second with one line, TWIN.
func newKernelSim(t *testing.T) (s kernelSim) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "modprobe", "gpio-sim").CombinedOutput(); err != nil {
		t.Fatalf("modprobe gpio-sim: %v: %s", err, out)
	}
	if err := unix.Mount("configfs", configfs, "configfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	s.main, s.lines = newKernelChip(t, "pinseal-main", mainlineNames())
	s.twin, _ = newKernelChip(t, "pinseal-twin", []string{"TWIN"})
	// The devices get their owners a moment after they appear.
	if out, err := exec.CommandContext(t.Context(), "udevadm", "settle").CombinedOutput(); err != nil {
		t.Fatalf("udevadm settle: %v: %s", err, out)
	}
	return s
}

const configfs = "/sys/kernel/config"

// newKernelChip makes one chip, for the time of the test.
func newKernelChip(t *testing.T, device string, names []string) (chip, lines string) {
	t.Helper()
	dir := filepath.Join(configfs, "gpio-sim", device)
	bank := filepath.Join(dir, "bank0")
	for _, path := range []string{dir, bank} {
		mkdir(t, path)
	}
	write(t, filepath.Join(bank, "num_lines"), fmt.Sprint(len(names)))
	write(t, filepath.Join(bank, "label"), simLabel)
	for i, name := range names {
		line := filepath.Join(bank, fmt.Sprintf("line%d", i))
		mkdir(t, line)
		write(t, filepath.Join(line, "name"), name)
	}
	write(t, filepath.Join(dir, "live"), "1")
	t.Cleanup(func() { write(t, filepath.Join(dir, "live"), "0") })
	chip = read(t, filepath.Join(bank, "chip_name"))
	return chip, filepath.Join("/sys/devices/platform", read(t, filepath.Join(dir, "dev_name")), chip)
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
}

func mainlineNames() []string {
	names := make([]string, 30)
	for i := range names {
		names[i] = fmt.Sprintf("GPIO%d", i)
	}
	names[4] = "GPIO_GCLK"
	return names
}

func (s kernelSim) drive(t *testing.T, line string, l gpio.Level) {
	t.Helper()
	pull := map[gpio.Level]string{gpio.Low: "pull-down", gpio.High: "pull-up"}[l]
	write(t, filepath.Join(s.lines, "sim_"+strings.ToLower(line), "pull"), pull)
}

func (s kernelSim) open(t *testing.T, which string) gpio.Chip {
	t.Helper()
	c, err := gpio.OpenChip(which)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestKernelConforms(t *testing.T) {
	s := newKernelSim(t)
	gpiotest.Conformance(t, func(t *testing.T) gpiotest.Bench {
		t.Helper()
		return gpiotest.Bench{Chip: s.open(t, simLabel), Drive: s.drive}
	})
}

// The kernel takes the debouncing over, and a contact that bounces is one change.
func TestKernelDebounces(t *testing.T) {
	const period = time.Second // much longer than an emulated machine takes for a bounce
	s := newKernelSim(t)
	line, err := s.open(t, simLabel).Input("GPIO27", gpio.PullDown)
	if err != nil {
		t.Fatal(err)
	}
	debounced, ok := line.(interface {
		Debounce(period time.Duration) error
	})
	if !ok {
		t.Fatal("a kernel's line cannot be debounced by the kernel")
	}
	if err := errors.Join(debounced.Debounce(period), line.Close()); err != nil {
		t.Fatal(err)
	}
	in, err := gpio.OpenInput(s.open(t, simLabel), gpio.InputConfig{Line: "GPIO22", Pull: gpio.PullDown, Debounce: period})
	if err != nil {
		t.Fatal(err)
	}
	changes, ended := make(chan gpio.Change, 100), make(chan error)
	go func() { ended <- in.Run(t.Context(), func(c gpio.Change) { changes <- c }) }()
	for _, level := range []gpio.Level{gpio.High, gpio.Low} {
		begin := time.Now()
		for range 5 {
			s.drive(t, "GPIO22", level)
			s.drive(t, "GPIO22", !level)
		}
		s.drive(t, "GPIO22", level)
		if c := <-changes; c.On != bool(level) || c.At.Before(begin.Add(period/2)) || time.Since(c.At) < 0 {
			t.Errorf("got %+v, %v after the first bounce; want %v", c, c.At.Sub(begin), level)
		}
	}
	if total, _ := in.Pulses(time.Now()); total != 1 || len(changes) > 0 {
		t.Errorf("%d pulses, and %d changes more", total, len(changes))
	}
	if err := errors.Join(in.Close(), <-ended); err != nil {
		t.Error(err)
	}
}

func TestKernelChipIsFound(t *testing.T) {
	s := newKernelSim(t)
	link := "/dev/gpiochip987"
	if err := os.Symlink(s.main, link); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(link) }()
	for _, which := range []string{"", gpio.AutoLabel, simLabel, s.main, "/dev/" + s.main, link} {
		lines, err := s.open(t, which).Lines()
		if err != nil || len(lines) < 30 || lines[17].Name != "GPIO17" || lines[17].Chip != simLabel || lines[17].Offset != 17 {
			t.Errorf("opening %q: %+v, %v", which, lines, err)
		}
		if want := map[string]int{s.main: 30, "/dev/" + s.main: 30, link: 30}[which]; want != 0 && len(lines) != want {
			t.Errorf("opening %q: %d lines", which, len(lines))
		}
	}
	if _, err := gpio.OpenChip("no-such-label"); !errors.Is(err, gpio.ErrNoChip) || !strings.Contains(err.Error(), simLabel) {
		t.Errorf("unknown label: %v", err)
	}
}

// Of two chips with one label, the one that has the line is used.
func TestKernelTwins(t *testing.T) {
	s := newKernelSim(t)
	c := s.open(t, gpio.AutoLabel)
	for line, want := range map[string]string{"TWIN": s.twin, "GPIO17": s.main, "GPIO4": s.main} {
		out, err := c.Output(line, gpio.High)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		lines, err := c.Lines()
		i := slices.IndexFunc(lines, func(l gpio.LineInfo) bool { return l.Used })
		if err != nil || i < 0 || lines[i].Path != "/dev/"+want {
			t.Errorf("%s: claimed %+v, %v; want it on %s", line, lines, err, want)
		}
		_ = out.Close()
	}
}

// TestKernelNoGlitch compares what the kernel did to the line with the only thing it should have done.
func TestKernelNoGlitch(t *testing.T) {
	s := newKernelSim(t)
	c := s.open(t, s.main)
	for _, test := range []struct {
		name string
		cfg  gpio.OutputConfig
		want string
	}{
		{"starts off", gpio.OutputConfig{}, "0 out 1 0 0"},
		{"starts on", gpio.OutputConfig{Initial: true, Exit: true}, "1 out 1 0 1"},
		{"active-low, starts off", gpio.OutputConfig{ActiveLow: true}, "1 out 0 1 1"},
		{"active-low, starts on", gpio.OutputConfig{ActiveLow: true, Initial: true, Exit: true}, "0 out 0 1 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.cfg.Line = "GPIO17"
			stop := trace(t)
			o, err := gpio.OpenOutput(c, test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(o.Set(true), o.Set(false), o.Close())
			if got := stop(); err != nil || got != test.want {
				t.Errorf("the kernel did %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// The two directions of a pin that a periph device driver turns round: level and direction are one request here too.
func TestKernelNoGlitchTurningRound(t *testing.T) {
	s := newKernelSim(t)
	pin := claimPin(t, s, "GPIO17", gpio.High)
	stop := trace(t)
	err := errors.Join(pin.In(periph.PullDown, periph.NoEdge), pin.Out(periph.High))
	if got := stop(); err != nil || got != "in 1 out" {
		t.Errorf("the kernel did %q, %v", got, err)
	}
}

// trace records what the kernel does to lines from now until the function that it returns is called, which gives it as
// words: 0 and 1 for a level that is set, in and out for a direction.
func trace(t *testing.T) (stop func() string) {
	t.Helper()
	const tracing = "/sys/kernel/tracing"
	if err := unix.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	enable := filepath.Join(tracing, "events/gpio/enable")
	write(t, filepath.Join(tracing, "trace"), "\n")
	write(t, enable, "1")
	t.Cleanup(func() { write(t, enable, "0") })
	event := regexp.MustCompile(`gpio_value: \d+ set (\d)|gpio_direction: \d+ +(in|out)`)
	return func() string {
		t.Helper()
		var words []string
		for _, m := range event.FindAllStringSubmatch(read(t, filepath.Join(tracing, "trace")), -1) {
			words = append(words, m[1]+m[2])
		}
		return strings.Join(words, " ")
	}
}

func claimPin(t *testing.T, s kernelSim, line string, l gpio.Level) periph.PinIO {
	t.Helper()
	out, err := s.open(t, s.main).Output(line, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	pin, ok := out.(periph.PinIO)
	if !ok {
		t.Fatalf("%T is not periph's gpio.PinIO", out)
	}
	return pin
}

func TestKernelPinIO(t *testing.T) {
	s := newKernelSim(t)
	pin := claimPin(t, s, "GPIO17", gpio.High)
	function := pin.(interface{ Function() string }).Function //nolint:errcheck // periph calls it deprecated, and asks for it
	for what, ok := range map[string]bool{
		"name":     pin.Name() == "GPIO17" && pin.Number() == 17 && strings.Contains(pin.String(), "GPIO17"),
		"output":   bool(pin.Read()) && function() == string(periph.OUT_HIGH),
		"pwm":      pin.PWM(periph.DutyHalf, 0) != nil,
		"low":      pin.Out(periph.Low) == nil && !bool(pin.Read()) && function() == string(periph.OUT_LOW),
		"no edges": !pin.WaitForEdge(-1),
		"no pull":  pin.Pull() == periph.PullNoChange && pin.DefaultPull() == periph.PullNoChange,
		"no such":  pin.In(17, periph.NoEdge) != nil && pin.In(periph.PullUp, 17) != nil,
	} {
		if !ok {
			t.Errorf("output: %s: %v", what, function())
		}
	}
	if err := pin.In(periph.PullUp, periph.FallingEdge); err != nil || !pin.Read() || pin.Pull() != periph.PullUp || function() != string(periph.IN_HIGH) {
		t.Fatalf("pulled up: %v, %s", err, function())
	}
	if pin.WaitForEdge(0) || pin.WaitForEdge(time.Millisecond) {
		t.Error("an edge that was none")
	}
	s.drive(t, "GPIO17", gpio.Low)
	for !pin.WaitForEdge(0) { // it only looks; the kernel hands an edge over a moment later
		runtime.Gosched()
	}
	s.drive(t, "GPIO17", gpio.High)
	s.drive(t, "GPIO17", gpio.Low)
	if !pin.WaitForEdge(-1) || pin.WaitForEdge(0) {
		t.Error("not one falling edge, or also the rising one")
	}
	err := pin.In(periph.PullDown, periph.BothEdges)
	for _, pull := range []periph.Pull{periph.PullUp, periph.PullDown, periph.PullUp} {
		err = errors.Join(err, pin.In(pull, periph.BothEdges))
		if err != nil || pin.WaitForEdge(0) || pin.WaitForEdge(10*time.Millisecond) {
			t.Fatalf("%v, or the change to %v is an edge", err, pull)
		}
	}
	halted := make(chan bool)
	go func() { halted <- pin.WaitForEdge(-1) }()
	for {
		// Halt ends a wait that is under way, and this one may not have begun.
		if err := pin.Halt(); err != nil {
			t.Fatal(err)
		}
		select {
		case edge := <-halted:
			if edge {
				t.Error("Halt looks like an edge")
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func TestKernelBusyNamesTheOther(t *testing.T) {
	s := newKernelSim(t)
	ctx, cancel := context.WithCancel(t.Context())
	other := exec.CommandContext(ctx, "gpiomon", s.main, "17")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = other.Wait() }()
	c := s.open(t, s.main)
	for {
		lines, err := c.Lines()
		if err != nil {
			t.Fatal(err)
		}
		if lines[17].Used {
			break
		}
	}
	_, err := gpio.OpenOutput(c, gpio.OutputConfig{Line: "GPIO17"})
	if !errors.Is(err, gpio.ErrBusy) || !strings.Contains(err.Error(), `"gpiomon"`) || !strings.Contains(err.Error(), "GPIO17 of "+simLabel) {
		t.Errorf("got %v", err)
	}
}

func TestKernelPermission(t *testing.T) {
	s := newKernelSim(t)
	path := "/dev/" + s.main
	for _, c := range []struct {
		name, want string
		gid        int
	}{
		{"of a group", "belongs to group bin; sudo usermod -aG bin $USER", 2},
		{"of root", "is for root alone", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := errors.Join(os.Chown(path, 0, c.gid), os.Chmod(path, 0o660)); err != nil {
				t.Fatal(err)
			}
			for _, which := range []string{path, s.main} {
				_, err := openAsNobody(which)
				if !errors.Is(err, gpio.ErrPermission) || !strings.Contains(err.Error(), path+" "+c.want) {
					t.Errorf("opening %s: %v", which, err)
				}
			}
		})
	}
}

// openAsNobody opens the chip on a thread whose file system identity has no rights; the thread ends with it.
func openAsNobody(which string) (c gpio.Chip, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		_, _ = unix.SetfsgidRetGid(65534)
		_, _ = unix.SetfsuidRetUid(65534)
		c, err = gpio.OpenChip(which)
	}()
	<-done
	return c, err
}

// TestKernelAgreesWithPeriph compares what this package and periph's gpioioctl say about the chips, and holds the reason
// why gpioioctl is not used: a second name of a chip in /dev makes its initialisation close file descriptor 0. Should that
// no longer fail, look at it again.
func TestKernelAgreesWithPeriph(t *testing.T) {
	s := newKernelSim(t)
	link := "/dev/gpiochip987"
	if err := os.Symlink(s.main, link); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(link) }()
	log.SetOutput(io.Discard)
	defer log.SetOutput(os.Stderr)

	stdin, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	before := identity(0)
	if _, err := driverreg.Init(); err != nil {
		t.Fatal(err)
	}
	after := identity(0)
	if err := unix.Dup3(stdin, 0, 0); err != nil {
		t.Fatal(err)
	}
	if before == after {
		t.Error("gpioioctl did not close file descriptor 0")
	}

	for _, chip := range gpioioctl.Chips {
		lines, err := s.open(t, chip.Name()).Lines()
		if err != nil || len(lines) != chip.LineCount() {
			t.Fatalf("%s: %d lines, %v; periph has %d", chip.Name(), len(lines), err, chip.LineCount())
		}
		for i, theirs := range chip.Lines() {
			ours := lines[i]
			// periph renames lines whose name another chip has too.
			if ours.Chip != chip.Label() || !strings.HasSuffix(theirs.Name(), ours.Name) || ours.Consumer != theirs.Consumer() {
				t.Errorf("%+v, and periph has %s on %s", ours, theirs, chip.Label())
			}
		}
	}
}

// identity says which file a descriptor is.
func identity(fd int) string {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err.Error()
	}
	return fmt.Sprint(stat.Dev, stat.Ino, stat.Rdev)
}
