package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"pinseal/broker/auth"
	"pinseal/internal/atomicfile"
	"pinseal/pki"

	"golang.org/x/term"
)

// passwdCmd has the flags of mosquitto_passwd.
type passwdCmd struct {
	Create   bool   `short:"c" help:"Make a new password file; one that is there is overwritten." xor:"what"`
	Delete   bool   `short:"D" help:"Delete the user." xor:"what"`
	Batch    bool   `short:"b" help:"Take the password from the command line, where other users of this machine can see it."`
	File     string `arg:"" help:"Password file." type:"path"`
	Name     string `arg:"" help:"User name."`
	Password string `arg:"" optional:"" help:"Password, with -b."`
}

// Run sets or deletes one user's password.
func (c *passwdCmd) Run(std streams) error {
	switch {
	case !pki.ValidName(c.Name):
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.Name)
	case c.Batch && c.Delete:
		return usagef("-b gives a password, and -D needs none")
	case c.Batch != (c.Password != ""):
		return usagef("a password on the command line goes with -b, and -b needs one")
	}
	if _, err := c.read(); err != nil { // before a password is asked for
		return err
	}
	var hash string
	if !c.Delete {
		password, err := c.Password, error(nil)
		if !c.Batch {
			password, err = readPassword(std)
		}
		if err != nil {
			return err
		}
		hash = auth.NewHash([]byte(password))
	}
	return alone(filepath.Dir(c.File), func() error { return c.set(hash) })
}

// set gives the user a password by its hash, or deletes the user.
func (c *passwdCmd) set(hash string) error {
	text, err := c.read()
	if err != nil {
		return err
	}
	if !c.Delete {
		return c.write(auth.SetPassword(text, c.Name, hash))
	}
	without, found := auth.RemoveUser(text, c.Name)
	if !found {
		return fmt.Errorf("%s has no user %s", c.File, c.Name)
	}
	return c.write(without)
}

func (c *passwdCmd) read() ([]byte, error) {
	if c.Create {
		return nil, nil
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the password file: %w", err), "-c makes a new one")
	}
	_, err = auth.ParsePasswordFile(c.File, text)
	return text, err
}

// write keeps the owner and the permissions of a file that is there: the node may not run as who changes it.
func (c *passwdCmd) write(text []byte) error {
	err := rewrite(c.File, text)
	if errors.Is(err, fs.ErrNotExist) {
		return atomicfile.Write(c.File, text, 0o600)
	}
	return err
}

const maxPasswordBytes = 65535 // MQTT 5.0 section 3.1.3.6

// readPassword asks twice on a terminal, without echo; elsewhere it takes one line.
func readPassword(std streams) (string, error) {
	terminal, ok := terminal(std.in)
	if !ok {
		line, err := bufio.NewReader(io.LimitReader(std.in, maxPasswordBytes+2)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return checkPassword(strings.TrimRight(line, "\r\n"))
	}
	var typed [2]string
	for i, prompt := range []string{"Password: ", "Reenter password: "} {
		fmt.Fprint(std.err, prompt)
		text, err := readUnseen(terminal)
		fmt.Fprintln(std.err)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		typed[i] = string(text)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the passwords do not match")
	}
	return checkPassword(typed[0])
}

// readUnseen reads a line from a terminal that does not show it. Ctrl-C, and Ctrl-\ too, leave a terminal that shows again what
// is typed.
func readUnseen(terminal *os.File) ([]byte, error) {
	before, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		return nil, err
	}
	ctx, stop := untilSignal(context.Background(), syscall.SIGQUIT)
	defer stop()
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() { // until the process ends, if nothing is typed
		text, err := term.ReadPassword(int(terminal.Fd()))
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(int(terminal.Fd()), before))
	}
}

func checkPassword(password string) (string, error) {
	if password == "" {
		return "", errors.New("no password or passphrase was given")
	}
	if len(password) > maxPasswordBytes {
		return "", fmt.Errorf("a password has 1 to %d bytes", maxPasswordBytes)
	}
	return password, nil
}
