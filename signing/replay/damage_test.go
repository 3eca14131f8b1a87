package replay_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"pinseal/signing/replay"
)

// copyState copies a database and its log as a power cut would leave them.
func copyState(t *testing.T, from string) string {
	t.Helper()
	p := path(t)
	copyFiles(t, from, p)
	return p
}

func copyFiles(tb interface{ Fatal(...any) }, from, to string) {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
	data, err = os.ReadFile(replay.LogPath(from))
	if err == nil {
		err = os.WriteFile(replay.LogPath(to), data, 0o600)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	p := path(t)
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// filled returns the bytes of a database with some of everything.
func filled(tb testing.TB) []byte {
	tb.Helper()
	p := path(tb)
	s := open(tb, p, replay.Options{Since: time.Unix(1700000000, 0)})
	for i := range uint64(40) {
		for topic := range 6 {
			s.Telemetry("kid", fmt.Sprint("telemetry/x/", topic), i, digest("t"))
		}
		s.Command("kid", fmt.Sprint("out", i), i, digest("c"))
		s.Legacy("kid", 1700000000, digest(fmt.Sprint(i)))
	}
	closeStore(tb, s)
	data, err := os.ReadFile(p)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// checkRefused expects one line that names the file, and no change to it.
func checkRefused(t *testing.T, data []byte, want error) {
	t.Helper()
	p := writeFile(t, data)
	s, err := replay.Open(p, replay.Options{})
	if err == nil {
		_ = s.Close()
		t.Fatal("opened")
	}
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
	if !strings.Contains(err.Error(), p) || strings.Contains(err.Error(), "\n") {
		t.Errorf("not one line that names the file: %q", err)
	}
	if now, _ := os.ReadFile(p); !bytes.Equal(now, data) {
		t.Error("the refused file was changed")
	}
}

func TestTruncatedFileIsRefused(t *testing.T) {
	data := filled(t)
	used := 0 // bytes up to the last page that is not empty
	for i, b := range data {
		if b != 0 {
			used = (i/4096 + 1) * 4096
		}
	}
	for n := 0; n < used; n += 509 {
		t.Run(fmt.Sprint(n), func(t *testing.T) { checkRefused(t, data[:n], replay.ErrDamaged) })
	}
	t.Run("last byte", func(t *testing.T) { checkRefused(t, data[:used-1], replay.ErrDamaged) })
}

func TestForeignFileIsRefused(t *testing.T) {
	foreign := func(change func(tx *bbolt.Tx) error, o *bbolt.Options) []byte {
		p := writeFile(t, filled(t))
		if o != nil {
			p = path(t)
		}
		db, err := bbolt.Open(p, 0o600, o)
		if err != nil {
			t.Fatal(err)
		}
		db.NoFreelistSync = o == nil
		if err := db.Update(change); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	put := func(bucket, key string, value []byte) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), value) }
	}
	nothing := func(*bbolt.Tx) error { return nil }
	mine := func(change func(tx *bbolt.Tx) error) []byte { return rewritten(t, filled(t), change) }
	tests := []struct {
		name string
		data []byte
	}{
		{"text", []byte(strings.Repeat("hello\n", 10000))},
		{"zeros", make([]byte, 64<<10)},
		{"another bbolt database", foreign(nothing, &bbolt.Options{})},
		{"another page size", foreign(nothing, &bbolt.Options{PageSize: 8192, NoFreelistSync: true})},
		{"empty bbolt database", foreign(nothing, &bbolt.Options{PageSize: 4096, NoFreelistSync: true})},
		{"no version", mine(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("version")) })},
		{"short since", mine(put("meta", "since", []byte{1}))},
		{"no bucket", mine(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("legacy")) })},
		{"short key", mine(put("commands", "x", []byte("y")))},
		{"kid longer than the key", mine(put("commands", "\xff\xffx", []byte("y")))},
		{"empty record", mine(put("commands", "\x00\x01kled", nil))},
		{"record with half an entry", mine(put("telemetry", "\x00\x01kled", make([]byte, 60)))},
		{"two entries of a command", mine(put("commands", "\x00\x01kled", make([]byte, 80)))},
		{"65 entries", mine(put("telemetry", "\x00\x01kt", make([]byte, 65*40)))},
		{"wrong sum", mine(put("meta", "sum", make([]byte, 8)))},
		{"no sum", mine(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("sum")) })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkRefused(t, tt.data, replay.ErrDamaged) })
	}
	t.Run("a change that leaves it good", func(t *testing.T) {
		p := writeFile(t, mine(put("commands", "\x00\x01kled", make([]byte, 40))))
		if o, _ := open(t, p, replay.Options{}).Command("k", "led", 0, [32]byte{}); o != replay.Duplicate {
			t.Errorf("the record that was put in: %v", o)
		}
	})
}

