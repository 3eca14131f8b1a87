package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"pinseal/broker"
	"pinseal/broker/auth"
	"pinseal/broker/token"
)

// logins lets clients in without a certificate.
type logins struct {
	passwords *auth.Passwords
	tokens    *token.Verifier
}

// loginFiles is what logins are judged by; it is read anew by every reload.
type loginFiles struct {
	passwords *auth.PasswordFile
	tokens    *token.Config
}

func (c *config) readLogins() (files loginFiles, err error) {
	if files.passwords, err = c.readPasswords(); err != nil {
		return files, err
	}
	files.tokens, err = c.Auth.Token.read()
	return files, err
}

func (c *config) readPasswords() (*auth.PasswordFile, error) {
	path := c.Auth.PasswordFile
	if path == "" {
		return &auth.PasswordFile{}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the password file: %w", err), "pinseal passwd -c %s NAME makes one", path)
	}
	file, err := auth.ParsePasswordFile(path, text)
	return file, withHint(err, "pinseal passwd writes it, mosquitto_passwd 2 too")
}

func (n *node) openLogins() error {
	files, err := n.config.readLogins()
	if err != nil {
		return err
	}
	n.logins = &logins{
		passwords: auth.NewPasswords(files.passwords),
		tokens: token.New(token.Options{
			Now:     func() (time.Time, bool) { return n.clock.FloorNow(), n.clock.Trusted() },
			Changed: func() { n.broker.RecheckLogins() },
			Log:     n.log.With("part", "tokens"),
		}),
	}
	n.logins.tokens.Set(files.tokens)
	return nil
}

func (l *logins) set(files loginFiles) {
	l.passwords.Set(files.passwords)
	l.tokens.Set(files.tokens)
}

// authenticate is the broker's question who a client is. What looks like a token is one: nothing is tried as both.
func (l *logins) authenticate(ctx context.Context, c broker.Credentials) (broker.Login, error) {
	if !token.Plausible(c.Password) {
		still, err := l.passwords.Check(ctx, c.Address, c.Username, c.Password)
		return broker.Login{Identity: c.Username, Valid: still}, err
	}
	grant, err := l.tokens.Check(ctx, c.Username, string(c.Password))
	if err != nil {
		return broker.Login{}, err
	}
	login := broker.Login{Identity: grant.Identity, Expires: grant.Expires, Valid: grant.Valid}
	if grant.Watched() {
		login.Watch = grant.Watch
	}
	return login, nil
}
