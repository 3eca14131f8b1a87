package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"pinseal/internal/freeport"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pinseal": main})
}

// TestScript runs the real program as a person would; each script is a story in testdata/script.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// The distribution's python3 has the distribution's libraries; another may come first on the PATH.
			env.Setenv("PYTHON", "/usr/bin/python3")
			repo, err := filepath.Abs("../..") // for the examples of docs/
			if err != nil {
				return err
			}
			env.Setenv("REPO", repo)
			// With -race every program would sleep for a second before it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			env.Values[daemonsKey] = map[string]*daemon{}
			env.Defer(func() { stopAll(env) })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"freeport": cmdFreePort,
			"start":    cmdStart,
			"signal":   cmdSignal,
			"end":      cmdEnd,
			"await":    cmdAwait,
			"waitlog":  cmdWaitLog,
			"waitfile": cmdWaitFile,
			"status":   cmdStatus,
			"subst":    cmdSubst,
			"append":   cmdAppend,
			"mode":     cmdMode,
			"reload":   cmdReload,
		},
	})
}

const daemonsKey = "daemons"

// daemon is a program in the background whose standard error is a file, line by line.
type daemon struct {
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
	err    error
	told   bool // to end
}

// cmdFreePort sets variables to ports that nobody uses: freeport PORT...
func cmdFreePort(ts *testscript.TestScript, _ bool, args []string) {
	for _, variable := range args {
		address, err := freeport.Address()
		ts.Check(err)
		_, port, err := net.SplitHostPort(address)
		ts.Check(err)
		ts.Setenv(variable, port)
	}
}

// cmdStart starts a program and waits until its log shows a text: start NAME TEXT PROGRAM ARGS...
// Its standard error goes to the file NAME.log, its standard output to NAME.out. With ! it must end instead.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	name, text, program := args[0], args[1], args[2]
	log, err := os.Create(ts.MkAbs(name + ".log"))
	ts.Check(err)
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	path, err := lookPath(ts, program)
	ts.Check(err)
	cmd := exec.CommandContext(context.Background(), path, args[3:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), out, log
	cmd.Env = environment(ts)
	ts.Check(cmd.Start())
	d := &daemon{cmd: cmd, log: log.Name(), exited: make(chan struct{})}
	go func() {
		d.err = cmd.Wait()
		close(d.exited)
	}()
	daemons(ts)[name] = d
	seen := waitFor(func() bool { return contains(d.log, text) || contains(out.Name(), text) }, d.exited)
	if neg {
		<-d.exited
	} else if !seen {
		ts.Fatalf("%s did not say %q:\n%s", name, text, ts.ReadFile(d.log))
	}
}

// cmdSignal sends a signal: signal NAME HUP|TERM|KILL|INT
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "INT": syscall.SIGINT}
	d := daemons(ts)[args[0]]
	d.told = d.told || args[1] != "HUP"
	ts.Check(d.cmd.Process.Signal(signals[args[1]]))
}

// cmdReload sends SIGHUP to a node and waits until it has been reloaded, one time more than before: reload NAME. That it
// is reloading anyhow, because files have changed, is not enough: it may have begun before the last of them did.
func cmdReload(ts *testscript.TestScript, _ bool, args []string) {
	d := daemons(ts)[args[0]]
	count := func() (told int) {
		ofItself := false
		for line := range strings.Lines(ts.ReadFile(d.log)) {
			switch {
			case strings.Contains(line, "files have changed, reloading"):
				ofItself = true
			case strings.Contains(line, "reload refused"):
				ofItself = false
			case strings.Contains(line, "msg=reloaded"):
				if !ofItself {
					told++
				}
				ofItself = false
			}
		}
		return told
	}
	before := count()
	ts.Check(d.cmd.Process.Signal(syscall.SIGHUP))
	if !waitFor(func() bool { return count() > before }, d.exited) {
		ts.Fatalf("%s was not reloaded:\n%s", args[0], ts.ReadFile(d.log))
	}
}

