package gpio_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

func TestSimConforms(t *testing.T) {
	gpiotest.Conformance(t, func(t *testing.T) gpiotest.Bench {
		t.Helper()
		dir := t.TempDir()
		return gpiotest.Bench{Chip: openSim(t, dir), Drive: func(t *testing.T, line string, l gpio.Level) {
			t.Helper()
			text := map[gpio.Level]string{gpio.Low: "0\n", gpio.High: "1"}[l]
			if err := os.WriteFile(filepath.Join(dir, line), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}}
	})
}

func TestSimFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "lines")
	chip := openSim(t, dir)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 28 {
		t.Fatalf("%d files, %v; want one a line", len(files), err)
	}
	wantFile(t, dir, "GPIO17", "0")
	o := open(t, chip, gpio.OutputConfig{Line: "GPIO17", ActiveLow: true, Exit: true})
	wantFile(t, dir, "GPIO17", "1")
	if err := o.Set(true); err != nil {
		t.Fatal(err)
	}
	wantFile(t, dir, "GPIO17", "0")
	if err := errors.Join(o.Set(false), o.Close()); err != nil {
		t.Fatal(err)
	}
	wantFile(t, dir, "GPIO17", "0")
	wantFile(t, dir, "GPIO18", "0")
}

// A level outlives the chip, as that of a pin outlives a program.
func TestSimKeepsLevels(t *testing.T) {
	dir := t.TempDir()
	o := open(t, openSim(t, dir), gpio.OutputConfig{Line: "GPIO17", Initial: true, Exit: true})
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	openSim(t, dir)
	wantFile(t, dir, "GPIO17", "1")
}

// Two chips in one folder stand for two programs.
func TestSimIsBusyAcrossChips(t *testing.T) {
	dir := t.TempDir()
	first, second := openSim(t, dir), openSim(t, dir)
	o := open(t, first, gpio.OutputConfig{Line: "GPIO17"})
	if _, err := second.Output("GPIO17", gpio.High); !errors.Is(err, gpio.ErrBusy) {
		t.Fatalf("got %v", err)
	}
	wantFile(t, dir, "GPIO17", "0")
	lines, err := second.Lines()
	if err != nil || !lines[17].Used || lines[17].Direction != gpio.Out {
		t.Fatalf("%+v, %v", lines[17], err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, second, gpio.OutputConfig{Line: "GPIO17"})
}

// Whoever reads at any moment finds a whole level.
func TestSimReadersSeeWholeLevels(t *testing.T) {
	dir := t.TempDir()
	o := open(t, openSim(t, dir), gpio.OutputConfig{Line: "GPIO17"})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2000 {
			if err := o.Set(i%2 == 0); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		if text, err := os.ReadFile(filepath.Join(dir, "GPIO17")); err != nil || (string(text) != "0" && string(text) != "1") {
			t.Fatalf("read %q, %v", text, err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// A replaced file is how a careful program moves an input.
func TestSimInputByReplacement(t *testing.T) {
	dir := t.TempDir()
	line, err := openSim(t, dir).Input("GPIO22", gpio.PullDown)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(dir, "next")
	if err := errors.Join(os.WriteFile(next, []byte("1"), 0o600), os.Rename(next, filepath.Join(dir, "GPIO22"))); err != nil {
		t.Fatal(err)
	}
	if edge, err := line.WaitEdge(t.Context()); err != nil || edge.Level != gpio.High {
		t.Fatalf("got %v, %v", edge.Level, err)
	}
}

func TestSimFileLost(t *testing.T) {
	dir := t.TempDir()
	o := open(t, openSim(t, dir), gpio.OutputConfig{Line: "GPIO17"})
	if err := os.Remove(filepath.Join(dir, "GPIO17")); err != nil {
		t.Fatal(err)
	}
	if err := o.Set(true); err == nil {
		t.Fatal("a level that nobody can read was confirmed")
	}
}

func TestSimFolderUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := gpio.OpenSim(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Fatalf("got %v", err)
	}
}

func openSim(t *testing.T, dir string) gpio.Chip {
	t.Helper()
	c, err := gpio.OpenSim(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantFile(t *testing.T, dir, line, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, line)); err != nil || string(got) != want {
		t.Fatalf("%s holds %q, %v; want %q", line, got, err, want)
	}
}
