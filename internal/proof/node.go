package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"pinseal/agent"
	"pinseal/internal/freeport"
)

// The parties of every experiment. The thief has a valid TLS certificate, may publish wherever commands are taken, and
// has no right to command anything.
const (
	nodeName  = "raspiflow"
	operator  = "operator"
	thief     = "thief"
	sensor    = "sensor"
	ledTopic  = "ledStatus" // commands output 0
	ledLine   = 0
	stateFile = "state.db"
)

// patience is how long something may take that takes milliseconds.
const patience = 15 * time.Second

func outputName(line int) string { return fmt.Sprintf("out%d", line) }

// commandTopic is where a line is commanded.
func commandTopic(line int) string {
	if line == ledLine {
		return ledTopic
	}
	return agent.SetTopic(nodeName, outputName(line))
}

// node is `pinseal run` with every line of the simulated chip as an output.
type node struct {
	program, dir, address string
	lines                 *watch

	process *process // nil while it does not run
}

// nothing is what happens to a node's files while it does not run.
func nothing(*node) error { return nil }

// unchanged leaves a node's configuration as it is.
func unchanged(config string) string { return config }

// usualRates has a node limit each key as it does unless told otherwise.
func usualRates(config string) string {
	return strings.NewReplacer("rate = 1000000\n", "", "burst = 1000000\n", "").Replace(config)
}

// newNode makes the files of a node: `pinseal init`, two devices, and a configuration with rates that do not limit what
// is to be judged. change may alter the configuration.
func newNode(ctx context.Context, l *lab, dir string, change func(config string) string) (*node, error) {
	address, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	n := &node{program: l.program, dir: dir, address: address}
	for _, args := range [][]string{
		{"init", "--dir", dir, "--node", nodeName, "--operator", operator, "--chip", "sim", "--topic", ledTopic, "--listen", n.address},
		{"device", "add", thief, "--dir", dir, "--out", filepath.Join(dir, "bundles", thief)},
		{"device", "add", sensor, "--dir", dir, "--out", filepath.Join(dir, "bundles", sensor)},
	} {
		if out, err := exec.CommandContext(ctx, n.program, args...).CombinedOutput(); err != nil { //nolint:gosec // our own arguments
			return nil, fmt.Errorf("pinseal %s: %w\n%s", args[0], err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "pinseal.toml"), []byte(change(n.config())), 0o600); err != nil {
		return nil, err
	}
	n.lines, err = newWatch(filepath.Join(dir, "run", "lines"))
	return n, err
}

func (n *node) config() string {
	var text strings.Builder
	fmt.Fprintf(&text, `node = %q
[gpio]
chip = "sim"
[clock]
trust = "always"
[log]
level = "error"
[agent]
max_age = "60s"
rate = 1000000
burst = 1000000
flush = "5s"
[[listener]]
address = %q
[[telemetry]]
signer = "*"
topic = "telemetry/%%u/+"
[[acl]]
identity = %q
publish = ["#"]
subscribe = ["#"]
[[acl]]
identity = %q
publish = ["#"]
subscribe = ["#"]
[[acl]]
identity = %q
publish = ["telemetry/%%u/+"]
subscribe = ["#"]
`, nodeName, n.address, operator, thief, sensor)
	for line := range lines {
		topic := ""
		if line == ledLine {
			topic = fmt.Sprintf("topic = %q\n", ledTopic)
		}
		fmt.Fprintf(&text, "[[output]]\nname = %q\nline = %q\n%s[[permit]]\nsigner = %q\noutput = %q\nactions = [\"on\", \"off\", \"toggle\"]\n",
			outputName(line), lineName(line), topic, operator, outputName(line))
	}
	return text.String()
}

func (n *node) path(name ...string) string { return filepath.Join(append([]string{n.dir}, name...)...) }

// start starts the process and waits until it is ready.
func (n *node) start(ctx context.Context) error {
	if err := n.spawn(ctx); err != nil {
		return err
	}
	select {
	case <-n.process.ready:
		return nil
	case <-n.process.exited:
		p := n.process
		n.process = nil
		return fmt.Errorf("pinseal run ended: %w\n%s", p.err, p.said())
	case <-time.After(patience):
		return errors.Join(errors.New("pinseal run does not become ready"), n.end(syscall.SIGKILL))
	case <-ctx.Done():
		return errors.Join(ctx.Err(), n.end(syscall.SIGKILL))
	}
}

func (n *node) spawn(ctx context.Context) error {
	p := &process{ready: make(chan struct{}), exited: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), n.program, "run", "--dir", n.dir) //nolint:gosec // just built
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting pinseal run: %w", err)
	}
	go p.follow(stderr)
	n.process = p
	return nil
}

// end sends a signal and waits until the process is gone. An orderly end with an error is one.
func (n *node) end(with syscall.Signal) error {
	p := n.process
	if p == nil {
		return nil
	}
	n.process = nil
	if err := p.cmd.Process.Signal(with); err != nil {
		<-p.exited
		return fmt.Errorf("pinseal run ended by itself: %w\n%s", p.err, p.said())
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill() // may be gone by now
		<-p.exited
		return fmt.Errorf("pinseal run does not end on %v\n%s", with, p.said())
	}
	if with != syscall.SIGKILL && p.err != nil {
		return fmt.Errorf("pinseal run: %w\n%s", p.err, p.said())
	}
	return nil
}

// close ends the process, if it runs, and stops watching its lines.
func (n *node) close() error { return errors.Join(n.end(syscall.SIGKILL), n.lines.close()) }

// process is one run of a node.
type process struct {
	cmd           *exec.Cmd
	ready, exited chan struct{}
	err           error // of the exit; read after exited

	mu   sync.Mutex
	tail []string
}

const tailLines = 20

// follow reads what the process says until it ends.
func (p *process) follow(stderr io.Reader) {
	ready := false
	for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
		if strings.HasPrefix(scanner.Text(), "ready: ") && !ready {
			ready = true
			close(p.ready)
		}
		p.mu.Lock()
		p.tail = append(p.tail, scanner.Text())
		p.tail = slices.Delete(p.tail, 0, max(0, len(p.tail)-tailLines))
		p.mu.Unlock()
	}
	p.err = p.cmd.Wait()
	close(p.exited)
}

// said is the end of what it said.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}
