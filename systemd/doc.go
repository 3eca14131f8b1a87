// Package systemd speaks to the service manager (sd_notify(3)) and asks the
// system whether its clock is synchronised. Without systemd nothing here does
// anything, and that is no error: the same program runs in a terminal.
//
// All functions are safe for concurrent use.
package systemd
