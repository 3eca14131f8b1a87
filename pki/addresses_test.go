package pki_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pinseal/pki"
)

const trie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.9
           /32 link UNICAST
Local:
  +-- 127.0.0.0/8 2 0 2
     |-- 127.0.0.0
        /32 link BROADCAST
        /8 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
  +-- 192.0.2.0/24 2 0 2
     |-- 192.0.2.7
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
`

func writeProc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadAddresses(t *testing.T) {
	t.Parallel()
	const six = "00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000007 02 40 00 80     eth0\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string // nil: an error
	}{
		{"both", map[string]string{"fib_trie": trie, "if_inet6": six}, []string{"127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"}},
		{"no IPv6", map[string]string{"fib_trie": trie}, []string{"127.0.0.1", "192.0.2.7"}},
		{"no network", map[string]string{"fib_trie": "", "if_inet6": ""}, []string{}},
		{"no file", nil, nil},
		{"too short", map[string]string{"fib_trie": trie, "if_inet6": "0001 01 80 10 80 lo\n"}, nil},
		{"no digits", map[string]string{"fib_trie": trie, "if_inet6": "lo\n"}, nil},
	} {
		got, err := pki.ReadAddresses(writeProc(t, tt.files))
		if (err != nil) != (tt.want == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		texts := []string{}
		for _, address := range got {
			texts = append(texts, address.String())
		}
		if tt.want != nil && !slices.Equal(texts, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, texts, tt.want)
		}
	}
}

// What the kernel shows in /proc/net is what it says through netlink.
func TestKernelShowsTheSameAddresses(t *testing.T) {
	t.Parallel()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	shown, err := pki.ReadAddresses("/proc/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue // has no routes
		}
		listed, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range listed {
			prefix, err := netip.ParsePrefix(l.String())
			if err == nil && !slices.Contains(shown, prefix.Addr().Unmap()) {
				t.Errorf("%v of %s is not among %v", prefix, i.Name, shown)
			}
		}
	}
}
