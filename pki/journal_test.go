package pki_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pinseal/pki"
)

func issued(t *testing.T, authority *pki.Authority, name string) pki.Entry {
	t.Helper()
	cert := parseOne(t, read(t, issueClient(t, authority, t.TempDir(), name, now).Certificate))
	return pki.Issued(cert, "device", "test", now)
}

func readJournal(t *testing.T, path string) *pki.History {
	t.Helper()
	history, err := pki.ReadJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	return history
}

// newJournal is a journal of three entries.
func newJournal(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "journal")
	authority := newAuthority(t)
	for i := range 3 {
		if err := pki.OpenJournal(path).Append(issued(t, authority, fmt.Sprintf("sensor-%d", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestJournal(t *testing.T) {
	t.Parallel()
	path := newJournal(t)
	history := readJournal(t, path)
	if len(history.Entries) != 3 || history.Torn || !history.Contains(history.Head) || history.Contains("") {
		t.Fatalf("%d entries, head %s", len(history.Entries), history.Head)
	}
	for i, e := range history.Entries {
		cert, err := e.ParseCertificate()
		if err != nil {
			t.Fatal(err)
		}
		if e.Number != int64(i+1) || e.Name != fmt.Sprintf("sensor-%d", i+1) || !e.NotAfter.Equal(cert.NotAfter) || e.By != "test" {
			t.Errorf("entry %d: %+v", i+1, e)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if history := readJournal(t, filepath.Join(t.TempDir(), "none")); len(history.Entries) != 0 || history.Head != "" {
		t.Errorf("a journal that is not there: %+v", history)
	}
}

// A journal made as a whole is the one that grew line by line.
func TestNewJournal(t *testing.T) {
	t.Parallel()
	path := newJournal(t)
	text, err := pki.NewJournal(readJournal(t, path).Entries...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, read(t, path)) {
		t.Errorf("made as a whole:\n%s\ngrown:\n%s", text, read(t, path))
	}
}

// Whatever is changed in a journal shows.
func TestEveryByteOfAJournal(t *testing.T) {
	t.Parallel()
	text := read(t, newJournal(t))
	text = text[:bytes.LastIndexByte(text[:len(text)-1], '\n')+1] // two entries will do
	lastLine := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
	head, err := pki.ParseJournal(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		history, err := pki.ParseJournal(changed)
		// In the last line only who knows the head can tell, as with an end that was cut off.
		if err == nil && (i < lastLine || history.Contains(head.Head)) {
			t.Errorf("byte %d can be changed", i)
		}
	}
	for i := range len(text) {
		history, err := pki.ParseJournal(text[:i])
		if err != nil {
			t.Errorf("cut at byte %d: %v", i, err)
		} else if history.Contains(head.Head) || history.Torn == (i == 0 || text[i-1] == '\n') {
			t.Errorf("cut at byte %d: torn is %v", i, history.Torn)
		}
	}
}

func TestJournalRefuses(t *testing.T) {
	t.Parallel()
	lines := bytes.SplitAfter(read(t, newJournal(t)), []byte("\n"))
	other := bytes.SplitAfter(read(t, newJournal(t)), []byte("\n"))
	tests := []struct {
		name string
		text [][]byte
		want string
	}{
		{"a line removed", [][]byte{lines[0], lines[2]}, "2: "},
		{"the first line removed", lines[1:], "1: "},
		{"lines swapped", [][]byte{lines[1], lines[0]}, "1: "},
		{"a line repeated", [][]byte{lines[0], lines[0]}, "2: "},
		{"a line of another journal", [][]byte{lines[0], other[1]}, "2: "},
		{"an empty line", [][]byte{lines[0], []byte("\n")}, "2: "},
		{"an unknown field", [][]byte{[]byte("{\"x\":1}\n")}, "unknown field"},
		{"white space", [][]byte{append([]byte(" "), lines[0]...)}, "not written by pinseal"},
		{"another name than the certificate's", [][]byte{bytes.Replace(lines[0], []byte("sensor-1"), []byte("sensor-2"), 1)}, "not about its certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := pki.ParseJournal(bytes.Join(tt.text, nil))
			wantError(t, err, tt.want)
		})
	}
}

// After a power cut in the middle of a line the next entry takes its place; a journal that is damaged takes none.
func TestJournalAfterAPowerCut(t *testing.T) {
	t.Parallel()
	path, authority := newJournal(t), newAuthority(t)
	before := read(t, path)
	for _, torn := range []string{`{"n":4,"ti`, strings.Repeat("x", 30_000)} {
		write(t, filepath.Dir(path), "journal", append(bytes.Clone(before), torn...))
		if !readJournal(t, path).Torn {
			t.Error("not seen as torn")
		}
		if err := pki.OpenJournal(path).Append(issued(t, authority, "sensor-4")); err != nil {
			t.Fatal(err)
		}
		if history := readJournal(t, path); len(history.Entries) != 4 || history.Torn {
			t.Errorf("%d entries, torn %v", len(history.Entries), history.Torn)
		}
	}
	for _, damage := range []string{"nonsense\n", strings.Repeat("x", 100_000)} {
		damaged := append(bytes.Clone(before), damage...)
		write(t, filepath.Dir(path), "journal", damaged)
		if err := pki.OpenJournal(path).Append(issued(t, authority, "sensor-4")); err == nil || !bytes.Equal(damaged, read(t, path)) {
			t.Errorf("an entry was added to a damaged journal: %v", err)
		}
	}
	// The very first line.
	write(t, filepath.Dir(path), "journal", []byte(`{"n":1,"ti`))
	if err := pki.OpenJournal(path).Append(issued(t, authority, "sensor-1")); err != nil || len(readJournal(t, path).Entries) != 1 {
		t.Errorf("%v", err)
	}
}

func TestJournalRefusesLongEntries(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	err := pki.OpenJournal(path).Append(pki.Entry{Event: "other", Name: strings.Repeat("x", 40_000)})
	wantError(t, err, path, "at most")
}

// A full disk leaves no half of a line behind.
func TestJournalOnAFullDisk(t *testing.T) {
	path := newJournal(t)
	before := read(t, path)
	// ulimit, because a limit of this process would be that of other tests too.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap '' XFSZ; ulimit -f 4; exec "$0" -test.run='^TestJournalAppender$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "PKI_TEST_JOURNAL="+path)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), syscall.EFBIG.Error()) {
		t.Fatalf("%v: %s", err, out)
	}
	if after := read(t, path); !bytes.HasPrefix(after, before) || readJournal(t, path).Torn {
		t.Error("the journal is not what it was")
	}
}

// TestJournalAppender is the process of the tests that need another one.
func TestJournalAppender(t *testing.T) {
	path := os.Getenv("PKI_TEST_JOURNAL")
	if path == "" {
		return
	}
	authority := newAuthority(t)
	for range 20 {
		if err := pki.OpenJournal(path).Append(issued(t, authority, "sensor")); err != nil {
			t.Fatal(err)
		}
	}
}

// Two processes and some goroutines write one chain.
func TestJournalIsShared(t *testing.T) {
	t.Parallel()
	path, authority := filepath.Join(t.TempDir(), "journal"), newAuthority(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestJournalAppender$")
	cmd.Env = append(os.Environ(), "PKI_TEST_JOURNAL="+path)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 5 {
				e := pki.Entry{Event: "other", Time: now.In(time.FixedZone("somewhere", 3600)), Name: authority.Certificate().Subject.CommonName}
				if err := pki.OpenJournal(path).Append(e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	group.Wait()
	if history := readJournal(t, path); len(history.Entries) != 40 {
		t.Errorf("%d entries, want 40", len(history.Entries))
	}
}
