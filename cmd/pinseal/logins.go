package main

import (
	"context"
	"fmt"
	"os"

	"pinseal/broker"
	"pinseal/broker/auth"
)

// logins lets clients in without a certificate.
type logins struct {
	passwords *auth.Passwords
}

// loginFiles is what logins are judged by; it is read anew by every reload.
type loginFiles struct {
	passwords *auth.PasswordFile
}

func (c *config) readLogins() (loginFiles, error) {
	files := loginFiles{passwords: &auth.PasswordFile{}}
	path := c.Auth.PasswordFile
	if path == "" {
		return files, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return files, withHint(fmt.Errorf("reading the password file: %w", err), "pinseal passwd -c %s NAME makes one", path)
	}
	files.passwords, err = auth.ParsePasswordFile(path, text)
	return files, withHint(err, "pinseal passwd writes it, mosquitto_passwd 2 too")
}

func (n *node) openLogins() error {
	files, err := n.config.readLogins()
	if err != nil {
		return err
	}
	n.logins = &logins{passwords: auth.NewPasswords(files.passwords)}
	return nil
}

func (l *logins) set(files loginFiles) { l.passwords.Set(files.passwords) }

// authenticate is the broker's question who a client is.
func (l *logins) authenticate(ctx context.Context, c broker.Credentials) (broker.Login, error) {
	still, err := l.passwords.Check(ctx, c.Address, c.Username, c.Password)
	return broker.Login{Identity: c.Username, Valid: still}, err
}
