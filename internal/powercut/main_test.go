package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pinseal/internal/atomicfile"
)

// TestMain lets the test binary be the process that is recorded.
func TestMain(m *testing.M) {
	if os.Getenv(lifeVariable) == "" {
		m.Run()
		return
	}
	if err := child(slices.Concat(lives(), troubledLives(), mistakes(), troubledMistakes())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is the child's main
	}
}

func judgeOf(t *testing.T) *judge {
	t.Helper()
	folder, err := memoryFolder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) }) // it is in memory
	return newJudge(shortForm(), folder)
}

func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for _, l := range lives() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			j := judgeOf(t)
			if err := j.judgeLife(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			t.Log(j.report.String())
			for _, line := range append(j.report.refused, j.report.wrong...) {
				t.Error(line)
			}
			if j.report.cuts < 60 || j.report.images < 60 {
				t.Error("too little was tried")
			}
		})
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, l := range troubledLives() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			j := judgeOf(t)
			if err := j.judgeFaults(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			t.Log(j.report.String())
			for _, line := range append(j.report.refused, j.report.wrong...) {
				t.Error(line)
			}
			if j.report.faults < 10 || j.report.images < 60 {
				t.Error("too little was tried")
			}
		})
	}
}

// A disk that does not do what it was asked, which is as good as a program that
// does not ask, is found out.
func TestMissingSyncsAreFound(t *testing.T) {
	t.Parallel()
	disks := map[string]func([]event) []event{
		"no sync of files": func(events []event) []event {
			return slices.DeleteFunc(events, func(e event) bool { return e.kind == sync && e.file != 0 })
		},
		"no sync of folders": func(events []event) []event {
			return slices.DeleteFunc(events, func(e event) bool { return e.kind == sync && e.folder != "" })
		},
		"tells before the syncs": func(events []event) []event {
			first := 0 // of the syncs that the next mark relies on
			for i, e := range events {
				switch {
				case e.kind == sync && first == 0:
					first = i
				case e.kind == mark && first > 0:
					events = slices.Insert(slices.Delete(events, i, i+1), first, e)
					first = 0
				}
			}
			return events
		},
	}
	for _, l := range lives() {
		for name, spoil := range disks {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				j := judgeOf(t)
				j.form = form{subsets: 3, first: true}
				j.spoil = func(events []event) []event { return spoil(slices.Clone(events)) }
				if err := j.judgeLife(t.Context(), l); err != nil {
					t.Fatal(err)
				}
				if len(j.report.refused)+len(j.report.wrong) == 0 {
					t.Error(j.report.String())
				}
			})
		}
	}
}

// mistakes are lives that go wrong.
func mistakes() []life {
	return []life{
		{name: "in place", live: func(folder string, tell func(string, ...any)) error {
			for n := range versions {
				tell("writing %d", n)
				if err := os.WriteFile(filepath.Join(folder, "file"), version("file", n), 0o600); err != nil {
					return err
				}
			}
			return nil
		}, judge: judgeFiles},
		{name: "kept without a sync", live: func(folder string, tell func(string, ...any)) error {
			path := filepath.Join(folder, "file")
			for n := range versions {
				tell("writing %d", n)
				if err := os.WriteFile(path+".new", version("file", n), 0o600); err != nil {
					return err
				}
				if err := os.Rename(path+".new", path); err != nil {
					return err
				}
				if err := atomicfile.SyncFolder(folder); err != nil {
					return err
				}
			}
			return nil
		}, judge: judgeFiles},
		{name: "mapped", live: func(folder string, _ func(string, ...any)) error {
			f, err := os.OpenFile(filepath.Join(folder, "file"), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			if err := f.Truncate(10); err != nil {
				return err
			}
			b, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			b[5] = 'x'
			return f.Close()
		}},
		{name: "unable", live: func(string, func(string, ...any)) error { return os.ErrInvalid }},
	}
}

func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	want := map[string]string{"mapped": "not known here", "unable": "ended with status"}
	for _, l := range mistakes() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			j := judgeOf(t)
			err := j.judgeLife(t.Context(), l)
			if message := want[l.name]; message != "" {
				if err == nil || !strings.Contains(err.Error(), message) {
					t.Errorf("%v, want an error with %q", err, message)
				}
				return
			}
			if err != nil || len(j.report.wrong) == 0 {
				t.Errorf("%s, %v", j.report.String(), err)
			}
		})
	}
}

