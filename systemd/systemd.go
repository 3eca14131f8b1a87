// Package systemd speaks to the service manager and its time daemons. Without
// systemd everything here does nothing and reports no error.
package systemd

import "time"

// Ready tells the service manager that start-up or a reload is complete.
func Ready() error { return nil }

// Reloading tells the service manager that the configuration is being re-read;
// Ready ends it.
func Reloading() error { return nil }

// Stopping tells the service manager that the service is ending by itself.
func Stopping() error { return nil }

// Status shows one line of text in `systemctl status`.
func Status(state string) error { return nil }

// Alive feeds the watchdog once.
func Alive() error { return nil }

// WatchdogInterval is how often Alive must be called: half the time after
// which the service manager ends a silent service. Zero: no watchdog.
func WatchdogInterval() (time.Duration, error) { return 0, nil }

// ClockSynchronized reports whether the system says that its clock is
// synchronised with a time server.
func ClockSynchronized() bool { return false }
