package systemd

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Ready tells the service manager that start-up, or a reload, is complete.
func Ready() error { return notify(daemon.SdNotifyReady) }

// Reloading tells the service manager that the configuration is being read
// again; Ready ends it. A unit with Type=notify-reload needs both.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("reading the monotonic clock: %w", err)
	}
	return notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
}

// Stopping tells the service manager that the service is about to end.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// Status shows a line of text in `systemctl status`.
func Status(state string) error {
	// A line break would begin another assignment.
	return notify("STATUS=" + strings.Join(strings.Fields(state), " "))
}

// Alive feeds the watchdog once.
func Alive() error { return notify(daemon.SdNotifyWatchdog) }

// WatchdogInterval is how often to call Alive: half the time after which the
// service manager ends a service that is silent (WatchdogSec=). Zero: there is
// no watchdog, or it watches another process.
func WatchdogInterval() (time.Duration, error) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("reading the watchdog's interval: %w", err)
	}
	return limit / 2, nil
}

// notify sends a state, if there is anyone to send it to ($NOTIFY_SOCKET).
func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notifying the service manager: %w", err)
	}
	return nil
}
