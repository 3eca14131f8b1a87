package pki

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// localAddresses gives the addresses of this machine's interfaces.
func localAddresses() ([]netip.Addr, error) {
	listed, err := net.InterfaceAddrs()
	if err != nil {
		// It asks through a netlink socket, which a confined service may not make
		// (RestrictAddressFamilies= in systemd.exec(5)). Reading is always allowed.
		found, procErr := readAddresses("/proc/net")
		if procErr != nil {
			return nil, errors.Join(err, procErr)
		}
		return found, nil
	}
	var addresses []netip.Addr
	for _, address := range listed {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			addresses = append(addresses, prefix.Addr())
		}
	}
	return addresses, nil
}

// readAddresses reads what the kernel shows of its own addresses in a folder
// like /proc/net (proc_net(5)): fib_trie has the routes of IPv4, of which those
// to one host, local, are addresses; if_inet6 has the addresses of IPv6, and is
// missing without that.
func readAddresses(folder string) ([]netip.Addr, error) {
	routes, err := os.ReadFile(filepath.Join(folder, "fib_trie"))
	if err != nil {
		return nil, err
	}
	addresses := trieAddresses(string(routes))
	six, err := os.ReadFile(filepath.Join(folder, "if_inet6"))
	if errors.Is(err, os.ErrNotExist) {
		return addresses, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(six)) {
		address, err := parseInet6(line)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// trieAddresses finds the leaves "|-- 192.0.2.1" that have a line "/32 host LOCAL".
func trieAddresses(routes string) []netip.Addr {
	var (
		found []netip.Addr
		leaf  netip.Addr
	)
	for line := range strings.Lines(routes) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "|-- "); ok {
			leaf, _ = netip.ParseAddr(text) // what is no address is none of ours
		}
		if line == "/32 host LOCAL" && leaf.IsValid() {
			found = append(found, leaf)
			leaf = netip.Addr{} // the same stands in more than one table
		}
	}
	return found
}

// parseInet6 reads "fe80…01 02 40 20 80 eth0": the address is the first word, in 32 hexadecimal digits.
func parseInet6(line string) (netip.Addr, error) {
	digits, _, _ := strings.Cut(line, " ")
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("reading if_inet6: %w", err)
	}
	address, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.Addr{}, errors.New("reading if_inet6: a line does not begin with an address")
	}
	return address, nil
}
