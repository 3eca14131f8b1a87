package main

import (
	"bytes"
	"context"
	"crypto/tls"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"pinseal/agent"
	"pinseal/internal/freeport"
	"pinseal/internal/load"
	"pinseal/pki"
	"pinseal/signing"
	"pinseal/signing/boxtec"

	"golang.org/x/sys/unix"
)

const (
	nameOurs   = "pinseal"
	nameTheirs = "mosquitto and Python"

	node   = "raspiflow"
	signer = "operator"
	topic  = "ledStatus"
)

// stack is one of the two things compared: a broker and an agent that drives a line.
type stack struct {
	name      string
	address   string
	tls       *tls.Config
	line      string     // file with the level
	processes [][]string // command lines, in the order of starting
	env       []string   // in addition to ours
	log       string     // file for what they print
	seal      func(on bool) ([]byte, error)

	// answers is the topic on which the stack tells what it acted on, if it does, and onAnswer hears it.
	answers  string
	onAnswer func(payload []byte)
	acted    func() (int, error) // commands acted on, as the node's side counts them

	load int // commands in one measurement of the sustained rate
}

// life is a stack that runs.
type life struct {
	*stack
	commands []*exec.Cmd
	client   *load.Client
}

// stop ends the processes in the reverse order and waits for them.
func (l *life) stop() error {
	var errs []error
	if l.client != nil {
		l.client.Close()
	}
	for _, cmd := range slices.Backward(l.commands) {
		errs = append(errs, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait() // Python says that it was told to end
	}
	return errors.Join(errs...)
}

func (s *stack) spawn(ctx context.Context) (*life, error) {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	l := &life{stack: s}
	for _, p := range s.processes {
		cmd := exec.CommandContext(ctx, p[0], p[1:]...) //nolint:gosec // our own command lines
		cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), s.env...)
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(fmt.Errorf("starting %s: %w", p[0], err), l.stop())
		}
		l.commands = append(l.commands, cmd)
	}
	return l, log.Close()
}

// residentKiB is the memory of the processes; what they share with each other counts once (Pss, proc(5)).
func (l *life) residentKiB() (int, error) {
	sum := 0
	for _, cmd := range l.commands {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "\nPss:")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0, errors.New("no Pss in smaps_rollup")
		}
		kib, err := strconv.Atoi(fields[0])
		if err != nil {
			return 0, err
		}
		sum += kib
	}
	return sum, nil
}

// processorTime is what the processes have used so far, in the kernel too.
func (l *life) processorTime() (sum time.Duration, err error) {
	for _, cmd := range l.commands {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		const utime, stime, ticksPerSecond = 11, 12, 100 // proc_pid_stat(5), counted from the state
		for _, i := range []int{utime, stime} {
			ticks, err := strconv.Atoi(fields[i])
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * time.Second / ticksPerSecond
		}
	}
	return sum, nil
}

// ownProcessorTime is what the load generator has used so far. It runs on the same processors.
func ownProcessorTime() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// bundle is what init has made for the operator. The replaced stack gets the same certificates.
type bundle struct{ dir string }

func (b bundle) file(name string) string { return filepath.Join(b.dir, "bundles", signer, name) }

func (b bundle) tls() (*tls.Config, error) {
	return pki.ClientConfig(pki.Files{
		Certificate: b.file("client.crt"), Key: b.file("client.key"), CA: b.file("ca.crt"),
	}, "127.0.0.1", time.Now)
}

// limits are those of a benchmark: one key sends everything.
const limits = `
[agent]
rate = 1000000
burst = 1000000

[limits]
max_publish_rate = 1000000
max_publish_bytes_rate = 1000000000
max_connect_rate = 1000000
max_connections = 10000
max_connections_per_address = 10000

[[acl]]
identity = "operator"
publish = ["bench/#"]
subscribe = ["bench/#"]
`

// place is where the files of both stacks are. The line is in memory, as /run is and as a real one is: the disk must not
// hold up who drives it.
type place struct{ disk, memory string }

func makePlace() (at place, err error) {
	if at.disk, err = os.MkdirTemp("", "pinseal-bench-"); err != nil {
		return at, err
	}
	if at.memory, err = os.MkdirTemp("/dev/shm", "pinseal-bench-"); err != nil {
		return at, errors.Join(err, at.remove())
	}
	return at, nil
}

func (at place) remove() error { return errors.Join(os.RemoveAll(at.disk), os.RemoveAll(at.memory)) }

