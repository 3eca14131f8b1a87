package gpio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PWMFolder is where the kernel shows its PWM chips (Documentation/driver-api/pwm.rst, "Using PWMs with the sysfs
// interface").
const PWMFolder = "/sys/class/pwm" //nolint:gosec // no password

// PWMConfig says which channel of which chip a [PWM] drives.
type PWMConfig struct {
	Folder string // PWMFolder, or another for tests
	// Channel is CHIP/NUMBER. CHIP is a folder's name, such as "pwmchip0", or that of the device behind it, such as
	// "fe20c000.pwm": the latter is the same with every kernel.
	Channel   string
	ActiveLow bool // on is electrically low
	Initial   bool
	Exit      bool
	Frequency int // in hertz
}

// PWM is a channel of the kernel's PWM: hardware that modulates by itself. It is held by a lock on its duty cycle, which
// other nodes respect; the kernel itself lets everybody write. It is not safe for concurrent use.
type PWM struct {
	cfg    PWMConfig
	period time.Duration
	duty   *os.File
	level  uint8
}

// udevTime is how long udev may take to give a new channel to its group.
const udevTime = 2 * time.Second

// OpenPWM exports the channel where nobody has, sets its frequency and initial level, and enables it. The caller closes
// it. Errors: ErrNoChip, ErrLineNotFound, ErrBusy, ErrPermission.
func OpenPWM(cfg PWMConfig) (*PWM, error) {
	if cfg.Frequency < MinFrequency || cfg.Frequency > MaxFrequency {
		return nil, fmt.Errorf("a frequency is from %d to %d Hz", MinFrequency, MaxFrequency)
	}
	folder, err := exportPWM(cfg)
	if err != nil {
		return nil, err
	}
	p := &PWM{cfg: cfg, period: time.Second / time.Duration(cfg.Frequency)}
	if p.duty, err = holdPWM(filepath.Join(folder, "duty_cycle")); err != nil {
		return nil, err
	}
	if err := p.begin(folder); err != nil {
		return nil, errors.Join(fmt.Errorf("setting up %s: %w", cfg.Channel, err), p.duty.Close())
	}
	return p, nil
}

// exportPWM finds the chip and has the kernel show the channel.
func exportPWM(cfg PWMConfig) (folder string, err error) {
	name, channel, ok := strings.Cut(cfg.Channel, "/")
	number, numberErr := strconv.ParseUint(channel, 10, 16)
	if !ok || numberErr != nil {
		return "", fmt.Errorf("%w: %q is not a PWM channel such as pwmchip0/1", ErrLineNotFound, cfg.Channel)
	}
	chip, err := findPWM(cfg.Folder, name)
	if err != nil {
		return "", err
	}
	count, err := readNumber(filepath.Join(chip, "npwm"))
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoChip, chip, err)
	}
	if int64(number) >= count {
		return "", fmt.Errorf("%w: %s has the PWM channels 0 to %d", ErrLineNotFound, name, count-1)
	}
	folder = filepath.Join(chip, "pwm"+channel)
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	if err := writeText(filepath.Join(chip, "export"), channel); err != nil && !errors.Is(err, unix.EBUSY) {
		return "", pwmError(filepath.Join(chip, "export"), err)
	}
	return folder, nil
}

// findPWM gives the folder of a chip.
func findPWM(folder, name string) (string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for PWM chips: %w", err)
	}
	var there []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "pwmchip") {
			continue
		}
		chip := filepath.Join(folder, e.Name())
		device := ""
		if target, err := os.Readlink(filepath.Join(chip, "device")); err == nil {
			device = filepath.Base(target)
		}
		if e.Name() == name || device == name {
			return chip, nil
		}
		there = append(there, strings.TrimSpace(e.Name()+" "+device))
	}
	if len(there) == 0 {
		return "", fmt.Errorf("%w: this machine has no PWM; a Raspberry Pi needs dtoverlay=pwm or pwm-2chan in config.txt", ErrNoChip)
	}
	return "", fmt.Errorf("%w: no PWM chip %q; there are: %s", ErrNoChip, name, strings.Join(there, ", "))
}

