package sequence_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/signing"
	"pinseal/signing/sequence"
)

// childEnv makes the test program a child that takes numbers from a file.
const childEnv = "SEQUENCE_TEST_CHILD"

const childNumbers = 500

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(child(path)) //nolint:forbidigo // this is the child's main
	}
	os.Exit(m.Run()) //nolint:forbidigo // TestMain ends the process
}

func child(path string) int {
	c, err := sequence.Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for range childNumbers {
		n, err := c.Next(time.Unix(0, 0))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(n)
	}
	return 0
}

func open(t *testing.T, path string) *sequence.Counter {
	t.Helper()
	c, err := sequence.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // some tests have closed it
	return c
}

func next(t *testing.T, c *sequence.Counter, now time.Time) uint64 {
	t.Helper()
	n, err := c.Next(now)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "sign.key.seq")
}

// record is a file as another boot, or a broken disk, may have left it.
func record(last, ceiling string) []byte {
	line := fmt.Sprintf("pinseal-sequence 1 %s %s 00000000-0000-0000-0000-000000000000", last, ceiling)
	return fmt.Appendf(nil, "%s %08x\n", line, crc32.ChecksumIEEE([]byte(line)))
}

func TestNext(t *testing.T) {
	c := open(t, newPath(t))
	for _, step := range []struct {
		name string
		now  time.Time
		want uint64
	}{
		{"no clock", time.Unix(0, 0), 1},
		{"before 1970", time.Unix(-5, 0), 2},
		{"microseconds", time.UnixMicro(1763787388_250000), 1763787388_250000},
		{"the same moment", time.UnixMicro(1763787388_250000), 1763787388_250001},
		{"clock stepped back", time.Unix(1000, 0), 1763787388_250002},
		{"clock goes on", time.UnixMicro(1763787388_250010), 1763787388_250010},
		{"clock beyond every number", time.UnixMicro(signing.MaxSequence + 1), 1763787388_250011},
		{"clock beyond microseconds", time.Unix(1<<60, 0), 1763787388_250012},
		{"zero time", time.Time{}, 1763787388_250013},
	} {
		t.Run(step.name, func(t *testing.T) {
			if got := next(t, c, step.now); got != step.want {
				t.Errorf("%d, want %d", got, step.want)
			}
		})
	}
}

func TestUsedUp(t *testing.T) {
	c := open(t, newPath(t))
	if got := next(t, c, time.UnixMicro(signing.MaxSequence)); got != signing.MaxSequence {
		t.Fatalf("%d", got)
	}
	if n, err := c.Next(time.Unix(0, 0)); err == nil || !strings.Contains(err.Error(), "new signing key") {
		t.Errorf("%d, %v", n, err)
	}
}

func TestReopened(t *testing.T) {
	path := newPath(t)
	first := open(t, path)
	a := next(t, first, time.Unix(5, 0))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := first.Next(time.Unix(5, 0)); err == nil {
		t.Errorf("a closed counter gives %d", n)
	}
	if b := next(t, open(t, path), time.Unix(5, 0)); b != a+1 {
		t.Errorf("%d after %d", b, a)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestAfterReboot: what was given out below the ceiling may be lost, so that
// all of it counts as used.
func TestAfterReboot(t *testing.T) {
	path := newPath(t)
	if err := os.WriteFile(path, record("0000000000000007", "0000000000005000"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, path)
	if got := next(t, c, time.Unix(0, 0)); got != 5001 {
		t.Errorf("%d, want 5001", got)
	}
	if got := next(t, c, time.Unix(0, 0)); got != 5002 {
		t.Errorf("%d, want 5002", got)
	}
}

// TestCeiling reads the file after each number: none may be above the ceiling
// that is in it, nor the ceiling in it be raised without need.
func TestCeiling(t *testing.T) {
	path := newPath(t)
	c := open(t, path)
	raised, last := 0, ""
	for i := range 200 {
		n := next(t, c, time.Unix(int64(i), 0))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(data))
		if ceiling, err := strconv.ParseUint(fields[3], 10, 64); err != nil || n > ceiling {
			t.Fatalf("%d given out with the file %q", n, data)
		}
		if fields[3] != last {
			raised, last = raised+1, fields[3]
		}
	}
	if raised > 5 {
		t.Errorf("synced %d times in 200 s of numbers, want once a minute", raised)
	}
}

func TestDamagedFile(t *testing.T) {
	path := newPath(t)
	next(t, open(t, path), time.Unix(100, 0))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]byte{
		"text":                  []byte("hello\n"),
		"longer":                append(bytes.Clone(good), '\n'),
		"zero bytes":            make([]byte, len(good)),
		"last above ceiling":    record("0000000000000009", "0000000000000008"),
		"ceiling above the end": record("0000000000000009", "9007199254740992"),
		"not digits":            record("000000000000000x", "0000000000000008"),
		"signed":                record("+000000000000001", "0000000000000008"),
	}
	for i := range good {
		tests[fmt.Sprintf("cut at %d", i)] = good[:i]
		changed := bytes.Clone(good)
		changed[i] ^= 1
		tests[fmt.Sprintf("byte %d changed", i)] = changed
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			c := open(t, path)
			next(t, c, time.Unix(100, 0))
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Next(time.Unix(200, 0)); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("an open counter gives %d, %v", n, err)
			}
			if _, err := sequence.Open(path); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("opening: %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, data) {
				t.Errorf("the damaged file was changed: %q, %v", after, err)
			}
		})
	}
}

