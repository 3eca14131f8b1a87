package pki

import "net/netip"

// ReadAddresses is what LocalNames falls back to.
func ReadAddresses(folder string) ([]netip.Addr, error) { return readAddresses(folder) }
