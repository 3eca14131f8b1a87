package systemd

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listeners are the sockets that the service manager bound for this process
// (sd_listen_fds(3)), and that are the caller's now. It takes them once: a
// second call finds none. A socket that does not listen is an error.
func Listeners() ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("taking over sockets: %w", err)
	}
	for i, l := range listeners {
		if l == nil {
			return nil, fmt.Errorf("taking over sockets: number %d of %d does not listen: ListenStream= is the only kind", i+1, len(listeners))
		}
	}
	return listeners, nil
}