func TestReplacedFile(t *testing.T) {
	path := newPath(t)
	c := open(t, path)
	next(t, c, time.Unix(100, 0))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Next(time.Unix(200, 0)); err == nil {
		t.Errorf("%d from a file that is gone", n)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Next(time.Unix(200, 0)); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("%d, %v from a file that was replaced", n, err)
	}
}

func TestNoFolder(t *testing.T) {
	if _, err := sequence.Open(filepath.Join(t.TempDir(), "none", "sign.key.seq")); err == nil {
		t.Error("opened")
	}
}

func TestConcurrentCounters(t *testing.T) {
	path := newPath(t)
	const counters, goroutines, each = 3, 4, 100
	var mu sync.Mutex
	var all []uint64
	var wg sync.WaitGroup
	for range counters {
		c := open(t, path)
		for range goroutines {
			wg.Go(func() {
				for range each {
					n, err := c.Next(time.Unix(0, 0))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					all = append(all, n)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	checkAllDifferent(t, all, counters*goroutines*each)
}

// TestConcurrentProcesses also races them to make the file.
func TestConcurrentProcesses(t *testing.T) {
	path := newPath(t)
	const processes = 4
	outputs := make([]bytes.Buffer, processes)
	cmds := make([]*exec.Cmd, processes)
	for i := range cmds {
		cmds[i] = exec.CommandContext(t.Context(), os.Args[0])
		cmds[i].Env = append(os.Environ(), childEnv+"="+path)
		cmds[i].Stdout, cmds[i].Stderr = &outputs[i], os.Stderr
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	var all []uint64
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		for field := range strings.FieldsSeq(outputs[i].String()) {
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
	}
	checkAllDifferent(t, all, processes*childNumbers)
}

// TestKilledProcess: numbers that a killed process had taken are not given out
// again, though it synced none of them but the ceiling.
func TestKilledProcess(t *testing.T) {
	path := newPath(t)
	for range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var printed uint64
		for range 20 {
			if _, err := fmt.Fscan(out, &printed); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		c := open(t, path)
		if n := next(t, c, time.Unix(0, 0)); n <= printed {
			t.Fatalf("%d after %d", n, printed)
		}
	}
}

func checkAllDifferent(t *testing.T, all []uint64, want int) {
	t.Helper()
	slices.Sort(all)
	if got := len(slices.Compact(slices.Clone(all))); len(all) != want || got != want {
		t.Errorf("%d numbers, %d different, want %d", len(all), got, want)
	}
}

// TestReserve: numbers taken together are taken by nobody else, also around a ceiling and a restart of the machine.
func TestReserve(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sign.key.seq")
	c, err := sequence.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	now, last := time.Unix(1_700_000_000, 0), uint64(0)
	for _, n := range []uint64{1, 64, 1, 1000, 70_000_000, 1} {
		first, err := c.Reserve(now, n)
		if err != nil {
			t.Fatal(err)
		}
		if first <= last {
			t.Errorf("%d numbers from %d on, but %d was used", n, first, last)
		}
		last = first + n - 1
		if next, err := c.Next(now); err != nil || next != last+1 {
			t.Errorf("after %d came %d, %v", last, next, err)
		}
		last++
	}
}
