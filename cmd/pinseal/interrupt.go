package main

import (
	"context"
	"io"
	"os"
	"sync"
)

// interruptible reads from r until ctx ends; a read that waits for more then returns ctx.Err(). Standard input cannot be
// told to stop: once something was asked of it, what reads from it here goes on until the process ends. Before that it is
// left alone, because it may belong to others, as in "while read word; do pinseal pub ledStatus $word; done".
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	read, write := io.Pipe()
	context.AfterFunc(ctx, func() { _ = write.CloseWithError(ctx.Err()) }) // never fails
	return &lazyReader{Reader: read, begin: sync.OnceFunc(func() {
		go func() {
			_, err := io.Copy(write, r)
			_ = write.CloseWithError(err) // never fails
		}()
	})}
}

// lazyReader begins when it is first read from.
type lazyReader struct {
	io.Reader
	begin func()
}

func (l *lazyReader) Read(p []byte) (int, error) {
	l.begin()
	return l.Reader.Read(p)
}

// lateFile is opened when it is first read from: to open a named pipe is to wait for whoever writes into it.
type lateFile struct {
	path string
	file *os.File
}

func (l *lateFile) Read(p []byte) (n int, err error) {
	if l.file == nil {
		if l.file, err = os.Open(l.path); err != nil {
			return 0, err
		}
	}
	return l.file.Read(p)
}
