package outbox

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sealed is something in the form of a sealed message.
func sealed(n int) []byte {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	return []byte(part(`{"alg":"ES256"}`) + "." + part(fmt.Sprint(`{"seq":`, n, `}`)) + "." + part(strings.Repeat("s", 64)))
}

func items(positions ...uint64) (list []*item) {
	for n, p := range positions {
		list = append(list, &item{Message: Message{Topic: fmt.Sprint("telemetry/attic/", n%3), Number: 1<<50 + p, Sealed: sealed(n)}, position: p})
	}
	return list
}

func TestChunkRoundTrip(t *testing.T) {
	for _, positions := range [][]uint64{{1}, {7, 8, 9}, {1, 500, 501}, {1 << 60, 1<<60 + 3}} {
		want := items(positions...)
		c, err := newChunk(want, len(gapsOf(want)))
		if err != nil {
			t.Fatal(err)
		}
		read, err := parseChunkHeader(c.first, c.value)
		if err != nil || read.first != c.first || read.span != c.span || read.bytes != c.bytes || c.left != len(want) {
			t.Fatalf("%+v, %v, want %+v", read, err, c)
		}
		got, err := read.unpack(c.value)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d messages, %v", len(got), err)
		}
		for n, i := range got {
			if i.position != want[n].position || i.Topic != want[n].Topic || i.Number != want[n].Number || !bytes.Equal(i.Sealed, want[n].Sealed) {
				t.Errorf("got %+v, want %+v", i, want[n])
			}
		}
	}
}

// Every change of a byte, and every cut, is noticed.
func TestChunkDamage(t *testing.T) {
	c, err := newChunk(items(1, 2, 3), 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := range c.value {
		if _, err := c.unpack(c.value[:n]); err == nil {
			t.Errorf("cut at %d: taken", n)
		}
		if n >= 4 { // before it is the span, which the positions are held against
			changed := bytes.Clone(c.value)
			changed[n] ^= 1
			if _, err := c.unpack(changed); err == nil {
				t.Errorf("byte %d changed: taken", n)
			}
		}
	}
	for _, header := range []string{"", "1234567", "\x00\x00\x00\x00....", "\xff\xff\xff\xff...."} {
		if _, err := parseChunkHeader(1, []byte(header)); err == nil {
			t.Errorf("header %q: taken", header)
		}
	}
	if _, err := parseChunkHeader(0, c.value); err == nil {
		t.Error("position 0: taken")
	}
}

func TestNotSealed(t *testing.T) {
	for _, text := range []string{"", "a.b", "a.b.c.d", "aa=.bb.cc", "a\n.bb.cc", "AB.AA.AA"} {
		if _, err := appendMessage(nil, &item{Message: Message{Sealed: []byte(text)}}, 0); err == nil {
			t.Errorf("%q: packed", text)
		}
	}
}

// Of a journal that is cut anywhere, all that is whole before the cut is read, and it goes on from there.
func TestJournalCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := openJournal(path, os.OpenFile)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for _, i := range items(1, 2, 3) {
		if err := j.add(i); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.size)
	}
	if err := j.done(2); err != nil {
		t.Fatal(err)
	}
	ends = append(ends, j.size)
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		want := 0
		for _, end := range ends {
			if int64(n) >= end {
				want++
			}
		}
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		j, entries, err := openJournal(path, os.OpenFile)
		if err != nil || len(entries) != want {
			t.Fatalf("cut at %d: %d records, %v, want %d", n, len(entries), err, want)
		}
		if err := j.done(9); err != nil {
			t.Fatal(err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		j, entries, err = openJournal(path, os.OpenFile)
		if err != nil || len(entries) != want+1 || !entries[want].done || entries[want].position != 9 {
			t.Fatalf("cut at %d, and one more: %+v, %v", n, entries, err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A changed byte ends the journal; nothing else comes out of it.
func TestJournalRot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := openJournal(path, os.OpenFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items(1, 2) {
		if err := j.add(i); err != nil {
			t.Fatal(err)
		}
	}
	begin := len(j.boot)
	first := (int(j.size) - begin) / 2
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole[begin:] {
		changed := bytes.Clone(whole[begin:])
		changed[n] ^= 0x10
		if e, length := parseEntry(changed[n/first*first:]); length != 0 {
			t.Errorf("byte %d changed: read %+v", n, e)
		}
	}
}

// A journal of another boot says nothing: its positions may mean other messages by now.
func TestJournalOfAnotherBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := openJournal(path, os.OpenFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.done(1), j.close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"another":   append([]byte("00000000-0000-4000-8000-000000000001\n"), whole[len(j.boot):]...),
		"none":      whole[len(j.boot):],
		"cut":       whole[:len(j.boot)-1],
		"the right": whole,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, entries, err := openJournal(path, os.OpenFile)
		if err != nil || (len(entries) > 0) != (name == "the right") {
			t.Errorf("%s: %+v, %v", name, entries, err)
		}
		if err := errors.Join(j.done(2), j.close()); err != nil {
			t.Fatal(err)
		}
		if j, entries, err = openJournal(path, os.OpenFile); err != nil || len(entries) == 0 || entries[len(entries)-1].position != 2 {
			t.Errorf("%s, and one more: %+v, %v", name, entries, err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Fuzz(func(t *testing.T, value []byte) {
		c, err := parseChunkHeader(1, value)
		if err != nil {
			return
		}
		items, err := c.unpack(value)
		for _, i := range items {
			if i.position < c.first || i.position > c.last() {
				t.Errorf("position %d is not in the chunk", i.position)
			}
		}
		if err == nil && len(items) > 0 {
			for _, i := range items {
				if _, err := appendMessage(nil, i, c.first); err != nil {
					t.Errorf("unpacked what cannot be packed: %v", err)
				}
			}
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		e, length := parseEntry(data)
		if length == 0 {
			return
		}
		j := &journal{path: filepath.Join(t.TempDir(), "journal"), openFile: os.OpenFile}
		if err := j.open(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = j.close() }()
		err := j.done(e.position)
		if !e.done {
			err = j.empty()
			if err == nil {
				err = j.add(&item{Message: e.Message, position: e.position})
			}
		}
		if err != nil {
			return // larger than what is written
		}
		if again, err := os.ReadFile(j.path); err != nil || !bytes.Equal(again, data[:length]) {
			t.Errorf("read and written again it is %x, not %x: %v", again, data[:length], err)
		}
	})
}

func TestFuzzHasSeeds(t *testing.T) {
	for _, name := range []string{"FuzzUnpack", "FuzzJournal"} {
		if seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*")); err != nil || len(seeds) == 0 {
			t.Errorf("%s has no seeds", name)
		}
	}
}
