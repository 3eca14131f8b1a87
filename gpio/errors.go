package gpio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// busyError names who holds the line.
func busyError(l LineInfo) error {
	who := "somebody"
	if l.Consumer != "" {
		who = strconv.Quote(l.Consumer)
	}
	return fmt.Errorf("%w: %s is held by %s; stop that program or the device-tree overlay behind it, or use another line",
		ErrBusy, describe(l), who)
}

// permissionError names the device, its group and the cure.
func permissionError(path string, err error) error {
	if errors.Is(err, unix.EPERM) {
		// The mode would say EACCES: this is a control group, such as systemd's DevicePolicy makes.
		return fmt.Errorf("%w: %s is closed to this service; add DeviceAllow=char-gpiochip rw to its unit", ErrPermission, path)
	}
	group := groupOf(path)
	if group == "" || group == "root" {
		return fmt.Errorf("%w: %s is for root alone; run as root, or give it to group gpio by a udev rule", ErrPermission, path)
	}
	return fmt.Errorf("%w: %s belongs to group %s; sudo usermod -aG %s $USER, then log in again", ErrPermission, path, group, group)
}

// groupOf returns the name of the group that owns a file; its number if it has no name; empty if it cannot be told.
func groupOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	id := strconv.FormatUint(uint64(stat.Gid), 10)
	group, err := user.LookupGroupId(id)
	if err != nil {
		return id
	}
	return group.Name
}

// openError explains why a device could not be opened.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return permissionError(path, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no %s", ErrNoChip, path)
	}
	return fmt.Errorf("opening GPIO chip: %w", err)
}
