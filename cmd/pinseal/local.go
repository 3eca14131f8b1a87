package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// localName is the name under which multicast DNS (RFC 6762) announces a host.
func localName(hostName string) string {
	first, _, _ := strings.Cut(hostName, ".")
	return first + ".local"
}

// localTimeout is how long multicast DNS may take.
const localTimeout = 5 * time.Second

// dialTCP connects to address. A machine's own name.local is tried over loopback first: where no multicast DNS is
// installed nobody can resolve it, and a name server that does not answer would use up all the time there is.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var failed error
	if own, err := os.Hostname(); err == nil && host == localName(own) {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		failed = err // says more than that the name cannot be resolved
	}
	for _, target := range lookupLocal(ctx, host) {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(target, port))
		if err == nil {
			return conn, nil
		}
		if _, unknown := errors.AsType[*net.DNSError](err); !unknown || failed == nil {
			failed = err
		}
	}
	return nil, failed
}

// lookupLocal gives the addresses of a name.local as the C library knows them. A static Go program cannot ask the
// plug-ins that speak multicast DNS (nss-mdns, nss-resolve); getent can. Any other host is left to the dialer.
func lookupLocal(ctx context.Context, host string) []string {
	if !strings.HasSuffix(host, ".local") || strings.HasPrefix(host, "-") {
		return []string{host}
	}
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "ahosts", host).Output() //nolint:gosec // an argument, not a shell's word
	if err != nil {
		return []string{host}
	}
	var addresses []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 0 && !slices.Contains(addresses, fields[0]) {
			addresses = append(addresses, fields[0])
		}
	}
	if len(addresses) == 0 {
		return []string{host}
	}
	return addresses
}
