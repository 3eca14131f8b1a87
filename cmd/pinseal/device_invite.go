package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"pinseal/pki"
	"pinseal/pki/enrol"

	"golang.org/x/term"
	"rsc.io/qr"
)

// invite has the running node expect the device, and prints the line that it joins with.
func (c *deviceAddCmd) invite(std streams, l layout, cfg *config) error {
	invitation, err := c.invitation(l, cfg)
	if err != nil {
		return err
	}
	// [enrol] may be new: then the service needs the authority's key from now on.
	if err := c.share(); err != nil {
		return err
	}
	err = askNode(l.control(), "code", c.Name, enrol.HashCode(invitation.Code))
	if errors.Is(err, errNotRunning) {
		return withHint(err, "a device joins a node that runs: systemctl start pinseal, or %s", c.command("run"))
	}
	if err != nil {
		return withHint(fmt.Errorf("the node: %w", err), "restart it, systemctl restart pinseal or %s, and try again", c.command("run"))
	}
	if err := c.admitBack(l, cfg, std.clock()()); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(std.out, invitation); err != nil { // nobody has it
		return err
	}
	if drawQR(std.out, invitation.String()) {
		fmt.Fprintf(std.out, "on %s, within %s: pinseal device join LINE\n", c.Name, time.Duration(cfg.Enrol.CodeLifetime))
	}
	return nil
}

func (c *deviceAddCmd) invitation(l layout, cfg *config) (enrol.Invitation, error) {
	host, port, err := c.enrolAddress(l, cfg)
	if err != nil {
		return enrol.Invitation{}, err
	}
	authority, err := readCertificate(l.caCert())
	if err != nil {
		return enrol.Invitation{}, err
	}
	return enrol.Invitation{Host: host, Port: port, Name: c.Name, Code: enrol.NewCode(), Fingerprint: pki.Fingerprint(authority)}, nil
}

// admitBack takes back a revocation of the name, and gives it its rights.
func (c *deviceAddCmd) admitBack(l layout, cfg *config, now time.Time) error {
	if err := errors.Join(denyFormer(l, c.Name, now), admit(l, c.Name)); err != nil {
		return err
	}
	if err := c.permit(l, cfg); err != nil {
		return err
	}
	what := "deny" // reads the list of the denied only
	if len(c.Output) > 0 {
		what = "reload"
	}
	if err := askNode(l.control(), what); err != nil {
		return withHint(fmt.Errorf("the running node refused what was written: %w", err), "mend that, then: systemctl reload pinseal")
	}
	return nil
}

// drawQR draws a text for a camera if out is a terminal that is wide enough, and reports whether it is one.
func drawQR(out io.Writer, text string) bool {
	file, ok := terminal(out)
	if !ok {
		return false
	}
	columns, _, sizeErr := term.GetSize(int(file.Fd()))
	code, err := qr.Encode(text, qr.L) // a line fits
	if err == nil && (sizeErr != nil || columns == 0 || code.Size+2*quiet <= columns) {
		fmt.Fprint(out, halfBlocks(code.Size, code.Black))
	}
	return true
}

const quiet = 4 // modules around a code, ISO/IEC 18004 section 6.3.8

// halfBlocks draws two rows of modules in one of text, light on whatever the terminal has: colours are given for both.
func halfBlocks(size int, black func(x, y int) bool) string {
	var text strings.Builder
	for y := -quiet; y < size+quiet; y += 2 {
		text.WriteString("\x1b[30;47m")
		for x := -quiet; x < size+quiet; x++ {
			switch upper, lower := black(x, y), black(x, y+1); {
			case upper && lower:
				text.WriteRune('█')
			case upper:
				text.WriteRune('▀')
			case lower:
				text.WriteRune('▄')
			default:
				text.WriteRune(' ')
			}
		}
		text.WriteString("\x1b[0m\n")
	}
	return text.String()
}
