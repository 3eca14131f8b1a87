package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"
)

type doctorCmd struct {
	dirFlag
	Bundle string `help:"Check the client's half with this bundle." env:"PINSEAL_BUNDLE" placeholder:"FOLDER"`
	Topic  string `short:"t" help:"Also ask whether this client may command on this topic. Nothing is switched." placeholder:"TOPIC"`
	Host   string `arg:"" optional:"" help:"Check the client's half against this host."`
}

// Run checks in the order in which things depend on each other and ends at the first that is wrong.
func (c *doctorCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	x := &examination{out: std.out}
	// Whoever names the node's folder means the node, though PINSEAL_BUNDLE may be set.
	if c.Host == "" && (c.Bundle == "" || c.Dir != "") {
		return x.run(ctx, newNodeChecks(c.layout(), std.clock()).list())
	}
	settings, err := connectFlags{Bundle: c.Bundle, Host: c.Host}.client(std)
	if err != nil {
		return err
	}
	checks := newClientChecks(settings, c.Topic)
	return errors.Join(x.run(ctx, checks.list()), checks.close())
}

// check is one thing that can be right or wrong. It says what it found; an error is what is wrong, with
// the cure as its hint.
type check struct {
	name string
	run  func(context.Context) (found string, err error)
}

// notice is what is worth telling but does not stop anything: it is printed and the examination goes on.
type notice struct{ text string }

func (n *notice) Error() string { return n.text }

func noticef(format string, args ...any) error { return &notice{fmt.Sprintf(format, args...)} }

// expiryNotice is how long before its end a certificate is worth a word.
const expiryNotice = 21 * 24 * time.Hour

// validity tells until when a certificate is good.
func validity(path string, now time.Time) (string, error) {
	certificate, err := readCertificate(path)
	if err != nil {
		return "", err
	}
	end := certificate.NotAfter
	if end.Sub(now) < expiryNotice {
		return "", noticef("%s expires on %s", path, end.Format(time.DateOnly))
	}
	return fmt.Sprintf("%s, until %s", path, end.Format(time.DateOnly)), nil
}

// examination prints one line a check.
type examination struct{ out io.Writer }

func (x *examination) run(ctx context.Context, checks []check) error {
	for _, c := range checks {
		found, err := c.run(ctx)
		if n, ok := errors.AsType[*notice](err); ok {
			fmt.Fprintf(x.out, "note  %-14s %s\n", c.name, n.text)
			continue
		}
		if err != nil {
			fmt.Fprintf(x.out, "FAIL  %s\n", c.name)
			return err
		}
		fmt.Fprintf(x.out, "ok    %-14s %s\n", c.name, found)
	}
	_, err := fmt.Fprintln(x.out, "all is well")
	return err
}