// simulateLines puts the lines of the simulated chip into memory and gives the file of the one that is driven.
func (at place) simulateLines(run string) (string, error) {
	err := os.MkdirAll(run, 0o700)
	return filepath.Join(at.memory, "GPIO17"), errors.Join(err, os.Symlink(at.memory, filepath.Join(run, "lines")))
}

// ours is `pinseal run` as init made it, with a simulated chip.
func ours(ctx context.Context, program string, at place) (*stack, error) {
	dir := filepath.Join(at.disk, "ours")
	address, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, program, "init", "--dir", dir, "--node", node, "--operator", signer, //nolint:gosec // just built
		"--topic", topic, "--chip", "sim", "--listen", address).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("pinseal init: %w\n%s", err, out)
	}
	if err := appendTo(filepath.Join(dir, "pinseal.toml"), limits); err != nil {
		return nil, err
	}
	line, err := at.simulateLines(filepath.Join(dir, "run"))
	if err != nil {
		return nil, err
	}
	b := bundle{dir}
	cfg, err := b.tls()
	if err != nil {
		return nil, err
	}
	seal, err := sealer(b.file("sign.key"))
	if err != nil {
		return nil, err
	}
	var applied atomic.Int64
	return &stack{
		name: nameOurs, address: address, tls: cfg, line: line, load: 60_000,
		processes: [][]string{{program, "run", "--dir", dir}}, log: filepath.Join(dir, "log"), seal: seal,
		answers: agent.VerdictTopic(node, signer),
		onAnswer: func(payload []byte) {
			if isApplied(payload) {
				applied.Add(1)
			}
		},
		acted: func() (int, error) { return int(applied.Load()), nil },
	}, nil
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// sealer seals commands with the operator's key, each numbered one above the last.
func sealer(path string) (func(on bool) ([]byte, error), error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := signing.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	number := uint64(time.Now().UnixMicro())
	return func(on bool) ([]byte, error) {
		number++
		return signing.Seal(key, signing.Claims{
			Topic: topic, IssuedAt: time.Now(), Sequence: number, Message: fmt.Appendf(nil, `"%d"`, level(on)),
		})
	}, nil
}

// isApplied reads a verdict just closely enough to tell whether it says so.
func isApplied(sealed []byte) bool {
	_, rest, _ := bytes.Cut(sealed, []byte("."))
	claims, _, _ := bytes.Cut(rest, []byte("."))
	text, err := base64.RawURLEncoding.AppendDecode(nil, claims)
	return err == nil && bytes.Contains(text, []byte(`"reason":"applied"`))
}

func level(on bool) int {
	if on {
		return 1
	}
	return 0
}

//go:embed legacy/agent.py
var legacyAgent []byte

// mosquittoConf is what people write to have mutual TLS with Debian's mosquitto.
const mosquittoConf = `user %[1]s
listener %[2]s 127.0.0.1
cafile %[3]s/pki/ca.crt
certfile %[3]s/pki/broker.crt
keyfile %[3]s/pki/broker.key
require_certificate true
use_identity_as_username true
`

// theirs is mosquitto and the Python agent, with the certificates of ours.
func theirs(at place) (*stack, error) {
	certificates, dir := filepath.Join(at.disk, "ours"), filepath.Join(at.disk, "theirs")
	address, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	b := bundle{certificates}
	cfg, err := b.tls()
	if err != nil {
		return nil, err
	}
	key, err := signing.GenerateKey(signing.ES256K)
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	line := filepath.Join(at.memory, "LED")
	for path, text := range map[string][]byte{
		in("agent.py"): legacyAgent, in("led.pem"): key.Public().PEM(), line: []byte("0"), in("counter"): make([]byte, 8),
		in("mosquitto.conf"): fmt.Appendf(nil, mosquittoConf, me.Username, port, certificates),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			return nil, err
		}
	}
	return &stack{
		name: nameTheirs, address: address, tls: cfg, line: line, log: in("log"), load: 2500,
		processes: [][]string{
			{"/usr/sbin/mosquitto", "-c", in("mosquitto.conf")},
			{
				"/usr/bin/python3", in("agent.py"), port, b.file("ca.crt"), b.file("client.crt"), b.file("client.key"),
				in("led.pem"), line, in("counter"),
			},
		},
		seal: func(on bool) ([]byte, error) {
			return boxtec.Seal(key, boxtec.SHA1, time.Now(), strconv.Itoa(level(on)))
		},
		acted: func() (int, error) { return readCounter(in("counter")) },
	}, nil
}

func readCounter(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return int(binary.LittleEndian.Uint64(data)), nil //nolint:gosec // counts one run
}
