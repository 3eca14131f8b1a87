package sensor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// readText reads a short file, without the white space around its content.
func readText(path string) (string, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, MaxText+1))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	if len(data) > MaxText {
		return "", fmt.Errorf("%s says more than %d bytes", path, MaxText)
	}
	return strings.TrimSpace(string(data)), nil
}

// readFields reads the first fields of a file, at least n.
func readFields(path string, n int) ([]string, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(text)
	if len(fields) < n {
		return nil, fmt.Errorf("%s says %q", path, clip(text))
	}
	return fields, nil
}

// readScaled reads a file that is one number.
func readScaled(path string, factor float64, unit string) (Reading, error) {
	text, err := readText(path)
	if err != nil {
		return Reading{}, err
	}
	r, err := parseNumber(text, factor, unit)
	if err != nil {
		return Reading{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func parseNumber(text string, factor float64, unit string) (Reading, error) {
	number, ok := finite(text)
	if !ok {
		return Reading{}, fmt.Errorf("%q is no number", clip(text))
	}
	return Reading{Value: number * factor, Unit: unit}, nil
}

// finite reads a decimal number. What else ParseFloat takes (Inf, 0x1p3, 1_000) is text.
func finite(text string) (float64, bool) {
	if strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune("+-.0123456789eE", r) }) {
		return 0, false
	}
	number, err := strconv.ParseFloat(text, 64)
	return number, err == nil && !math.IsInf(number, 0)
}

// understand makes a reading of what a command or a file says: a number, true or false, or text.
func understand(text string) (Reading, error) {
	switch number, ok := finite(text); {
	case ok:
		return Reading{Value: number}, nil
	case text == "true", text == "false":
		return Reading{Value: text == "true"}, nil
	case text == "":
		return Reading{}, errors.New("it says nothing")
	case !utf8.ValidString(text):
		return Reading{}, errors.New("what it says is no UTF-8")
	}
	return Reading{Value: text}, nil
}

// clip keeps an error on one line.
func clip(text string) string {
	const most = 40
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

func (s *Sensor) file() (Reading, error) {
	path := s.cfg.Path
	if !filepath.IsAbs(path) {
		path = s.under(path)
	}
	text, err := readText(path)
	if err != nil {
		return Reading{}, err
	}
	r, err := understand(text)
	if err != nil {
		return Reading{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// killDelay is how long a killed command may keep its output open, by a child in another group for instance.
const killDelay = time.Second

// exec runs the command in a process group of its own, so that all it starts can be ended.
func (s *Sensor) exec(ctx context.Context) (Reading, error) {
	name := s.cfg.Command[0]
	limited, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, name, s.cfg.Command[1:]...) //nolint:gosec // the configuration names it; who writes that may run what the service may
	cmd.Env = othersEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killDelay
	out := &limitedText{full: cancel}
	cmd.Stdout = out
	err := cmd.Run()
	switch {
	case out.tooMuch:
		return Reading{}, fmt.Errorf("%s says more than %d bytes", name, MaxText)
	case ctx.Err() != nil:
		return Reading{}, ctx.Err()
	case errors.Is(err, exec.ErrWaitDelay):
		// What it started and left behind would be there once more after every reading.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // fails if it is no longer of this group
		return Reading{}, fmt.Errorf("%s leaves something behind that keeps its output open", name)
	case limited.Err() != nil:
		return Reading{}, fmt.Errorf("%s takes longer than %v", name, s.cfg.Timeout)
	case err != nil:
		return Reading{}, fmt.Errorf("running %s: %w", name, err)
	}
	r, err := understand(strings.TrimSpace(string(out.text)))
	if err != nil {
		return Reading{}, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// limitedText keeps what a command says, and ends it when it says too much.
type limitedText struct {
	text    []byte
	tooMuch bool
	full    func()
}

func (l *limitedText) Write(p []byte) (int, error) {
	if len(l.text)+len(p) > MaxText {
		l.tooMuch = true
		l.full()
		return len(p), nil
	}
	l.text = append(l.text, p...)
	return len(p), nil
}
