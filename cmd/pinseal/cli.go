package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Exit codes of every subcommand.
const (
	exitDone     = 0
	exitFailed   = 1 // failed, or rejected by the node
	exitUsage    = 2
	exitNoAnswer = 3 // no answer in time

	exitInterrupted = 130 // Ctrl-C before it was done, as shells have it
)

// streams are the standard streams a command talks to, and its clock; tests give others.
type streams struct {
	in       io.Reader
	out, err io.Writer
	now      func() time.Time // nil is the machine's clock
}

func (s streams) clock() func() time.Time {
	if s.now == nil {
		return time.Now
	}
	return s.now
}

// cli is the whole command line; its tags are the single source of help and completion.
type cli struct {
	Help helpFlag `help:"Show what a command does and its flags."`

	Demo   demoCmd   `cmd:"" group:"Start here:" help:"Show the whole thing on this machine, with throw-away keys."`
	Init   initCmd   `cmd:"" group:"Start here:" help:"Make a node: authority, certificates, keys, first operator, configuration."`
	Run    runCmd    `cmd:"" group:"Start here:" help:"Run the node: broker and agent in one process."`
	Doctor doctorCmd `cmd:"" group:"Start here:" help:"Name the first thing that is wrong, and the cure."`

	Pub   pubCmd   `cmd:"" group:"Messages:" help:"Publish a sealed message and wait for the node's verdict."`
	Sub   subCmd   `cmd:"" group:"Messages:" help:"Subscribe; sealed messages are shown verified, with the signer's name."`
	Watch watchCmd `cmd:"" group:"Messages:" help:"Show outputs, inputs, telemetry and verdicts as they change; q ends it."`
	Seal  sealCmd  `cmd:"" group:"Messages:" help:"Print one sealed message."`
	Open  openCmd  `cmd:"" group:"Messages:" help:"Verify one sealed message from standard input and print what it says."`
	Trace traceCmd `cmd:"" group:"Messages:" help:"Follow one message through every step of the way in, and tell where it ended and why."`

	Signer    signerCmd    `cmd:"" group:"Who may do what:" help:"The public keys the node trusts."`
	Device    deviceCmd    `cmd:"" group:"Who may do what:" help:"The machines that may connect."`
	Policy    policyCmd    `cmd:"" group:"Who may do what:" help:"Who may do what at the broker."`
	Passwd    passwdCmd    `cmd:"" group:"Who may do what:" help:"Set or delete a password, as mosquitto_passwd does."`
	Recipient recipientCmd `cmd:"" group:"Who may do what:" help:"The keys that messages are encrypted to and opened with."`

	Ca      caCmd      `cmd:"" group:"The authority:" name:"ca" help:"The authority that certifies the node and its devices."`
	Journal journalCmd `cmd:"" group:"The authority:" help:"What the node's authority issued."`

	Gpio       gpioCmd       `cmd:"" group:"This machine:" help:"Look at and try GPIO lines."`
	Import     importCmd     `cmd:"" group:"This machine:" help:"Make a configuration of mosquitto.conf."`
	Install    installCmd    `cmd:"" group:"This machine:" help:"Make the node a service of this machine, or of an image."`
	Flash      flashCmd      `cmd:"" group:"This machine:" help:"Prepare a Raspberry Pi OS card, so that the Pi comes up as a node on first boot."`
	Completion completionCmd `cmd:"" group:"This machine:" help:"Print the completion script of a shell."`
	Version    versionCmd    `cmd:"" group:"This machine:" help:"Print the version."`

	Complete completeCmd `cmd:"" hidden:"" help:"Print what a word of the command line could become."`
	Man      manCmd      `cmd:"" hidden:"" help:"Write the manual's pages."`
}

// helpFlag is --help without -h, which is the host here as it is in mosquitto_pub.
type helpFlag bool

// BeforeReset prints the help and ends, before required arguments are asked for.
func (helpFlag) BeforeReset(k *kong.Kong, ctx *kong.Context) error {
	err := ctx.PrintUsage(false)
	k.Exit(exitDone) // run tells what could not be written
	return err
}

// exitStatus carries an exit code out of kong, which believes that it ends the process.
type exitStatus int

// run is the program without the process: it parses args, runs the command and gives its exit code.
func run(ctx context.Context, args []string, std streams) (code int) {
	out := &output{Writer: std.out}
	std.out = out
	defer func() {
		if r := recover(); r != nil {
			status, ok := r.(exitStatus)
			if !ok {
				panic(r)
			}
			code = int(status)
		}
		if code == exitDone {
			code = report(std.err, out.err())
		}
	}()
	parser, err := kong.New(&cli{}, append([]kong.Option{
		kong.Name("pinseal"),
		kong.Description("Acts on MQTT messages only when they are genuine."),
		kong.NoDefaultHelp(),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { panic(exitStatus(code)) }),
		kong.ValueFormatter(valueHelp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
	}, parameterTypes()...)...)
	if err != nil {
		return report(std.err, err)
	}
	parsed, err := parser.Parse(customary(args))
	if err != nil {
		return report(std.err, parseError(err))
	}
	return report(std.err, usageHint(parsed.Run(), parsed.Selected()))
}

// customary takes the words that people try first for those that it has.
func customary(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"--help"}
	case args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case len(args) == 1 && args[0] == "-h":
		return []string{"--help"}
	case len(args) == 1 && args[0] == "--version":
		return []string{"version"}
	}
	return args
}

// report prints err as one line and, where there is a likely cure, a hint; it gives the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	problem := oneLine(strings.ReplaceAll(err.Error(), "\n", "; ")) // of several
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(w, "pinseal: %s\n", strings.ReplaceAll(problem, context.Canceled.Error(), "interrupted"))
		return exitInterrupted
	}
	fmt.Fprintf(w, "pinseal: %s\n", problem)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
	if coded, ok := errors.AsType[*codeError](err); ok {
		return coded.code
	}
	return exitFailed
}

// hintOf is the likely cure of err. Whoever lacks the right to a file is helped by nothing else first.
func hintOf(err error) string {
	hint := ""
	if hinted, ok := errors.AsType[*hintError](err); ok {
		hint = hinted.hint
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 && !strings.Contains(hint, "sudo") {
		return "run it with sudo, or as the user whose files these are"
	}
	return hint
}

// hintError is an error with what to do about it.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// codeError is an error with an exit code of its own.
type codeError struct {
	error
	code int
}

func (e *codeError) Unwrap() error { return e.error }

func withCode(code int, err error) error { return &codeError{err, code} }

// usageError is a mistake on the command line. Without a hint of its own it gets one that says how the command is called.
func usageError(err error) error { return withCode(exitUsage, err) }

func usagef(format string, args ...any) error { return usageError(fmt.Errorf(format, args...)) }