// holdPWM opens the duty cycle and locks it. A channel that was exported a moment ago may still have to be given to its
// group.
func holdPWM(path string) (*os.File, error) {
	var f *os.File
	var err error
	for waited := time.Duration(0); ; waited += settleTime {
		f, err = os.OpenFile(path, os.O_RDWR, 0)
		if err == nil || waited >= udevTime || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(settleTime)
	}
	if err != nil {
		return nil, pwmError(path, err)
	}
	if err := control(f, func(fd uintptr) error { return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		_ = f.Close() // reported is why it is of no use
		return nil, fmt.Errorf("%w: %s is held by another pinseal", ErrBusy, filepath.Dir(path))
	}
	return f, nil
}

func pwmError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: %s: %w; docs/outputs.md says what a service needs for PWM", ErrPermission, path, err)
	}
	return err
}

// begin sets period and level in the order in which no duty cycle is ever longer than its period, which the kernel
// refuses, and without a moment at another level where the channel runs already.
func (p *PWM) begin(folder string) error {
	if err := p.setPolarity(folder); err != nil {
		return err
	}
	duty, err := p.readDuty()
	if err != nil {
		return err
	}
	level := levelOf(p.cfg.Initial)
	period := filepath.Join(folder, "period")
	write := []func() error{
		func() error { return writeText(period, strconv.FormatInt(int64(p.period), 10)) },
		func() error { return p.Drive(level) },
	}
	if duty > p.period {
		write[0], write[1] = write[1], write[0]
	}
	for _, step := range write {
		if err := step(); err != nil {
			return err
		}
	}
	return writeText(filepath.Join(folder, "enable"), "1")
}

// setPolarity makes the channel's the normal one. ActiveLow is up to us: not every chip can invert.
func (p *PWM) setPolarity(folder string) error {
	path := filepath.Join(folder, "polarity")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(text)) == "normal" {
		return nil // the kernel shows none where there is only one
	}
	if err != nil {
		return err
	}
	// It may be changed only while the channel is off.
	return errors.Join(writeText(filepath.Join(folder, "enable"), "0"), writeText(path, "normal"))
}

// Drive sets the level, from 0, off, to 255, and confirms it by reading it back.
func (p *PWM) Drive(level uint8) error {
	duty := p.period * time.Duration(level) / fullLevel
	if p.cfg.ActiveLow {
		duty = p.period - duty
	}
	if _, err := p.duty.WriteAt([]byte(strconv.FormatInt(int64(duty), 10)+"\n"), 0); err != nil {
		return fmt.Errorf("setting PWM %s: %w", p.cfg.Channel, err)
	}
	p.level = max(p.level, level) // as it may be, until it is known
	got, err := p.readDuty()
	if err != nil {
		return err
	}
	if got != duty {
		return fmt.Errorf("PWM %s was set to %v and is at %v", p.cfg.Channel, duty, got)
	}
	p.level = level
	return nil
}

// Level is the level that was last confirmed, or a higher one that it may be at since.
func (p *PWM) Level() uint8 { return p.level }

// Close drives the exit state and lets go of the channel, which goes on like that. A second Close does nothing.
func (p *PWM) Close() error {
	if p.duty == nil {
		return nil
	}
	err := errors.Join(p.Drive(levelOf(p.cfg.Exit)), p.duty.Close())
	p.duty = nil
	return err
}

func levelOf(on bool) uint8 {
	if on {
		return fullLevel
	}
	return 0
}

func (p *PWM) readDuty() (time.Duration, error) {
	var text [32]byte
	n, err := p.duty.ReadAt(text[:], 0)
	if n == 0 && err != nil {
		return 0, fmt.Errorf("reading PWM %s: %w", p.cfg.Channel, err)
	}
	first, _, _ := strings.Cut(string(text[:n]), "\n")
	duty, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading PWM %s: %w", p.cfg.Channel, err)
	}
	return time.Duration(duty), nil
}

func readNumber(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// writeText writes an attribute of sysfs, which must be there.
func writeText(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text + "\n")
	return errors.Join(err, f.Close())
}
