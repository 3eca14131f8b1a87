package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
)

// webOrigin is where a web page comes from, as browsers write it (RFC 6454): SCHEME://HOST[:PORT]; or "*".
type webOrigin string

func (o webOrigin) check() error {
	u, err := url.Parse(string(o))
	if o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != string(o)) {
		return fmt.Errorf(`%q is not an origin, such as "https://example.org:8080", nor "*"`, o)
	}
	return nil
}

// socketMode lets the owner and the group of the node's process connect to a Unix socket.
const socketMode = 0o660

// listen binds the listener's address.
func (l listenerConfig) listen() (net.Listener, error) {
	path := string(l.Address)
	if !l.Address.unix() {
		return net.Listen("tcp", path) //nolint:noctx // binding does not block
	}
	if conn, err := net.Dial("unix", path); err == nil { //nolint:noctx // a local socket answers at once
		_ = conn.Close() // nothing was said on it
		return nil, errors.New("another program listens there")
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil { // of a process that was killed
			return nil, err
		}
	}
	socket, err := net.Listen("unix", path) //nolint:noctx // binding does not block
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return socket, nil
}

// scheme is how a URL of the listener begins.
func (l listenerConfig) scheme() string {
	switch {
	case l.Address.unix():
		return "unix:"
	case l.WebSocket && l.tls():
		return "wss://"
	case l.WebSocket:
		return "ws://"
	case l.tls():
		return "mqtts://"
	}
	return "mqtt://"
}
