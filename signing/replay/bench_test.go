package replay_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"pinseal/signing/replay"
)

// BenchmarkTelemetry is decisions alone: nothing waits for the disk.
func BenchmarkTelemetry(b *testing.B) {
	s := open(b, path(b), replay.Options{})
	var n uint64
	var d [32]byte
	for b.Loop() {
		n++
		binary.BigEndian.PutUint64(d[:], n)
		s.Telemetry("kid", "telemetry/sensor/load", n, d)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}

// BenchmarkTelemetryParallel is the same from all cores, each with its own topic.
func BenchmarkTelemetryParallel(b *testing.B) {
	s := open(b, path(b), replay.Options{})
	var topics atomic.Int32
	b.RunParallel(func(pb *testing.PB) {
		topic := fmt.Sprint("telemetry/sensor/", topics.Add(1))
		for n := uint64(0); pb.Next(); n++ {
			s.Telemetry("kid", topic, n, [32]byte{})
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}

// BenchmarkRefused is replays of commands, which never reach the disk.
func BenchmarkRefused(b *testing.B) {
	s := open(b, path(b), replay.Options{})
	_, c := s.Command("kid", "led", 1, digest("a"))
	if err := c.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if o, c := s.Command("kid", "led", 0, digest("a")); o != replay.Replay || c.Wait() != nil {
			b.Fatal(o)
		}
	}
}

// BenchmarkDecided is commands that are decided and not waited for.
func BenchmarkDecided(b *testing.B) {
	s := open(b, path(b), replay.Options{})
	var n uint64
	for b.Loop() {
		n++
		s.Command("kid", "led", n, [32]byte{})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}

// BenchmarkDurable is commands that are waited for, by some at a time.
func BenchmarkDurable(b *testing.B) {
	for _, waiters := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(waiters), func(b *testing.B) {
			s := open(b, path(b), replay.Options{})
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for w := range waiters {
				wg.Go(func() {
					output := fmt.Sprint("out", w)
					for n := uint64(0); left.Add(-1) >= 0; n++ {
						if _, c := s.Command("kid", output, n, [32]byte{}); c.Wait() != nil {
							b.Error(c.Wait())
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
			commits, _ := s.Commits()
			b.ReportMetric(float64(b.N)/float64(commits), "commands/commit")
		})
	}
}
