package atomicfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"pinseal/internal/atomicfile"
)

type writer = func(path string, data []byte, perm os.FileMode) error

func check(t *testing.T, path, want string, perm os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != want {
		t.Errorf("%q, %v, want %q", data, err, want)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != perm {
		t.Errorf("%v, %v, want %v", info.Mode(), err, perm)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func TestNewFile(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for name, write := range map[string]writer{"write": atomicfile.Write, "create": atomicfile.Create} {
		for _, perm := range []os.FileMode{0o600, 0o644, 0o440} {
			t.Run(name+" "+perm.String(), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "file")
				if err := write(path, []byte("content"), perm); err != nil {
					t.Fatal(err)
				}
				check(t, path, "content", perm)
			})
		}
	}
}

func TestExistingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("a longer old content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Create(path, []byte("new"), 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("create: %v", err)
	}
	check(t, path, "a longer old content", 0o644)
	if err := atomicfile.Write(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, path, "new", 0o600)
}

func TestLinkIsReplacedNotFollowed(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Create(link, nil, 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("create at a dangling link: %v", err)
	}
	if err := atomicfile.Write(link, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, link, "x", 0o600)
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target: %v", err)
	}
}

// Who is not root writes files of his own, and that is that; root leaves to others what is theirs.
func TestOwnerStays(t *testing.T) {
	dir := t.TempDir()
	like, path := filepath.Join(dir, "like"), filepath.Join(dir, "file")
	if err := atomicfile.WriteFor(like, path, nil, 0o600); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("like nothing: %v", err)
	}
	if err := os.WriteFile(like, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12345, 12346
		if err := os.Chown(like, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{path, like} {
		if err := atomicfile.WriteFor(like, to, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(to)
		if err != nil || info.Mode() != 0o600 {
			t.Fatal(info.Mode(), err)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != uid || int(stat.Gid) != gid {
			t.Errorf("%s belongs to %d:%d, not to %d:%d", to, stat.Uid, stat.Gid, uid, gid)
		}
	}
}

func TestErrorsNameTheFileAndLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"no such folder": filepath.Join(dir, "none", "file"), "a folder": folder} {
		for which, write := range map[string]writer{"write": atomicfile.Write, "create": atomicfile.Create} {
			if err := write(path, []byte("x"), 0o600); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s to %s: %v", which, name, err)
			}
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

// Of many creators one wins, and a reader never sees half of a file.
func TestConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	contents := make([][]byte, 8)
	for i := range contents {
		contents[i] = bytes.Repeat([]byte{byte('a' + i)}, 1000+i)
	}
	var created atomic.Int32
	var wg sync.WaitGroup
	for _, c := range contents {
		wg.Go(func() {
			switch err := atomicfile.Create(path, c, 0o600); {
			case err == nil:
				created.Add(1)
			case !errors.Is(err, os.ErrExist):
				t.Error(err)
			}
			if err := atomicfile.Write(path, c, 0o600); err != nil {
				t.Error(err)
			}
			data, err := os.ReadFile(path)
			if err != nil || len(data) < 1000 || !bytes.Equal(data, contents[data[0]-'a']) {
				t.Errorf("read %d bytes, %v", len(data), err)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 {
		t.Errorf("%d created it", created.Load())
	}
}
