package replay_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"pinseal/signing/replay"
)

const childVariable = "PINSEAL_REPLAY_TEST_CHILD"

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if p := os.Getenv(childVariable); p != "" {
		fmt.Println("child:", child(p, os.Stdout))
		return
	}
	m.Run()
}

const childOutputs = 8

// child commits commands until it is killed, and prints each that was confirmed.
func child(p string, confirmed io.Writer) error {
	s, err := replay.Open(p, replay.Options{LogPages: 4}) // soon full
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, childOutputs)
	for i := range childOutputs {
		wg.Go(func() { errs <- commandForever(s, fmt.Sprint("out", i), confirmed) })
	}
	wg.Wait()
	return <-errs
}

func commandForever(s *replay.Store, output string, confirmed io.Writer) error {
	for n := uint64(1); ; n++ {
		s.Telemetry("kid", output, n, digest(fmt.Sprint(n))) // for company in the file
		o, c := s.Command("kid", output, n, digest(fmt.Sprint(n)))
		if o != replay.New {
			continue // a run before this one was here
		}
		if err := c.Wait(); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(confirmed, output, n); err != nil {
			return err
		}
	}
}

func TestKilledAtRandomMoments(t *testing.T) {
	p := path(t)
	last := map[string]uint64{}
	for round := range 15 {
		confirmed := runChild(t, p, 1+rand.IntN(400))
		for output, n := range confirmed {
			if n <= last[output] {
				t.Fatalf("round %d: %s %d was confirmed again after %d", round, output, n, last[output])
			}
			last[output] = n
		}
		s, err := replay.Open(p, replay.Options{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for output, n := range last {
			if o, _ := s.Command("kid", output, n, digest(fmt.Sprint(n))); o == replay.New || o == replay.Equivocation {
				t.Fatalf("round %d: %s %d was confirmed and is %v", round, output, n, o)
			}
		}
		closeStore(t, s)
	}
	if len(last) != childOutputs {
		t.Errorf("only %d outputs were used", len(last))
	}
}

// runChild kills a child after it confirmed some commands, and returns the last
// number confirmed of each output.
func runChild(t *testing.T, p string, lines int) map[string]uint64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+p)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	confirmed := map[string]uint64{}
	in := bufio.NewReader(out)
	for i := 0; ; i++ {
		if i == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		line, err := in.ReadString('\n')
		if err != nil { // what it printed before the end is still in the pipe
			break
		}
		var output string
		var n uint64
		if _, err := fmt.Sscan(strings.TrimSpace(line), &output, &n); err != nil {
			t.Fatalf("the child says %q", line)
		}
		confirmed[output] = max(confirmed[output], n)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	return confirmed
}
