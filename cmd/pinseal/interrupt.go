package main

import (
	"context"
	"io"
)

// interruptible reads from r until ctx ends; a read that waits for more then returns ctx.Err(). Standard input cannot be
// told to stop: what reads from it here goes on until the process ends.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	read, write := io.Pipe()
	context.AfterFunc(ctx, func() { _ = write.CloseWithError(ctx.Err()) }) // never fails
	go func() {
		_, err := io.Copy(write, r)
		_ = write.CloseWithError(err) // never fails
	}()
	return read
}
