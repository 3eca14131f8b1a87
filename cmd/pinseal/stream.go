package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pinseal/agent"
	"pinseal/signing"
)

// maxUnanswered is how many lines of telemetry, from the oldest that is not answered on, may have been
// sent. The node remembers the 64 highest numbers of a topic, so that what is sent again within such a
// window is neither lost nor taken twice.
const maxUnanswered = 64

// linesPerSecond keeps a stream below what a node lets a key send unless it is told otherwise.
const linesPerSecond = 900

// stream publishes lines and keeps each until the node has answered it: a broker or a node that stops
// and comes back loses no line. Commands keep their order: one at a time.
type stream struct {
	*publisher
	window  int
	pace    *rate.Limiter
	settled chan struct{} // holds a token when a line was answered lately
	lines   sync.WaitGroup
	warned  sync.Once

	mu        sync.Mutex
	unsettled []bool // of the lines from the oldest unanswered one on
	first     int    // its number
	err       error
}

func newStream(p *publisher) *stream {
	window := 1
	if isTelemetry(p.Topic) {
		window = maxUnanswered
	}
	return &stream{publisher: p, window: window, pace: rate.NewLimiter(linesPerSecond, maxUnanswered), settled: make(chan struct{}, 1)}
}

// run publishes until the source ends, then waits for the answers that are missing.
func (s *stream) run(ctx context.Context, source func() ([]byte, error)) error {
	ctx, stop := context.WithCancel(ctx)
	defer s.lines.Wait()
	defer stop()
	for {
		text, err := source()
		if err != nil {
			return errors.Join(unlessEOF(err), s.finish(ctx))
		}
		for s.waiting() >= s.window {
			select {
			case <-s.settled:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := s.pace.Wait(ctx); err != nil {
			return err
		}
		if err := s.send(ctx, text); err != nil {
			return err
		}
	}
}

// waiting counts the lines from the oldest that is not answered on.
func (s *stream) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unsettled)
}

// send publishes one line and follows it in the background.
func (s *stream) send(ctx context.Context, text []byte) error {
	q, err := s.commander.send(s.message(messageJSON(text)), true, s.commander.clock.now())
	if err != nil {
		return err
	}
	s.mu.Lock()
	number := s.first + len(s.unsettled)
	s.unsettled = append(s.unsettled, true)
	s.mu.Unlock()
	s.lines.Go(func() {
		warning := time.AfterFunc(s.patience(), s.warn)
		defer warning.Stop()
		verdict, err := s.commander.follow(ctx, q)
		s.settle(number, verdict, err)
	})
	return nil
}

// settle takes the end of a line.
func (s *stream) settle(number int, v agent.Verdict, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, context.Canceled): // finish tells
	case err != nil:
		s.err = err
	case v.Reason != signing.ReasonApplied:
		s.reject(v)
	case !isTelemetry(s.Topic):
		fmt.Fprintln(s.std.out, verdictText(v))
	}
	if err == nil {
		s.unsettled[number-s.first] = false
	}
	for len(s.unsettled) > 0 && !s.unsettled[0] {
		s.unsettled, s.first = s.unsettled[1:], s.first+1
	}
	select {
	case s.settled <- struct{}{}:
	default:
	}
}

// warn tells once that lines wait: MQTT 3.1.1 acknowledges even what the broker's rules then drop.
func (s *stream) warn() {
	s.warned.Do(func() {
		fmt.Fprintf(s.std.err, "pinseal: node %s does not answer on %s; lines wait for it\n", s.client.Node, s.Topic)
	})
}

// finish waits for the missing answers for as long as some still come.
func (s *stream) finish(ctx context.Context) error {
	for {
		s.mu.Lock()
		waiting, rejected, err := len(s.unsettled), s.rejected.Load(), s.err
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case waiting == 0 && rejected > 0:
			return fmt.Errorf("%d rejected", rejected)
		case waiting == 0:
			return nil
		}
		select {
		case <-s.settled:
		case <-time.After(s.patience()):
			return withCode(exitNoAnswer, fmt.Errorf("unanswered lines: %d: %w", waiting, s.commander.noAnswer(s.Topic)))
		case <-ctx.Done():
			return fmt.Errorf("unanswered lines: %d: %w", waiting, ctx.Err())
		}
	}
}
