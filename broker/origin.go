package broker

import "net/netip"

// share is how much of something one origin may have.
type share struct {
	of   netip.Prefix
	most int
}

// covers reports whether the address is of the origin.
func (s share) covers(address netip.Addr) bool {
	return s.of.Contains(address) || !s.of.IsValid() && !address.IsValid() // no prefix contains what a Unix socket has
}

// shares are those of an address, and with IPv6 of its network of 64 bits: whoever has one address mostly has all of its
// network. But a network is also everybody at home, and one who floods is not to keep the others out. So it has what is
// halfway between what an address may have and all there is.
type shares []share

func sharesOf(address netip.Addr, most, all int) shares {
	if !address.IsValid() { // a Unix socket: all that come this way are one
		return shares{{netip.Prefix{}, most}}
	}
	s := shares{{netip.PrefixFrom(address, address.BitLen()), most}}
	if address.Is6() {
		s = append(s, share{netip.PrefixFrom(address, 64).Masked(), most + max(0, all-most)/2})
	}
	return s
}

func (l *Limits) connectionsOf(address netip.Addr) shares {
	return sharesOf(address, l.MaxConnectionsPerAddress, l.MaxConnections)
}

func (l *Limits) pendingOf(address netip.Addr) shares {
	return sharesOf(address, l.MaxPendingPerAddress, l.MaxPending)
}

// connectRateOf has no whole to take a part of: a network has twice what an address has.
func (l *Limits) connectRateOf(address netip.Addr) shares {
	return sharesOf(address, l.MaxConnectRate, 3*l.MaxConnectRate)
}

// within reports whether each may have n more than is counted.
func (s shares) within(counted map[netip.Prefix]int, n int) bool {
	for _, share := range s {
		if counted[share.of]+n > share.most {
			return false
		}
	}
	return true
}

func (s shares) count(counted map[netip.Prefix]int, n int) {
	for _, share := range s {
		if counted[share.of] += n; counted[share.of] == 0 {
			delete(counted, share.of)
		}
	}
}
