package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pinseal/systemd"
)

// installed writes the files below a folder, which is their prefix, and returns that of the units. The program is there too.
func installed(t *testing.T, arch string) (units string) {
	t.Helper()
	options := systemd.Options{Prefix: t.TempDir(), Arch: arch}
	write := func(path string, data []byte, perm os.FileMode) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, perm); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(options.Bin(), "pinseal"), []byte("#!/bin/true\n"), 0o755)
	for _, f := range systemd.Files(options) {
		if strings.Contains(string(f.Data), "@BIN@") || strings.Contains(string(f.Data), "@ARCH") {
			t.Errorf("%s has a blank that is not filled in", f.Path)
		}
		write(f.Path, f.Data, 0o644)
	}
	return filepath.Join(options.Prefix, "lib/systemd/system")
}

// analyze runs systemd-analyze (Debian package systemd), which needs no running systemd for what we ask.
func analyze(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), err
}

func TestUnitsAreValid(t *testing.T) {
	for _, arch := range []string{"arm64", "arm"} {
		t.Run(arch, func(t *testing.T) {
			units := installed(t, arch)
			for _, unit := range []string{systemd.ServiceUnit, systemd.SocketUnit, systemd.RenewUnit, systemd.TimerUnit, "pinseal-pub@load.service"} {
				// It warns about an unknown setting with words alone.
				if out, err := analyze(t, units, "verify", "--man=no", "./"+unit); err != nil || out != "" {
					t.Errorf("%s: %v\n%s", unit, err, out)
				}
			}
		})
	}
}

func TestExposure(t *testing.T) {
	tests := []struct {
		name, arch, unit, threshold string // in tenths
	}{
		{"node", "arm64", systemd.ServiceUnit, "12"},
		{"sensor", "arm64", systemd.SensorUnit, "12"},
		{"renewal", "arm64", systemd.RenewUnit, "21"},
		// Under a 64-bit systemd a 32-bit program needs a second set of system calls, which counts 0.2.
		{"node on 32 bits", "arm", systemd.ServiceUnit, "14"},
		{"sensor on 32 bits", "arm", systemd.SensorUnit, "12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			units := installed(t, tt.arch)
			if out, err := analyze(t, units, "security", "--no-pager", "--offline=true", "--threshold="+tt.threshold, "./"+tt.unit); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// The score does not know what this program needs and promises: these lines are the promise.
func TestServicePromises(t *testing.T) {
	service, err := os.ReadFile(filepath.Join(installed(t, "arm"), systemd.ServiceUnit))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(service), "\n")
	for _, want := range []string{
		"Type=notify", "WatchdogSec=30s", "Restart=always", "StartLimitIntervalSec=0",
		"User=pinseal", "Group=gpio", "DevicePolicy=closed", "DeviceAllow=char-gpiochip rw", "CapabilityBoundingSet=",
		"ProtectSystem=strict", "StateDirectory=pinseal", "StateDirectoryMode=0700", "RuntimeDirectory=pinseal",
		"LimitCORE=0", "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'", "SystemCallArchitectures=native arm",
		"ConditionPathExists=/etc/pinseal/pinseal.toml",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("there is no line %s", want)
		}
	}
	// What a Pi boots without must not hold it up.
	for _, waits := range []string{"network-online.target", "time-sync.target", "time-set.target"} {
		if strings.Contains(string(service), waits) {
			t.Errorf("it waits for %s", waits)
		}
	}
}

func TestUserIsMade(t *testing.T) {
	units := installed(t, "arm64")
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(filepath.Dir(filepath.Dir(units)), "sysusers.d/pinseal.conf")
	out, err := exec.CommandContext(t.Context(), "systemd-sysusers", "--root="+root, conf).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(passwd), "pinseal:") || !strings.Contains(string(passwd), "nologin") {
		t.Errorf("%v\n%s", err, passwd)
	}
	group, err := os.ReadFile(filepath.Join(root, "etc/group"))
	if err != nil || !strings.Contains(string(group), "gpio:") || !strings.Contains(string(group), ":pinseal\n") {
		t.Errorf("%v\n%s", err, group)
	}
}