// cmdEnd ends a program with SIGTERM, unless it has had its signal, and wants a clean exit within ten seconds;
// ! end wants a failure. It is not named stop, which testscript has already: it ends the script, as passed.
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	d := daemons(ts)[args[0]]
	delete(daemons(ts), args[0])
	if !d.told { // a second signal would end it at once
		_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	}
	awaitEnd(ts, d, args[0], neg)
}

// cmdAwait waits for the end of a program that ends by itself: await NAME. With ! it must fail.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	d := daemons(ts)[args[0]]
	delete(daemons(ts), args[0])
	awaitEnd(ts, d, args[0], neg)
}

func awaitEnd(ts *testscript.TestScript, d *daemon, name string, fails bool) {
	select {
	case <-d.exited:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		ts.Fatalf("%s did not end within 10 s:\n%s", name, ts.ReadFile(d.log))
	}
	if (d.err != nil) != fails {
		ts.Fatalf("%s ended with %v:\n%s", name, d.err, ts.ReadFile(d.log))
	}
}

// cmdWaitLog waits until the log of a program shows a text: waitlog NAME TEXT
func cmdWaitLog(ts *testscript.TestScript, _ bool, args []string) {
	d := daemons(ts)[args[0]]
	if !waitFor(func() bool { return contains(d.log, args[1]) }, nil) {
		ts.Fatalf("%s did not say %q:\n%s", args[0], args[1], ts.ReadFile(d.log))
	}
}

// cmdWaitFile waits until a file shows a text; with !, that it shows it now is a failure.
func cmdWaitFile(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	if neg {
		if contains(path, args[1]) {
			ts.Fatalf("%s shows %q", args[0], args[1])
		}
		return
	}
	if !waitFor(func() bool { return contains(path, args[1]) }, nil) {
		text := ts.ReadFile(args[0])
		ts.Fatalf("%s did not show %q; it ends so:\n%s", args[0], args[1], text[max(0, len(text)-4096):])
	}
}

// cmdStatus runs a program and wants an exit code: status CODE PROGRAM ARGS...
func cmdStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit := new(exec.ExitError); err != nil {
		if !asExit(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func asExit(err error, to **exec.ExitError) bool {
	exit, ok := err.(*exec.ExitError) //nolint:errorlint // what ts.Exec returns is bare
	*to = exit
	return ok
}

// cmdSubst replaces a text in a file: subst FILE OLD NEW
func cmdSubst(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}

// cmdAppend appends files to a file, with the environment's variables filled in: append FILE SOURCE...
func cmdAppend(ts *testscript.TestScript, _ bool, args []string) {
	file, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	for _, source := range args[1:] {
		_, err = file.WriteString(os.Expand(ts.ReadFile(source), ts.Getenv))
		ts.Check(err)
	}
	ts.Check(file.Close())
}

// cmdMode wants a file's permissions: mode 0600 FILE...
func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := fmt.Sprintf("%#o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", file, got, args[0])
		}
	}
}

func daemons(ts *testscript.TestScript) map[string]*daemon {
	return ts.Value(daemonsKey).(map[string]*daemon) //nolint:errcheck,forcetypeassert // set by Setup
}

func stopAll(env *testscript.Env) {
	for _, d := range env.Values[daemonsKey].(map[string]*daemon) { //nolint:errcheck,forcetypeassert // set by Setup
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

// lookPath finds a program on the script's PATH, where pinseal is this test's own.
func lookPath(ts *testscript.TestScript, program string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return exec.LookPath(program)
}

func environment(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, variable := range []string{"PATH", "HOME", "WORK", "TMPDIR", "PINSEAL_BUNDLE", "NOTIFY_SOCKET", "GORACE"} {
		env = append(env, variable+"="+ts.Getenv(variable))
	}
	return env
}

func contains(path, text string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return true
		}
	}
	return false
}

// waitFor polls for up to twenty seconds, or until over is closed: other programs' files tell no events.
func waitFor(seen func() bool, over <-chan struct{}) bool {
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if seen() {
			return true
		}
		select {
		case <-tick.C:
		case <-over:
			return seen()
		case <-deadline:
			return false
		}
	}
}
