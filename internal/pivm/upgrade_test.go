//go:build pivm

package pivm_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// upgrade installs the package over itself under a stream of commands. What a session misses is the restart, which it
// measures; no line is lost.
func (p *pi) upgrade(t *testing.T) {
	s := p.stream(t)
	s.toggle(t, 20)
	before := p.sh(t, "systemctl show -P MainPID pinseal")
	installed := p.start(t, "dpkg -i /run/pivm/pinseal_*_arm64.deb")
	status := p.shared(fmt.Sprintf("script-%d.status", p.scripts))
	for {
		s.toggle(t, 1)
		if _, err := os.Stat(status); err == nil {
			break
		}
	}
	if out, code := installed(t); code != 0 {
		t.Fatalf("the upgrade ended with %d:\n%s", code, out)
	}
	s.toggle(t, 20)
	if now := p.sh(t, "systemctl show -P MainPID pinseal"); now == before {
		t.Error("the old program still runs after the upgrade")
	}
	progress("an upgrade under load: %d commands, none lost, one answered after %.1f s", s.sent, s.longest.Seconds())
	s.end(t)
}

// commandStream is pub -l: what people use who send many.
type commandStream struct {
	program *exec.Cmd
	lines   io.WriteCloser
	answers *bufio.Scanner
	sent    int
	longest time.Duration // that a command waited for its answer
}

func (p *pi) stream(t *testing.T) *commandStream {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.program, "pub", "--bundle", p.bundle, "-h", "127.0.0.1", "-p", p.port, "-l", "ledStatus")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &commandStream{program: cmd, lines: in, answers: bufio.NewScanner(out)}
}

// end fails if a command was refused.
func (s *commandStream) end(t *testing.T) {
	t.Helper()
	if err := s.lines.Close(); err != nil {
		t.Error(err)
	}
	if err := s.program.Wait(); err != nil {
		t.Errorf("pinseal pub -l: %v", err)
	}
}

// toggle sends commands, each when the one before is answered.
func (s *commandStream) toggle(t *testing.T, n int) {
	t.Helper()
	for range n {
		began := time.Now()
		if _, err := io.WriteString(s.lines, "toggle\n"); err != nil {
			t.Fatal(err)
		}
		if s.sent++; !s.answers.Scan() {
			t.Fatalf("no answer to command %d: %v", s.sent, s.answers.Err())
		}
		s.longest = max(s.longest, time.Since(began))
	}
}