// rewritten applies a change to a database with our own options, and makes the
// sum right where the change leaves it alone.
func rewritten(t *testing.T, data []byte, change func(tx *bbolt.Tx) error) []byte {
	t.Helper()
	p := writeFile(t, data)
	db, err := bbolt.Open(p, 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		before := bytes.Clone(meta.Get([]byte("sum")))
		if err := change(tx); err != nil {
			return err
		}
		if !bytes.Equal(before, meta.Get([]byte("sum"))) {
			return nil
		}
		return meta.Put([]byte("sum"), sum(tx))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sum is the sum as the package comment defines it.
func sum(tx *bbolt.Tx) []byte {
	var all uint64
	_ = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		return b.ForEach(func(key, value []byte) error {
			if string(key) != "sum" {
				text := fmt.Sprintf("%s%s%s%s", name, binary.BigEndian.AppendUint16(nil, uint16(len(key))), key, value)
				h := sha256.Sum256([]byte(text))
				all ^= binary.BigEndian.Uint64(h[:])
			}
			return nil
		})
	})
	return binary.BigEndian.AppendUint64(nil, all)
}

func TestUnknownVersionIsRefused(t *testing.T) {
	data := rewritten(t, filled(t), func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("version"), binary.BigEndian.AppendUint32(nil, 2))
	})
	_, err := replay.Open(writeFile(t, data), replay.Options{})
	if err == nil || errors.Is(err, replay.ErrDamaged) || !strings.Contains(err.Error(), "format version 2, this program knows 1") {
		t.Errorf("%v", err)
	}
}

// tryDamaged opens damaged bytes: that must never end the process, and where it
// is not refused, what is remembered must be all there. It reports a refusal.
func tryDamaged(t *testing.T, damaged []byte, at int) (refused bool) {
	t.Helper()
	p := writeFile(t, damaged)
	s, err := replay.Open(p, replay.Options{FlushEvery: time.Hour})
	if err != nil {
		if !strings.Contains(err.Error(), p) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("byte %d: not one line that names the file: %q", at, err)
		}
		return true
	}
	defer func() { _ = s.Close() }()
	if at >= 2*4096 { // a damaged meta page looks like a commit that a power cut tore: bbolt goes one back
		checkFilled(t, s, at)
	}
	return false
}

func TestFlippedBits(t *testing.T) {
	data := filled(t)
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for range 600 {
		at := r.IntN(len(data))
		if r.IntN(3) == 0 { // headers are where structure breaks
			at = at&^4095 | r.IntN(200)
		}
		damaged := bytes.Clone(data)
		damaged[at] ^= 1 << r.IntN(8)
		if tryDamaged(t, damaged, at) {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no damage was noticed")
	}
}

// FuzzDamage writes over a part of a good file. Its seeds are made by it.
func FuzzDamage(f *testing.F) {
	data := filled(f)
	for page := range len(data) / 4096 {
		f.Add(uint32(page*4096), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0})
		f.Add(uint32(page*4096+16), []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
		f.Add(uint32(page*4096+24), make([]byte, 64))
	}
	f.Fuzz(func(t *testing.T, at uint32, over []byte) {
		damaged := bytes.Clone(data)
		i := int(at % uint32(len(data)))
		copy(damaged[i:], over)
		tryDamaged(t, damaged, i)
	})
}

func checkFilled(t *testing.T, s *replay.Store, at int) {
	t.Helper()
	for i := range uint64(40) {
		o, _ := s.Command("kid", fmt.Sprint("out", i), i, digest("c"))
		l, _ := s.Legacy("kid", 1700000000, digest(fmt.Sprint(i)))
		for topic := range 6 {
			if got := s.Telemetry("kid", fmt.Sprint("telemetry/x/", topic), i, digest("t")); got != replay.Duplicate {
				t.Fatalf("byte %d: telemetry %d: %v", at, i, got)
			}
		}
		if o != replay.Duplicate || l != replay.Duplicate {
			t.Fatalf("byte %d: command %d: %v, legacy: %v", at, i, o, l)
		}
	}
}

func TestOpenErrorsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	inUse := filepath.Join(dir, "in-use.db")
	open(t, inUse, replay.Options{})
	tests := []struct {
		name, path string
		is         error
	}{
		{"no folder", filepath.Join(dir, "none", "state.db"), os.ErrNotExist},
		{"a folder", dir, nil},
		{"in use", inUse, replay.ErrInUse},
		{"dangling link", filepath.Join(dir, "link"), os.ErrNotExist},
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := replay.Open(tt.path, replay.Options{})
			if err == nil || !strings.Contains(err.Error(), tt.path) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("not one line that names the file: %v", err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v, want %v", err, tt.is)
			}
		})
	}
}

func TestFilesArePrivateAndNothingElseIsLeft(t *testing.T) {
	p := path(t)
	s := open(t, p, replay.Options{})
	if _, c := s.Command("k", "led", 1, digest("a")); c.Wait() != nil {
		t.Fatal(c.Wait())
	}
	for _, name := range []string{p, replay.LogPath(p)} {
		info, err := os.Stat(name)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	files, err := os.ReadDir(filepath.Dir(p))
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
}
