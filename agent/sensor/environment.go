package sensor

import (
	"os"
	"slices"
	"strings"
)

// othersEnvironment is ours without what is for us alone: a passphrase may be in it, or where systemd has put our secrets
// (systemd.exec(5)) and listens to us (sd_notify(3)).
func othersEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "PINSEAL_") || slices.Contains([]string{
			"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
		}, name)
	})
}
