package main

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// Of nodes that start at the same time one has the control socket, and can be reached through it: what is revoked is told there.
func TestControlSocketIsOnes(t *testing.T) {
	t.Parallel()
	l := layoutUnder(t.TempDir())
	for range 3 {
		var opened atomic.Pointer[controlServer]
		var starts sync.WaitGroup
		for range 3 {
			starts.Go(func() {
				server, err := listenControl(l.control(), func(context.Context, []string, func(string)) error { return nil })
				if err == nil && !opened.CompareAndSwap(nil, server) {
					t.Error("two have it")
				}
			})
		}
		starts.Wait()
		server := opened.Load()
		if server == nil || !isRunning(l) {
			t.Fatal("nobody can be reached at ", filepath.Base(l.control()))
		}
		if err := server.listener.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
