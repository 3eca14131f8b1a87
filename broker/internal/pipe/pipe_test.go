package pipe_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"pinseal/broker/internal/pipe"
)

// TestConn holds the pipe to what every net.Conn does, with more room and with less than is written.
func TestConn(t *testing.T) {
	for _, size := range []int{1, 7, 64 << 10} {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			a, b := pipe.New(size)
			return a, b, func() { _, _ = a.Close(), b.Close() }, nil
		})
	}
}

// TestBuffered: a write that fits does not wait for a reader, and is there after the writer has gone.
func TestBuffered(t *testing.T) {
	a, b := pipe.New(8)
	for range 3 { // around the end of the ring
		if n, err := a.Write([]byte("12345678")); n != 8 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(b, got); err != nil || string(got) != "12345" {
			t.Fatalf("read %q, %v", got, err)
		}
		if n, err := a.Write([]byte("9")); n != 1 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
		if _, err := io.ReadFull(b, got[:4]); err != nil || string(got[:4]) != "6789" {
			t.Fatalf("read %q, %v", got, err)
		}
	}
	_, _ = a.Write([]byte("last"))
	_ = a.Close()
	if rest, err := io.ReadAll(b); err != nil || !bytes.Equal(rest, []byte("last")) {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to a closed end: %v", err)
	}
}

// TestWriteDeadline: a reader that stalls costs the writer its deadline, and no more.
func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe.New(4)
		begin := time.Now()
		_ = a.SetWriteDeadline(begin.Add(time.Second))
		if n, err := a.Write([]byte("12345")); n != 4 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
		_ = b.Close()
		_ = a.SetWriteDeadline(time.Time{})
		if _, err := a.Write([]byte("5")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("writing to nobody: %v", err)
		}
		_ = a.Close()
	})
}
