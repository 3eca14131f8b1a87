package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pinseal/agent/outbox"
)

const (
	puts     = 2 // between two stops of the outbox
	answered = 1 // of what waits then
)

func openOutbox(folder string) (*outbox.Box, error) {
	// Everything is written on Close alone, so that every run is the same.
	return outbox.Open(filepath.Join(folder, "outbox.db"), outbox.Options{FlushEvery: time.Hour, Rate: 1e6})
}

// telemetryMessage has three parts, as a sealed message has. The outbox does not look at what they say.
func telemetryMessage(n uint64) outbox.Message {
	part := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%040d", n))
	return outbox.Message{Topic: "t", Number: n, Sealed: []byte(part + "." + part + "." + part)}
}

// liveOutbox is an outbox that is opened some times, gets messages, and answers to the oldest of them. A message's number
// is the time at which it was put, so that later ones are higher, over all lives.
func liveOutbox(folder string, tell func(string, ...any)) error {
	if err := tellBoot(tell); err != nil {
		return err
	}
	for range 2 {
		if err := fillOutbox(folder, tell); err != nil {
			return err
		}
	}
	return nil
}

func tellBoot(tell func(string, ...any)) error {
	boot, err := os.ReadFile(bootIDPath)
	tell("boot %s", strings.TrimSpace(string(boot)))
	return err
}

// fillOutbox opens the outbox, uses it and closes it. A Close that fails says that something is lost.
func fillOutbox(folder string, tell func(string, ...any)) error {
	b, err := openOutbox(folder)
	if err != nil {
		return err
	}
	for range puts {
		n := uint64(time.Now().UnixNano())
		tell("putting %d", n)
		if err := b.Put(telemetryMessage(n)); err != nil {
			return err
		}
		tell("put %d", n)
	}
	err = receiveOutbox(b, func(n uint64, count int) bool {
		if count <= answered {
			tell("answering %d", n)
		}
		return count <= answered
	})
	if err = errors.Join(err, b.Close()); err != nil {
		tell("failed")
		return err
	}
	tell("closed")
	return nil
}

// receiveOutbox is a receiver who gets everything that waits, in its order, and answers to it where accept says so.
func receiveOutbox(b *outbox.Box, accept func(n uint64, count int) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), clientPatience)
	defer cancel()
	most, count := b.Stats().Waiting, 0
	if most == 0 {
		return nil
	}
	b.Run(ctx, func(m outbox.Message, done func(error)) {
		done(nil)
		if count++; accept(m.Number, count) {
			b.Accepted(m.Topic, m.Number)
		}
		if count == most {
			cancel()
		}
	})
	if count < most {
		return fmt.Errorf("%d of %d messages were published", count, most)
	}
	return nil
}

// saidOutbox is what the marks of an outbox say.
type saidOutbox struct {
	boot                      string
	begun, answered, promised []uint64
	exposed                   []uint64 // begun, and in the journal alone: kept over a kill, and not over a power cut
}

func readOutboxMarks(marks []string) (s saidOutbox, err error) {
	for _, m := range marks {
		what, of, _ := strings.Cut(m, " ")
		var n uint64
		if of != "" && what != "boot" {
			if n, err = strconv.ParseUint(of, 10, 64); err != nil {
				return s, err
			}
		}
		switch what {
		case "boot":
			if of != s.boot {
				s.boot, s.exposed = of, nil
			}
		case "putting":
			s.begun = append(s.begun, n)
		case "put":
			s.exposed = append(s.exposed, n)
		case "answering":
			s.answered = append(s.answered, n)
		case "failed":
			s.exposed = nil
		case "closed":
			s.promised, s.exposed = append(s.promised, s.exposed...), nil
		}
	}
	return s, nil
}

// judgeOutbox opens the outbox again: what was on the disk and not answered must come, in order, and nothing else; and it
// must go on.
func judgeOutbox(folder string, marks []string) error {
	before, err := readOutboxMarks(marks)
	if err != nil {
		return err
	}
	b, err := openOutbox(folder)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	var got []uint64
	fresh := uint64(time.Now().UnixNano())
	err = errors.Join(b.Put(telemetryMessage(fresh)), receiveOutbox(b, func(n uint64, _ int) bool {
		got = append(got, n)
		return true
	}), b.Close())
	if _, missing := os.Lstat(filepath.Join(folder, "outbox.db.damaged")); missing == nil {
		return fmt.Errorf("%w: the file was set aside", errRefused)
	}
	if err != nil {
		return err
	}
	return before.judge(got, fresh)
}

func (before saidOutbox) judge(got []uint64, fresh uint64) error {
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		return fmt.Errorf("out of order: %d", got)
	}
	if len(got) == 0 || got[len(got)-1] != fresh {
		return fmt.Errorf("a fresh message has not come; there are %d", got)
	}
	for _, n := range before.promised {
		if !slices.Contains(before.answered, n) && !slices.Contains(got, n) {
			return fmt.Errorf("%d was on the disk and is gone; there are %d", n, got)
		}
	}
	for _, n := range got[:len(got)-1] {
		if !slices.Contains(before.begun, n) {
			return fmt.Errorf("nobody has put %d", n)
		}
	}
	return nil
}
