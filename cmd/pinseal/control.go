package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The control socket is how the command line on the node's own machine speaks to the running node:
// one line of words in; lines out that begin with "> ", if there is something to tell; then "ok" or "error: …". Its folder's permissions say who may.

const controlTimeout = 10 * time.Second

// errNotRunning says that no node listens on the control socket.
var errNotRunning = errors.New("the node is not running")

// controlServer answers requests with a handler.
type controlServer struct {
	listener net.Listener
	handle   controlHandler
}

// controlHandler gets the words of a request, and a way to tell lines before the answer. Its context ends when the asker has gone.
type controlHandler func(ctx context.Context, words []string, tell func(line string)) error

func listenControl(path string, handle controlHandler) (*controlServer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, withHint(fmt.Errorf("making the folder of the control socket: %w", err), "run as root or as the user pinseal, or use --dir DIR")
	}
	var server *controlServer
	err := alone(filepath.Dir(path), func() (err error) { // of two that start at the same time one would remove the other's
		server, err = bindControl(path, handle)
		return err
	})
	return server, err
}

func bindControl(path string, handle controlHandler) (*controlServer, error) {
	if controlLives(path) {
		return nil, withHint(fmt.Errorf("a node is already running on %s", path), "stop it first: systemctl stop pinseal, or Ctrl-C in its terminal")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing a stale control socket: %w", err)
	}
	var listener *net.UnixListener
	err := throughFolder(path, func(short string) (err error) {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the short name is another folder's by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protecting the control socket: %w", err), listener.Close())
	}
	return &controlServer{listener, handle}, nil
}

// controlLives says whether somebody listens. Of a node that was killed while it started a command, that command keeps
// the socket until its program runs: a moment.
func controlLives(path string) bool {
	const looks, apart = 5, 40 * time.Millisecond
	for look := range looks {
		conn, err := dialControl(path)
		if err != nil {
			return false
		}
		_ = conn.Close()
		if look < looks-1 {
			time.Sleep(apart)
		}
	}
	return true
}

// Run answers until the context ends.
func (s *controlServer) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting on the control socket: %w", err)
		}
		open.Go(func() { s.answer(ctx, conn) })
	}
}

func (s *controlServer) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close() //nolint:errcheck // the answer is out or lost by then
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	ctx, gone := context.WithCancel(ctx)
	defer gone()
	_ = conn.SetReadDeadline(time.Time{})
	go func() { // nothing more is said: what ends this read is the asker's end, or ours
		_, _ = conn.Read(make([]byte, 1))
		gone()
	}()
	// The asker may have gone; the work is done all the same.
	tell := func(line string) {
		_ = conn.SetWriteDeadline(time.Now().Add(controlTimeout))
		_, _ = fmt.Fprintln(conn, oneLine(line)) // strangers' words are in it, and a line begins with ours
	}
	reply := "ok"
	if err := s.handle(ctx, strings.Fields(line), func(line string) { tell("> " + line) }); err != nil {
		reply = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	tell(reply)
}

// askNode has the running node do something; errNotRunning if there is none.
func askNode(path string, words ...string) error {
	return askNodeLines(context.Background(), path, 0, func(string) {}, words...)
}

// askNodeLines is askNode for what takes a while, and tells about it line by line.
func askNodeLines(ctx context.Context, path string, while time.Duration, each func(line string), words ...string) error {
	conn, err := dialControl(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errNotRunning
	}
	if err != nil {
		if dial, ok := errors.AsType[*net.OpError](err); ok {
			err = dial.Err // without the short name
		}
		return fmt.Errorf("reaching the running node: %s: %w", path, err)
	}
	defer conn.Close() //nolint:errcheck // the answer has been read by then
	_ = conn.SetDeadline(time.Now().Add(controlTimeout + while))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintln(conn, strings.Join(words, " ")); err != nil {
		return fmt.Errorf("asking the running node: %w", err)
	}
	answers := bufio.NewReader(conn)
	reply := ""
	for {
		if reply, err = answers.ReadString('\n'); err != nil {
			return fmt.Errorf("reading the node's answer: %w", err)
		}
		told, more := strings.CutPrefix(strings.TrimSuffix(reply, "\n"), "> ")
		if !more {
			break
		}
		each(told)
	}
	if reason, failed := strings.CutPrefix(strings.TrimSpace(reply), "error: "); failed {
		return errors.New(reason)
	}
	return nil
}

func dialControl(path string) (conn net.Conn, err error) {
	err = throughFolder(path, func(short string) (err error) {
		conn, err = net.DialTimeout("unix", short, controlTimeout) //nolint:noctx // a local socket with a timeout
		return err
	})
	return conn, err
}

// isRunning reports whether the node runs.
func isRunning(l layout) bool {
	conn, err := dialControl(l.control())
	return err == nil && conn.Close() == nil
}

// throughFolder lets use see path under a short name: a Unix socket's is at most 108 bytes (unix(7)),
// and folders for trying out can be deep.
func throughFolder(path string, use func(short string) error) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close() //nolint:errcheck // opened for its name only
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)))
}
