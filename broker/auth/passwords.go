package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"pinseal/pki"
)

// PasswordFile is a password file in mosquitto's format: a line NAME:HASH for each user. It is immutable.
type PasswordFile struct {
	users map[string]*hash
	list  []*hash // those of users, ordered by name
}

// ParsePasswordFile reads a password file; name is what errors call it. Beside the hashes of mosquitto_passwd 2.0 ($6$,
// $7$) it takes those of NewHash. Empty lines and comments are skipped. A user that is there twice is an error, because
// one of the two passwords would surprise.
func ParsePasswordFile(name string, text []byte) (*PasswordFile, error) {
	f := &PasswordFile{users: map[string]*hash{}}
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' {
			continue
		}
		user, hashText, _ := strings.Cut(line, ":")
		h, err := parseHash(hashText)
		switch {
		case !pki.ValidName(user):
			err = fmt.Errorf("no client can be named %.80q: names are letters, digits, _ and -, at most 64", user)
		case err != nil:
			err = fmt.Errorf("user %s: %w", user, err)
		case f.users[user] != nil:
			err = fmt.Errorf("user %s is there twice", user)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, number, err)
		}
		f.users[user] = h
	}
	for _, user := range slices.Sorted(maps.Keys(f.users)) {
		f.list = append(f.list, f.users[user])
	}
	return f, nil
}

// SetPassword returns the text of a password file with the user's line replaced or added; every other line stays.
func SetPassword(text []byte, user, hash string) []byte {
	out, found := replaceUser(text, user, user+":"+hash+"\n")
	if !found {
		if len(out) > 0 && out[len(out)-1] != '\n' {
			out = append(out, '\n')
		}
		out = append(out, user+":"+hash+"\n"...)
	}
	return out
}

// RemoveUser returns the text of a password file without the user, and whether it was there.
func RemoveUser(text []byte, user string) (without []byte, found bool) {
	return replaceUser(text, user, "")
}

func replaceUser(text []byte, user, line string) (out []byte, found bool) {
	for raw := range bytes.Lines(text) {
		if name, _, _ := strings.Cut(strings.TrimSpace(string(raw)), ":"); name != user {
			out = append(out, raw...)
		} else if !found {
			found = true
			out = append(out, line...)
		}
	}
	return out, found
}

// ErrPassword says that the user is unknown or the password wrong; which of the two, nobody is told.
var ErrPassword = errors.New("unknown user or wrong password")

// Passwords checks passwords. Hashing is bounded: half of the processors hash, and one address has one password checked
// at a time, as has an IPv6 network of 64 bits, so that a flood of logins leaves room for others. It is safe for
// concurrent use.
type Passwords struct {
	file  atomic.Pointer[PasswordFile]
	seed  maphash.Seed
	slots chan struct{}

	mu    sync.Mutex
	turns map[netip.Prefix]*turn
}

// turn lets one login of an address or network go at a time.
type turn struct {
	free  chan struct{}
	users int
}

// NewPasswords checks against the file until Set replaces it.
func NewPasswords(f *PasswordFile) *Passwords {
	p := &Passwords{seed: maphash.MakeSeed(), slots: make(chan struct{}, max(1, runtime.NumCPU()/2)), turns: map[netip.Prefix]*turn{}}
	p.file.Store(f)
	return p
}

// Set replaces the file.
func (p *Passwords) Set(f *PasswordFile) { p.file.Store(f) }

// Check returns nil, and a function that reports whether the same password would still do, or ErrPassword, or why ctx
// ended before there was a processor to hash with. It takes as long for an unknown user as for a known one.
func (p *Passwords) Check(ctx context.Context, address netip.Addr, user string, password []byte) (still func() error, err error) {
	waits := make([]chan struct{}, 0, 3)
	for _, from := range origins(address) {
		t := p.queue(from)
		defer p.leave(from, t)
		waits = append(waits, t.free)
	}
	for _, wait := range append(waits, p.slots) {
		select {
		case wait <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting to check a password: %w", ctx.Err())
		}
		defer func() { <-wait }()
	}
	f := p.file.Load()
	h, known := f.users[user]
	if !known {
		h = p.dummy(f, user)
	}
	if !h.matches(password) || !known {
		return nil, ErrPassword
	}
	return func() error {
		if now := p.file.Load().users[user]; now == nil || now.text != h.text {
			return ErrPassword
		}
		return nil
	}, nil
}

// dummy is the hash that an unknown user's password is compared with. Always the same for one name, and of the kinds
// that the file has, so that the time it takes tells nothing.
func (p *Passwords) dummy(f *PasswordFile, user string) *hash {
	if n := uint64(len(f.list)); n > 0 {
		return f.list[maphash.String(p.seed, user)%n]
	}
	return &hash{sum: []byte(rand.Text()), derive: func([]byte) []byte { return nil }}
}

// origins are an address and, with IPv6, the network all of which its owner mostly has. Who has one address of it only has
// one of those that take turns in it.
func origins(address netip.Addr) []netip.Prefix {
	if !address.IsValid() {
		return []netip.Prefix{{}}
	}
	from := []netip.Prefix{netip.PrefixFrom(address, address.BitLen())}
	if address.Is6() {
		from = append(from, netip.PrefixFrom(address, 64).Masked())
	}
	return from
}

func (p *Passwords) queue(from netip.Prefix) *turn {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.turns[from]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		p.turns[from] = t
	}
	t.users++
	return t
}

func (p *Passwords) leave(from netip.Prefix, t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(p.turns, from)
	}
}
