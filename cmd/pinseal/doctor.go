package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

type doctorCmd struct {
	dirFlag
	Bundle string `help:"Check the client's half with this bundle." env:"PINSEAL_BUNDLE" placeholder:"FOLDER"`
	JSON   bool   `name:"json" help:"For scripts: an array with an object for each check."`
	Topic  string `short:"t" help:"Also ask whether this client may command on this topic. Nothing is switched." placeholder:"TOPIC"`
	Host   string `arg:"" optional:"" help:"Check the client's half against this host."`
}

// Run checks in the order in which things depend on each other and ends at the first that is wrong.
func (c *doctorCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	x := &examination{out: std.out, json: c.JSON}
	// Whoever names the node's folder means the node, though PINSEAL_BUNDLE may be set.
	if c.Host == "" && (c.Bundle == "" || c.Dir != "") {
		return x.run(ctx, newNodeChecks(c.dirFlag, std.clock()).list())
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

// validity tells until when a certificate is good, and what to do if that is soon.
func validity(path string, now time.Time, cure string) (string, error) {
	certificate, err := readCertificate(path)
	if err != nil {
		return "", err
	}
	end := certificate.NotAfter
	if end.Sub(now) < expiryNotice {
		return "", noticef("%s expires on %s: %s", path, end.Format(time.DateOnly), cure)
	}
	return fmt.Sprintf("%s, until %s", path, end.Format(time.DateOnly)), nil
}

// examination prints one line a check, or in the end an object for each.
type examination struct {
	out   io.Writer
	json  bool
	found []finding
}

// finding is what a check came to.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, note or fail
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

func (x *examination) run(ctx context.Context, checks []check) error {
	failed := x.examine(ctx, checks)
	if x.json {
		return errors.Join(failed, writeJSON(x.out, x.found))
	}
	if failed != nil {
		return failed
	}
	_, err := fmt.Fprintln(x.out, "all is well")
	return err
}

// examine ends at the first check that fails.
func (x *examination) examine(ctx context.Context, checks []check) error {
	for _, c := range checks {
		found, err := c.run(ctx)
		if n, ok := errors.AsType[*notice](err); ok {
			x.tell(finding{Check: c.name, Result: "note", Detail: n.text})
			continue
		}
		if err != nil {
			x.tell(finding{Check: c.name, Result: "fail", Detail: err.Error(), Hint: hintOf(err)})
			return err
		}
		x.tell(finding{Check: c.name, Result: "ok", Detail: found})
	}
	return nil
}

func (x *examination) tell(f finding) {
	switch {
	case x.json:
		x.found = append(x.found, f)
	case f.Result == "fail": // what is wrong follows on standard error
		fmt.Fprintf(x.out, "FAIL  %s\n", f.Check)
	default:
		fmt.Fprintf(x.out, "%-4s  %-14s %s\n", f.Result, f.Check, f.Detail)
	}
}
