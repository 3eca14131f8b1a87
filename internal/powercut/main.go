// Command powercut cuts the power at every moment of the lives of the files
// that a node and a sender rely on: the replay state, the sequence file, the
// clock's floor, the states of outputs, the broker's sessions and retained
// messages, the outbox, and whatever else is written atomically. It prints a
// line for each of them and one for all, with how much was tried and what came
// of it, and exits with 1 if there was any failure.
//
// A life is a process that opens such a file, uses it and says what it has
// done. Its writes, renames and syncs are recorded as the kernel gets them, in
// order. For every moment of the record the command makes the images that a
// disk may then hold: what had been synced is there, and of the rest any part,
// in any order, written sectors whole or not at all. On each image the file is
// opened again and must keep what was promised: nothing that was acted on is
// new, no number is used again, no message that was acknowledged is gone or out
// of its order, no content is mixed or gone. Then it must go on
// working.
//
// In further lives each call that writes or syncs fails once, for want of room,
// with an error of the disk, or half way, and the life goes on without a
// restart; then the power is cut. What a failed sync spoke for counts as lost,
// though later syncs succeed: Linux takes it for written (fsync(2), under EIO).
//
// Lives also begin with such images, and where a process was killed, so that
// what it had not synced is still in the kernel's memory when the power goes.
//
//	go run ./internal/powercut
//
// Simplified: folders are there from the start, and modes are not looked at.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "powercut:", err)
		os.Exit(1) //nolint:forbidigo // this is the main of a program
	}
}

// run is the child where it is told so, or else the whole enumeration.
func run(ctx context.Context, out io.Writer) (err error) {
	if os.Getenv(lifeVariable) != "" {
		return child(append(lives(), troubledLives()...))
	}
	folder, err := memoryFolder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	var all report
	for _, l := range append(lives(), troubledLives()...) {
		j := newJudge(fullForm(), folder)
		judge := j.judgeLife
		if l.troubled {
			j.form, judge = troubledForm(), j.judgeFaults
		}
		if err := judge(ctx, l); err != nil {
			return err
		}
		for _, line := range append(j.report.refused, j.report.wrong...) {
			fmt.Fprintln(out, line)
		}
		fmt.Fprintf(out, "powercut: %s: %s\n", l.name, j.report.String())
		all.add(j.report)
	}
	fmt.Fprintln(out, "powercut:", all.String())
	if len(all.refused)+len(all.wrong) > 0 {
		return errors.New("a power cut does harm")
	}
	return nil
}

// memoryFolder makes a folder, in memory where there is one: not the disk below
// is on trial, but what was asked of it.
func memoryFolder() (string, error) {
	folder, err := os.MkdirTemp("/dev/shm", "pinseal-powercut-*")
	if err != nil {
		return os.MkdirTemp("", "pinseal-powercut-*")
	}
	return folder, nil
}
