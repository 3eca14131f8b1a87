// Package pipe is a network connection within the process.
//
// Unlike net.Pipe's, its writes do not wait for a reader as long as there is room, and a deadline costs
// nothing while nobody waits: both matter on the way from the broker to the agent, which every command takes.
package pipe

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// New makes a connection with room for size bytes each way, at least 1. Both ends are safe for
// concurrent use.
func New(size int) (net.Conn, net.Conn) {
	there, back := newStream(size), newStream(size)
	return &end{in: back, out: there}, &end{in: there, out: back}
}

// end is one end. What was written before it is closed can still be read at the other.
type end struct{ in, out *stream }

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

func (e *end) Close() error {
	e.in.abandon()
	e.out.finish()
	return nil
}

func (e *end) LocalAddr() net.Addr  { return address{} }
func (e *end) RemoteAddr() net.Addr { return address{} }

func (e *end) SetDeadline(t time.Time) error {
	e.in.setReadDeadline(t)
	e.out.setWriteDeadline(t)
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.setReadDeadline(t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.setWriteDeadline(t)
	return nil
}

type address struct{}

func (address) Network() string { return "pipe" }
func (address) String() string  { return "pipe" }

// stream is one direction: a ring of bytes.
type stream struct {
	mu          sync.Mutex
	ring        []byte
	start, used int
	finished    bool // the writer has closed
	abandoned   bool // the reader has closed
	readers     waiters
	writers     waiters
}

func newStream(size int) *stream {
	s := &stream{ring: make([]byte, max(size, 1))}
	s.readers.cond.L, s.writers.cond.L = &s.mu, &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.abandoned:
			return 0, net.ErrClosed
		case s.readers.late():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case s.used > 0:
			n := s.take(p)
			s.writers.cond.Broadcast()
			return n, nil
		case s.finished:
			return 0, io.EOF
		}
		s.readers.wait()
	}
}

func (s *stream) take(p []byte) int {
	n := copy(p, s.ring[s.start:min(s.start+s.used, len(s.ring))])
	n += copy(p[n:], s.ring[:s.used-n][:max(0, s.start+s.used-len(s.ring))])
	s.start, s.used = (s.start+n)%len(s.ring), s.used-n
	return n
}

func (s *stream) write(p []byte) (written int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.finished:
			return written, net.ErrClosed
		case s.abandoned:
			return written, io.ErrClosedPipe
		case s.writers.late():
			return written, os.ErrDeadlineExceeded
		case written == len(p):
			return written, nil
		case s.used < len(s.ring):
			written += s.put(p[written:])
			s.readers.cond.Broadcast()
			continue
		}
		s.writers.wait()
	}
}

func (s *stream) put(p []byte) int {
	p = p[:min(len(p), len(s.ring)-s.used)]
	n := copy(s.ring[(s.start+s.used)%len(s.ring):], p)
	copy(s.ring, p[n:])
	s.used += len(p)
	return len(p)
}

// finish ends the stream behind what is in it.
func (s *stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	s.wakeAll()
}

// abandon ends the stream for both sides at once.
func (s *stream) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandoned = true
	s.wakeAll()
}

func (s *stream) wakeAll() {
	s.readers.cond.Broadcast()
	s.writers.cond.Broadcast()
}

func (s *stream) setReadDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers.setDeadline(t)
}

func (s *stream) setWriteDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers.setDeadline(t)
}

// waiters are those who read, or those who write, and their deadline. The stream's mutex guards it.
type waiters struct {
	cond     sync.Cond
	deadline time.Time // zero: none
}

func (w *waiters) late() bool { return !w.deadline.IsZero() && !time.Now().Before(w.deadline) }

// setDeadline wakes those who wait, so that they wait for the new one.
func (w *waiters) setDeadline(t time.Time) {
	w.deadline = t
	w.cond.Broadcast()
}

// wait waits for a change or the deadline. Only here a deadline needs a timer.
func (w *waiters) wait() {
	if !w.deadline.IsZero() {
		timer := time.AfterFunc(time.Until(w.deadline), w.wake)
		defer timer.Stop()
	}
	w.cond.Wait()
}

// wake takes the lock, so that it cannot come between a waiter's look at the clock and its wait.
func (w *waiters) wake() {
	w.cond.L.Lock()
	defer w.cond.L.Unlock()
	w.cond.Broadcast()
}
