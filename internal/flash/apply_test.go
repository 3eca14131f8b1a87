package flash_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pinseal/internal/flash"
)

// now is any time; archives carry it.
func now() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

func payload() []flash.File {
	return []flash.File{
		{Path: "etc/pinseal", Mode: fs.ModeDir | 0o755},
		{Path: "var/lib/pinseal/keys", Mode: fs.ModeDir | 0o700},
		{Path: "etc/pinseal/pinseal.toml", Mode: 0o644, Data: []byte("node\n")},
		{Path: "var/lib/pinseal/keys/sign.key", Mode: 0o600, Data: []byte(strings.Repeat("secret", 1000))},
		{Path: "etc/enabled", Mode: 0o777, Link: "/etc/pinseal/pinseal.toml"},
		{Path: "etc/last", Mode: 0o644, Data: []byte("last")},
	}
}

// faulty is a volume of which something fails.
type faulty struct {
	flash.Volume
	failAt  string // writing this file fails
	corrupt string // this file is read back changed, once it was written
	onWrite func(name string)
	written map[string]bool
	noSync  bool
}

func (v *faulty) Write(f flash.File) error {
	if f.Path == v.failAt {
		return errors.New("a bad sector")
	}
	if v.onWrite != nil {
		v.onWrite(f.Path)
	}
	v.written[f.Path] = true
	return v.Volume.Write(f)
}

func (v *faulty) Read(name string) (flash.File, error) {
	f, err := v.Volume.Read(name)
	if name == v.corrupt && v.written[name] && err == nil {
		f.Data = append(f.Data, '!')
	}
	return f, err
}

func (v *faulty) Sync() error {
	if v.noSync {
		return errors.New("no space left")
	}
	return v.Volume.Sync()
}

