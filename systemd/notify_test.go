package systemd_test

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"pinseal/systemd"
)

// manager listens as the service manager does and returns the next datagram.
func manager(t *testing.T) func() string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	return func() string {
		b := make([]byte, 1024)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotify(t *testing.T) {
	next := manager(t)
	tests := []struct {
		name, want string
		send       func() error
	}{
		{"ready", `READY=1`, systemd.Ready},
		{"stopping", `STOPPING=1`, systemd.Stopping},
		{"alive", `WATCHDOG=1`, systemd.Alive},
		{"reloading", `RELOADING=1\nMONOTONIC_USEC=[0-9]{4,}`, systemd.Reloading},
		{"status", `STATUS=2 clients, LED on`, func() error { return systemd.Status("2 clients, LED on") }},
		{"status that is no other state", `STATUS=a READY=1 b`, func() error { return systemd.Status("a\nREADY=1\n b") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.send(); err != nil {
				t.Fatal(err)
			}
			if got := next(); !regexp.MustCompile(`^` + tt.want + `$`).MatchString(got) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := systemd.Ready(); err != nil {
		t.Errorf("no manager: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := systemd.Ready(); err == nil {
		t.Error("a manager that does not listen goes unnoticed")
	}
}

func TestWatchdogInterval(t *testing.T) {
	tests := []struct {
		name, usec, pid string
		want            time.Duration
		bad             bool
	}{
		{"none", "", "", 0, false},
		{"half of it", "30000000", "", 15 * time.Second, false},
		{"another process", "30000000", strconv.Itoa(1 << 30), 0, false},
		{"not a number", "soon", "", 0, true},
		{"zero", "0", "", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", tt.usec)
			t.Setenv("WATCHDOG_PID", tt.pid)
			got, err := systemd.WatchdogInterval()
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
