package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// untilSignal gives a context that ends when a command is to: at Ctrl-C, at SIGTERM, when its terminal is closed unless nohup
// has it outlive that, and at further signals of its own.
func untilSignal(ctx context.Context, further ...os.Signal) (context.Context, context.CancelFunc) {
	if !signal.Ignored(syscall.SIGHUP) {
		further = append(further, syscall.SIGHUP)
	}
	release := func() {}
	if len(further) > 0 { // none would be all
		ctx, release = signal.NotifyContext(ctx, further...)
	}
	ctx, stop := untilTold(ctx)
	return ctx, func() { stop(); release() }
}

// sameSignal is how long a second signal may be meant as the first: timeout(1) sends it to the process and to its group.
const sameSignal = time.Second

// untilTold gives a context that ends at Ctrl-C and at SIGTERM. After that the default is back, so that another signal ends the
// process at once, whatever it waits for.
func untilTold(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })
	return ctx, stop
}