// rootFolder is a root file system as far as Plan looks at it.
func rootFolder(t *testing.T) (dir string, v *flash.Folder) {
	t.Helper()
	dir = t.TempDir()
	for name, data := range map[string]string{
		"etc/hostname": "raspberrypi\n", "etc/hosts": "127.0.0.1\tlocalhost\n", "etc/last": "before", "usr/bin/x": "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	v, err := flash.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return dir, v
}

// state is everything in a folder.
func state(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, _ := os.ReadFile(path) // folders and links have none
		all.WriteString(path + info.Mode().String() + string(data) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	interrupted, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	tests := []struct {
		name string
		ctx  context.Context //nolint:containedctx // a row of a table
		bad  faulty
		want string
	}{
		{"the first file", t.Context(), faulty{failAt: "etc/hostname"}, "writing etc/hostname"},
		{"in the middle", t.Context(), faulty{failAt: "var/lib/pinseal/keys/sign.key"}, "a bad sector"},
		{"the last", t.Context(), faulty{failAt: "etc/enabled"}, "a bad sector"},
		{"syncing", t.Context(), faulty{noSync: true}, "no space left"},
		{"read back changed", t.Context(), faulty{corrupt: "var/lib/pinseal/keys/sign.key"}, "the card may be broken"},
		{"interrupted", interrupted, faulty{onWrite: func(name string) {
			if name == "etc/pinseal/pinseal.toml" {
				interrupt()
			}
		}}, "interrupted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, root := rootFolder(t)
			before := state(t, dir)
			tt.bad.Volume, tt.bad.written = root, map[string]bool{}
			card := flash.Card{Root: &tt.bad}
			changes, err := card.Plan(flash.Files, payload(), "porch", now())
			if err != nil {
				t.Fatal(err)
			}
			err = flash.Apply(tt.ctx, changes, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			bad := tt.bad.noSync // then it cannot be told what is on the card
			if after := state(t, dir); after != before {
				t.Errorf("was\n%s\nis\n%s", before, after)
			}
			if !bad && !strings.HasSuffix(err.Error(), "the card is as it was") {
				t.Errorf("does not say that nothing is left: %v", err)
			}
		})
	}
}

// image is a card's FAT partition with the files that make it one.
func image(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "boot.img")
	for name, data := range map[string]string{
		"config.txt": "# config\n", "cmdline.txt": "console=tty1 rootwait\n",
		"user-data": "#cloud-config\n" + strings.Repeat("# long\n", 1000), "meta-data": "instance-id: x\n",
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "truncate", "-s", "40M", path)
	command(t, "/usr/sbin/mkfs.vfat", "-F", "32", "-s", "1", path)
	command(t, "sh", "-c", `mcopy -i "$0" "$(dirname "$0")"/*.txt "$(dirname "$0")"/*-data ::`, path)
	return path
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func openImage(t *testing.T, path string) flash.Volume {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	v, err := flash.OpenImage(file, flash.Partition{Size: info.Size()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What we write others read, whatever its size; the file system stays a good one.
func TestImageIsReadByOthers(t *testing.T) {
	t.Parallel()
	path := image(t)
	v := openImage(t, path)
	contents := map[string]string{"user-data": "short\n", "cmdline.txt": strings.Repeat("long ", 500), "New-Long-Name.tgz": strings.Repeat("x", 1<<20+1)}
	for _, size := range []int{1, 511, 512, 513, 1190, 4096, 4097} {
		contents["size-"+strconv.Itoa(size)+".bin"] = strings.Repeat("s", size)
	}
	for name, data := range contents {
		if err := v.Write(flash.File{Path: name, Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Sync(); err != nil {
		t.Fatal(err)
	}
	again := openImage(t, path)
	for name, data := range contents {
		if got := command(t, "mtype", "-i", path, "::"+name); got != data {
			t.Errorf("mtools read %d bytes of %s, %d were written", len(got), name, len(data))
		}
		if got, err := again.Read(name); err != nil || string(got.Data) != data {
			t.Errorf("%s read back: %d bytes of %d, %v", name, len(got.Data), len(data), err)
		}
	}
	if got := command(t, "mtype", "-i", path, "::config.txt"); got != "# config\n" {
		t.Errorf("config.txt is %q", got)
	}
	if report := command(t, "/usr/sbin/fsck.vfat", "-n", path); strings.Contains(report, "Reclaimed") || strings.Contains(report, "wrong") || strings.Contains(report, "differ") {
		t.Errorf("fsck: %s", report)
	}
	for _, f := range []flash.File{{Path: "folder/file"}, {Path: "link", Link: "file"}} {
		if err := v.Write(f); err == nil {
			t.Errorf("%s was written", f.Path)
		}
	}
}

func TestImageIsAllOrNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		bad  faulty
	}{
		{"in the middle", faulty{failAt: "user-data"}},
		{"syncing", faulty{noSync: true}},
		{"read back changed", faulty{corrupt: "user-data"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := image(t)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			tt.bad.Volume, tt.bad.written = openImage(t, path), map[string]bool{}
			card := flash.Card{Boot: &tt.bad}
			if err := card.Check(); err != nil || card.Way() != flash.CloudInit {
				t.Fatalf("%v, %s", err, card.Way())
			}
			changes, err := card.Plan(card.Way(), payload(), "porch", now())
			if err != nil {
				t.Fatal(err)
			}
			if err := flash.Apply(t.Context(), changes, nil); err == nil {
				t.Error("it was not told")
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != string(before) {
				t.Errorf("the image was changed, %v", err)
			}
		})
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	table := make([]byte, 1024)
	table[510], table[511] = 0x55, 0xaa
	copy(table[446+8:], []byte{0, 0x20, 0, 0, 0, 0x40, 1, 0})
	one := append([]byte{}, table...)
	copy(table[462+8:], []byte{0, 0x60, 1, 0, 0, 0xa0, 0, 0})
	tests := []struct {
		name  string
		data  []byte
		boot  flash.Partition
		fails bool
	}{
		{"two partitions", table, flash.Partition{Start: 4 << 20, Size: 40 << 20}, false},
		{"one partition", one, flash.Partition{}, true},
		{"no table", make([]byte, 1024), flash.Partition{}, true},
		{"cut off", table[:500], flash.Partition{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			boot, root, err := flash.Partitions(path)
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			if !tt.fails && (boot != tt.boot || root != flash.Partition{Start: 44 << 20, Size: 20 << 20}) {
				t.Errorf("got %v and %v", boot, root)
			}
		})
	}
}
