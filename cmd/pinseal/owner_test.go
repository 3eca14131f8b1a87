package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A user that may not give files away can still give them to itself: then the walk is tested, as root the giving too.
func TestHandOver(t *testing.T) {
	to := owner{os.Getuid(), os.Getgid()}
	if to.uid == 0 {
		to = owner{12345, 12346}
	}
	dir := t.TempDir()
	l := layoutUnder(filepath.Join(dir, "node"))
	l.config, l.signers = filepath.Join(dir, "etc/pinseal.toml"), filepath.Join(dir, "etc/signers")
	outside := filepath.Join(dir, "outside")
	for _, path := range []string{
		l.config, filepath.Join(l.signers, "operator.pem"), l.caKey(), l.brokerKey(), l.journal(), l.signKey(), sequenceFile(l.signKey()),
		l.stateDB(), l.clockFloor(), filepath.Join(l.bundle("operator"), "sign.key"), filepath.Join(outside, "sign.key"),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 { // devices could join before
		if err := os.Chown(l.caKey(), to.uid, to.gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.handOver(to); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{l.state, l.signKey(), sequenceFile(l.signKey()), l.brokerKey(), l.journal(), l.stateDB(), l.clockFloor(), filepath.Dir(l.signKey())} {
		if got := ownerOf(t, path); got != to {
			t.Errorf("%s belongs to %v, want %v", path, got, to)
		}
	}
	mine := owner{os.Getuid(), os.Getgid()}
	for _, path := range []string{l.caKey(), filepath.Dir(l.caKey()), l.bundles(), filepath.Join(l.bundle("operator"), "sign.key"), l.config} {
		if got := ownerOf(t, path); got != mine {
			t.Errorf("%s belongs to %v, want %v", path, got, mine)
		}
	}
	for _, dir := range []string{filepath.Dir(l.config), l.signers, filepath.Dir(l.caCert())} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != publicFolder {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	// The service, taken over, lays a trap for root.
	if err := os.RemoveAll(filepath.Dir(l.signKey())); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Dir(l.signKey())); err != nil {
		t.Fatal(err)
	}
	_ = l.handOver(to) // whether it notices is not the point
	if got := ownerOf(t, filepath.Join(outside, "sign.key")); got != mine {
		t.Errorf("a link led root astray: the file outside belongs to %v", got)
	}
}

// The service, taken over, owns the state folder, and can put what is root's where its own should be.
func TestHandOverKeepsWhatIsRoots(t *testing.T) {
	to := owner{os.Getuid(), os.Getgid()}
	root := to.uid == 0
	if root { // who is not owns all of it anyway, and can only notice
		to = owner{12345, 12346}
	}
	for name, trap := range map[string]func(l layout) error{
		"bundles as signers": func(l layout) error { return errors.Join(os.RemoveAll(l.joined()), os.Rename(l.bundles(), l.joined())) },
		"authority as signers": func(l layout) error {
			return errors.Join(os.RemoveAll(l.joined()), os.Rename(filepath.Dir(l.caKey()), l.joined()))
		},
		"authority as keys": func(l layout) error {
			return errors.Join(os.RemoveAll(filepath.Dir(l.signKey())), os.Rename(filepath.Dir(l.caKey()), filepath.Dir(l.signKey())))
		},
		"link to a bundle": func(l layout) error {
			return errors.Join(os.RemoveAll(filepath.Dir(l.signKey())), os.Symlink("bundles/operator", filepath.Dir(l.signKey())))
		},
		"authority as a journal": func(l layout) error { return os.Rename(filepath.Dir(l.caKey()), l.journal()+"-1") },
	} {
		t.Run(name, func(t *testing.T) {
			l := layoutUnder(makeNode(t))
			if err := trap(l); err != nil {
				t.Fatal(err)
			}
			if err := l.handOver(to); err == nil {
				t.Error("nothing was noticed")
			}
			err := filepath.WalkDir(l.state, func(path string, _ os.DirEntry, err error) error {
				base := filepath.Base(path)
				if !root {
					return err
				}
				if secret := base == "ca.key" || base == "operator" || strings.HasSuffix(path, "operator/sign.key"); secret && ownerOf(t, path) == to {
					t.Errorf("%s was given away", path)
				}
				if secret := base == "ca.key" || base == "operator"; secret && ownerOf(t, filepath.Dir(path)) == to {
					t.Errorf("the folder of %s was given away", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// Who signs once with sudo goes on without it.
func TestNumbersAreTheKeysOwners(t *testing.T) {
	bundle := filepath.Join(makeNode(t), "bundles", "operator")
	key := filepath.Join(bundle, "sign.key")
	to := owner{os.Getuid(), os.Getgid()}
	if to.uid == 0 {
		to = owner{12345, 12346}
		if err := os.Chown(key, to.uid, to.gid); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if code := run(t.Context(), []string{"seal", "--bundle", bundle, "-t", "ledStatus", "1"}, streams{in: strings.NewReader(""), out: &out, err: &out}); code != exitDone {
		t.Fatal(out.String())
	}
	if got := ownerOf(t, sequenceFile(key)); got != to {
		t.Errorf("the numbers belong to %v, want %v", got, to)
	}
}

func ownerOf(t *testing.T, path string) owner {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	return owner{int(stat.Uid), int(stat.Gid)}
}