// troubledMistakes are lives that do the wrong thing about a call that fails.
func troubledMistakes() []life {
	if !canFail {
		return nil
	}
	writing := func(bear func(f *os.File, content []byte) error) func(string, func(string, ...any)) error {
		return func(folder string, tell func(string, ...any)) error {
			f, err := os.OpenFile(filepath.Join(folder, "file"), os.O_RDWR|os.O_CREATE, 0o600)
			if err == nil {
				err = atomicfile.SyncFolder(folder)
			}
			if err != nil {
				return nil //nolint:nilerr // another is made to fail, too
			}
			content := version("file", 0)
			tell("writing %d", 0)
			if err := bear(f, content); err != nil {
				return err
			}
			tell("wrote %d", 0)
			return f.Close()
		}
	}
	return []life{
		{name: "sync again", live: writing(func(f *os.File, content []byte) error {
			_, err := f.WriteAt(content, 0)
			if err != nil {
				_, err = f.WriteAt(content, 0)
			}
			if err == nil && f.Sync() != nil {
				err = f.Sync()
			}
			return err
		}), judge: judgeWritten, troubled: true},
		{name: "no matter", live: writing(func(f *os.File, content []byte) error {
			_, _ = f.WriteAt(content, 0)
			_ = f.Sync()
			return nil
		}), judge: judgeWritten, troubled: true},
	}
}

// judgeWritten: the file is whole, once that was said.
func judgeWritten(folder string, marks []string) error {
	if !slices.Contains(marks, "wrote 0") {
		return nil
	}
	return holdsOne(filepath.Join(folder, "file"), "file", []int{0})
}

func TestTroubledMistakesAreFound(t *testing.T) {
	t.Parallel()
	for _, l := range troubledMistakes() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			j := judgeOf(t)
			j.form.stride = 1
			if err := j.judgeFaults(t.Context(), l); err != nil || len(j.report.wrong) == 0 {
				t.Errorf("%s, %v", j.report.String(), err)
			}
		})
	}
}

// A process that is killed leaves what it wrote to the next.
func TestKilled(t *testing.T) {
	t.Parallel()
	r, err := judgeOf(t).recorder(&disk{})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{3, 5} {
		if err := r.live(t.Context(), "files", bootID(1), at); err != nil {
			t.Fatal(err)
		}
		if len(r.events) != at {
			t.Errorf("%d events, want %d", len(r.events), at)
		}
	}
}

func TestImages(t *testing.T) {
	t.Parallel()
	old := &disk{files: map[int][]byte{1: make([]byte, 2*sector)}, names: map[string]int{"a": 1}}
	ones := []byte(strings.Repeat("1", 2*sector))
	events := []event{
		{kind: write, file: 1, data: ones},
		{kind: rename, names: map[string]int{"b": 1}},
		{kind: sync, folder: ".", began: 1}, // began before the rename
		{kind: sync, file: 1, began: 2},
		{kind: sync, folder: ".", began: 4},
	}
	// Of the write and the rename: nothing; the write whole or either half; then
	// the same with both names; then the write is there; then the name is, too.
	want := []int{1, 4, 8, 8, 2, 1}
	var got []int
	for c := range cuts(old, events) {
		sums := map[[32]byte]bool{}
		for d := range c.images(fullForm(), newJudge(fullForm(), "").random) {
			sums[d.sum()] = true
		}
		got = append(got, len(sums))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d images, want %d", got, want)
	}
}
