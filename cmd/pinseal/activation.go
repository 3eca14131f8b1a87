package main

import (
	"errors"
	"fmt"
	"net"

	"pinseal/systemd"
)

// bindListeners binds the configuration's addresses, one socket for each. Those that systemd holds for us (pinseal.socket)
// are taken over: then nobody is refused while the node restarts.
func (n *node) bindListeners() error {
	inherited, err := systemd.Listeners()
	if err != nil {
		return err
	}
	for _, l := range n.config.Listeners {
		socket := take(&inherited, string(l.Address))
		if socket == nil {
			if socket, err = l.listen(); err != nil {
				err = withHint(fmt.Errorf("listening on %s: %w", l.Address, err), "see who has the port: ss -ltnp; mosquitto is often already there (systemctl disable --now mosquitto)")
				return errors.Join(err, closeAll(inherited))
			}
		}
		n.sockets = append(n.sockets, socket)
	}
	for _, left := range inherited {
		n.log.Warn("systemd holds a socket that no [[listener]] names, it is not used", "address", left.Addr())
	}
	return closeAll(inherited)
}

// take finds the socket for an address, and removes it from the list.
func take(sockets *[]net.Listener, address string) net.Listener {
	for i, socket := range *sockets {
		if boundTo(socket.Addr(), address) {
			*sockets = append((*sockets)[:i:i], (*sockets)[i+1:]...)
			return socket
		}
	}
	return nil
}

// boundTo says whether a socket is where an address of the configuration wants one. No host, 0.0.0.0 and [::] are all of them.
func boundTo(bound net.Addr, address string) bool {
	has, ok := bound.(*net.TCPAddr)
	wants, err := net.ResolveTCPAddr("tcp", address)
	if !ok || err != nil || has.Port != wants.Port {
		return false
	}
	everywhere := wants.IP == nil || wants.IP.IsUnspecified()
	return everywhere && has.IP.IsUnspecified() || has.IP.Equal(wants.IP)
}

func closeAll(sockets []net.Listener) error {
	var errs []error
	for _, s := range sockets {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
