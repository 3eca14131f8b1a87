package main

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// output is standard output. It remembers that something could not be written: most of what commands say there is not worth
// a check each, but a script that reads it must not take a part for the whole.
type output struct {
	io.Writer

	mu     sync.Mutex
	failed error // the first time
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.failed == nil {
			o.failed = err
		}
	}
	return n, err
}

func (o *output) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// terminal gives the terminal that a standard stream is, if it is one.
func terminal(stream any) (*os.File, bool) {
	if o, ok := stream.(*output); ok {
		stream = o.Writer
	}
	file, ok := stream.(*os.File)
	return file, ok && term.IsTerminal(int(file.Fd()))
}
