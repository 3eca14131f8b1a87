package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// fedAt watches for a while and says when the watchdog was fed, in seconds since the start.
// With it comes when the outputs were told to go to their exit level.
func fedAt(t *testing.T, seconds int, hears func(context.Context, time.Duration) error) (fed, starved []int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second)
		defer cancel()
		w := &watchdog{
			every: 7 * time.Second,
			hears: func(ctx context.Context) error { return hears(ctx, time.Since(start)) },
			feed:  func() { fed = append(fed, int(time.Since(start).Seconds())) },
			healthy: func(ok bool) {
				if !ok {
					starved = append(starved, int(time.Since(start).Seconds()))
				}
			},
			log: slog.New(slog.DiscardHandler),
		}
		w.watch(ctx)
	})
	return fed, starved
}

func TestWatchdog(t *testing.T) {
	deaf := func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }
	tests := []struct {
		name          string
		hears         func(context.Context, time.Duration) error
		want, starved []int
	}{
		{"heard", func(context.Context, time.Duration) error { return nil }, []int{0, 7, 14, 21, 28}, nil},
		{"never heard", deaf, nil, []int{24}},
		{"refused", func(context.Context, time.Duration) error { return errors.New("broken") }, nil, []int{24}},
		// From 0 to 21 is less than the 28 seconds of systemd's patience that seven are a quarter of.
		{"one question lost", func(ctx context.Context, at time.Duration) error {
			if at == 7*time.Second {
				return deaf(ctx, at)
			}
			return nil
		}, []int{0, 21, 28}, nil},
		{"deaf after a while", func(ctx context.Context, at time.Duration) error {
			if at > 10*time.Second {
				return deaf(ctx, at)
			}
			return nil
		}, []int{0, 7}, []int{31}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, starved := fedAt(t, 32, tt.hears)
			if !slices.Equal(got, tt.want) || !slices.Equal(starved, tt.starved) {
				t.Errorf("fed at %v, want %v; starved at %v, want %v", got, tt.want, starved, tt.starved)
			}
		})
	}
}

func TestBoundTo(t *testing.T) {
	tests := []struct {
		name, bound, address string
		want                 bool
	}{
		{"every address", "[::]:8883", ":8883", true},
		{"every address of IPv4", "0.0.0.0:8883", ":8883", true},
		{"named", "127.0.0.1:8883", "127.0.0.1:8883", true},
		{"named otherwise", "127.0.0.1:8883", "[::ffff:127.0.0.1]:8883", true},
		{"another port", "[::]:8884", ":8883", false},
		{"another address", "127.0.0.1:8883", "127.0.0.2:8883", false},
		{"one instead of all", "127.0.0.1:8883", ":8883", false},
		{"all instead of one", "[::]:8883", "127.0.0.1:8883", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bound, err := net.ResolveTCPAddr("tcp", tt.bound)
			if err != nil {
				t.Fatal(err)
			}
			if got := boundTo(bound, tt.address); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	if boundTo(&net.UnixAddr{Name: "xxx"}, ":8883") {
		t.Error("a local socket is no port")
	}
}
