package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/agent"
	"pinseal/gpio"
	"pinseal/gpio/gpiotest"
)

// fullAgent takes no action while it is busy, and keeps what it is told.
type fullAgent struct {
	mu      sync.Mutex
	busy    bool
	refused int
	pressed []string
	reports []string
}

func (a *fullAgent) Press(_, _, action string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy {
		a.refused++
		return agent.ErrBusy
	}
	a.pressed = append(a.pressed, action)
	return nil
}

func (a *fullAgent) Report(measure string, msg []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reports = append(a.reports, measure+" "+string(msg))
	return nil
}

func (a *fullAgent) setBusy(busy bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy = busy
}

// startInput runs an input of a fake chip until the test ends.
func startInput(t *testing.T, cfg inputConfig, a inputAgent) *gpiotest.Chip {
	t.Helper()
	chip := gpiotest.New()
	cfg.Name, cfg.Line = "door", "GPIO22"
	cfg.Debounce = new(shortLength) // every edge
	line, err := gpio.OpenInput(chip, cfg.gpio())
	if err != nil {
		t.Fatal(err)
	}
	i := newInput(cfg, line, a, slog.New(slog.DiscardHandler), func() bool { return true })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- i.run(ctx) }()
	synctest.Wait()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = line.Close()
	})
	return chip
}

// chatter moves the line to and fro, and leaves it low.
func chatter(chip *gpiotest.Chip, edges int, every time.Duration) {
	for n := range edges {
		chip.Drive("GPIO22", n%2 == 0)
		time.Sleep(every)
		synctest.Wait()
	}
}

// An output that follows an input ends up as the input does, however much that bounces and however little the output has
// time for.
func TestFollowOfAnInputThatBounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fullAgent{}
		chip := startInput(t, inputConfig{Output: "led", Action: actionFollow, Report: reportNever, Interval: positiveLength(time.Hour)}, a)
		chatter(chip, 11, time.Millisecond)
		a.setBusy(true)
		chatter(chip, 10001, time.Millisecond)
		chip.Drive("GPIO22", gpio.Low)
		time.Sleep(time.Minute)
		a.setBusy(false)
		time.Sleep(time.Second)
		synctest.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		want := []string{"off", "on", "off", "on", "off", "on", "off", "on", "off", "on", "off", "on", "off"}
		if !slices.Equal(a.pressed, want) {
			t.Errorf("pressed %v, want %v", a.pressed, want)
		}
		if a.refused < 1000 {
			t.Errorf("refused only %d times", a.refused)
		}
	})
}

// Of an input that never rests at most 20 changes a second are told, and its count has all of them.
func TestReportsOfAnInputThatBounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fullAgent{}
		chip := startInput(t, inputConfig{Report: reportOnChange, Interval: positiveLength(time.Hour)}, a)
		chatter(chip, 20_000, time.Millisecond)
		time.Sleep(time.Second)
		synctest.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		if n := len(a.reports); n < 400 || n > 440 {
			t.Errorf("%d reports in 20 s", n)
		}
		const last = `door {"state":"OFF","count":10000,"per_minute":10000,"time":946684819.999000}`
		if got := a.reports[len(a.reports)-1]; got != last {
			t.Errorf("at last %s, want %s", got, last)
		}
	})
}
