package filewatch_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/internal/filewatch"
)

// soon is how long a change may take to be told.
const soon = time.Second

// watched is a watcher at work.
type watched struct {
	*filewatch.Watcher
	told chan struct{}
}

func watch(t *testing.T, paths ...string) *watched {
	t.Helper()
	w := &watched{told: make(chan struct{}, 100)}
	w.Watcher = filewatch.New(paths)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx, func() { w.told <- struct{}{} }) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// want waits until a change is told, and measures.
func (w *watched) want(t *testing.T, what string) {
	t.Helper()
	start := time.Now()
	select {
	case <-w.told:
		t.Logf("%s: told after %v", what, time.Since(start).Round(time.Millisecond))
	case <-time.After(soon):
		t.Fatalf("%s: not told within %v", what, soon)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// However a file is changed, it is told once.
func TestEveryWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "file"), filepath.Join(dir, "folder")
	write(t, file, "one")
	must(t, os.Mkdir(folder, 0o700))
	write(t, filepath.Join(folder, "a.pem"), "a")
	w := watch(t, file, folder, filepath.Join(dir, "later", "deep"))
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"written in place", func() error { write(t, file, "two"); return nil }},
		{"the same length, in place", func() error { write(t, file, "owt"); return nil }},
		{"replaced as we do it", func() error { return atomicfile.Write(file, []byte("three"), 0o600) }},
		{"replaced by an editor that keeps a backup", func() error {
			must(t, os.Rename(file, file+"~"))
			write(t, file, "four")
			return nil
		}},
		{"another mode", func() error { return os.Chmod(file, 0o640) }},
		{"removed", func() error { return os.Remove(file) }},
		{"there again", func() error { write(t, file, "five"); return nil }},
		{"a file more in the folder", func() error { write(t, filepath.Join(folder, "b.pem"), "b"); return nil }},
		{"a file of the folder in place", func() error { write(t, filepath.Join(folder, "a.pem"), "c"); return nil }},
		{"a file of the folder removed", func() error { return os.Remove(filepath.Join(folder, "a.pem")) }},
		{"the folder made anew", func() error {
			must(t, os.Rename(folder, folder+".old"))
			return os.Mkdir(folder, 0o700)
		}},
		{"a file in the new folder", func() error { write(t, filepath.Join(folder, "c.pem"), "c"); return nil }},
	} {
		must(t, step.do())
		w.want(t, step.name)
	}
	// Whoever writes other files in the same folder is nobody's business.
	write(t, filepath.Join(dir, "state.log"), "x")
	must(t, os.Chtimes(filepath.Join(dir, "state.log"), time.Now(), time.Now()))
	select {
	case <-w.told:
		t.Error("told of a file that is not watched")
	case <-time.After(soon):
	}
}

// Where a symbolic link leads, and where a link in the middle of the way leads: folders of systemd and Kubernetes are
// replaced like that.
func TestLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, version := range []string{"v1", "v2", "v3"} {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "key"), version)
	}
	link := filepath.Join(dir, "current")
	must(t, os.Symlink("v1", link))
	elsewhere := filepath.Join(t.TempDir(), "key")
	must(t, os.Symlink(filepath.Join(dir, "v1", "key"), elsewhere))
	w := watch(t, filepath.Join(link, "key"), elsewhere)
	must(t, os.Symlink("v2", link+".new"))
	must(t, os.Rename(link+".new", link))
	w.want(t, "a link leads elsewhere")
	write(t, filepath.Join(dir, "v2", "key"), "changed")
	w.want(t, "where it leads now")
	write(t, filepath.Join(dir, "v1", "key"), "changed")
	w.want(t, "where the other leads")
	must(t, os.Remove(link))
	w.want(t, "no link")
	must(t, os.Symlink("v3", link))
	w.want(t, "a link again")
}

// A burst is told once it is over, and one that does not end is told all the same.
func TestBurst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "cert"), filepath.Join(dir, "key")}
	w := watch(t, files...)
	for _, f := range files {
		write(t, f, "x")
	}
	w.want(t, "two files")
	if len(w.told) > 0 {
		t.Error("told twice of one burst")
	}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range 1_000_000 {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond): // is the burst, waits for nothing
				_ = os.WriteFile(files[i%2], []byte{byte(i)}, 0o600)
			}
		}
	})
	w.want(t, "a burst without end")
	close(stop)
	writing.Wait()
}

// What has been seen is not told of, and paths may change.
func TestSee(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, other := filepath.Join(dir, "one"), filepath.Join(t.TempDir(), "other")
	write(t, one, "1")
	write(t, other, "1")
	w := watch(t, one)
	w.See()
	write(t, one, "2")
	w.See()
	w.Set([]string{one, other})
	write(t, one, "3")
	w.want(t, "the first")
	third := filepath.Join(t.TempDir(), "third")
	w.Set([]string{third}) // while it waits
	write(t, third, "1")
	w.want(t, "a file that is watched while the watcher waits")
	w.Set([]string{other})
	write(t, other, "2")
	w.want(t, "a file that begins to matter")
	if len(w.told) > 0 {
		t.Error("told of what had been seen")
	}
}
