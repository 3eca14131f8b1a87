package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/agent/outbox"
	"pinseal/signing"
)

const fast = 1e6 // messages a second

// A new connection to the broker does not wait for the answers to what an old one had.
func TestAgain(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "outbox.db"), outbox.Options{RetryAfter: time.Hour})
	defer closeBox(t, b)
	key := newKey(t)
	put(t, b, seal(t, key, 1), seal(t, key, 2))
	ctx, cancel := context.WithCancel(t.Context())
	published := make(chan uint64)
	var running sync.WaitGroup
	running.Go(func() {
		b.Run(ctx, func(m outbox.Message, done func(error)) {
			done(nil)
			published <- m.Number
		})
	})
	for life := range 3 {
		for want := uint64(1); want <= 2; want++ {
			if got := <-published; got != want {
				t.Errorf("connection %d: published %d, want %d", life, got, want)
			}
		}
		if life < 2 {
			b.Again()
		}
	}
	cancel()
	running.Wait()
}

// silent is a receiver that never answers.
func silent(outbox.Message) {}

func TestDelivers(t *testing.T) {
	key, b := newKey(t), open(t, database(t), outbox.Options{Rate: fast})
	r, stop := receive(t, b, nil)
	sent := map[uint64]string{}
	for n := range uint64(200) {
		m := seal(t, key, n+1)
		sent[m.Number] = string(m.Sealed)
		put(t, b, m)
	}
	wantNumbers(t, r.wait(t, 200), 200)
	stop()
	for number, raw := range sent {
		if r.raw[number] != raw {
			t.Errorf("number %d came as other bytes", number)
		}
	}
	if s := b.Stats(); s.Waiting != 0 || s.WaitingBytes != 0 || s.Accepted != 200 || s.Dropped+s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	closeBox(t, b)
	if b.Put(seal(t, key, 1)) == nil {
		t.Error("a closed box took a message")
	}
}

// What had no answer is there after every kind of end, in its order and its bytes.
func TestOutlives(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, b *outbox.Box)
	}{
		{"an orderly end", closeBox},
		{"a kill", func(*testing.T, *outbox.Box) {}}, // its files are read by a copy
	} {
		t.Run(c.name, func(t *testing.T) {
			key, path := newKey(t), database(t)
			b := open(t, path, outbox.Options{Rate: fast})
			var sent []outbox.Message
			for n := range uint64(100) {
				sent = append(sent, seal(t, key, n+1))
			}
			put(t, b, sent...)
			_, stop := receive(t, b, func(m outbox.Message) {
				if m.Number%2 == 0 && m.Number < 20 {
					b.Accepted(m.Topic, m.Number)
				}
			})
			for b.Stats().Accepted < 9 {
				time.Sleep(time.Millisecond)
			}
			stop()
			c.end(t, b)
			again := open(t, clone(t, path), outbox.Options{Rate: fast})
			r, stop := receive(t, again, nil)
			got := r.wait(t, 91)
			stop()
			for _, m := range sent {
				answered := m.Number%2 == 0 && m.Number < 20
				if n := count(got, m.Number); answered && n != 0 || !answered && n != 1 {
					t.Errorf("number %d came %d times again", m.Number, n)
				}
				if raw := r.raw[m.Number]; !answered && raw != string(m.Sealed) {
					t.Errorf("number %d came as other bytes", m.Number)
				}
			}
			if !slices.IsSorted(got) {
				t.Errorf("out of order: %v", got)
			}
			closeBox(t, again)
			closeBox(t, b)
		})
	}
}

func count(numbers []uint64, number uint64) (n int) {
	for _, other := range numbers {
		if other == number {
			n++
		}
	}
	return n
}

// clone copies the files as a kill would leave them: a second process may not have them.
func clone(t *testing.T, path string) string {
	t.Helper()
	to := database(t)
	for _, suffix := range []string{"", ".journal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// No more than a receiver remembers flies beyond what it has not answered, or the oldest would look like a replay.
func TestWindow(t *testing.T) {
	key, b := newKey(t), open(t, database(t), outbox.Options{Rate: fast})
	r, stop := receive(t, b, func(m outbox.Message) {
		if m.Number != 1 {
			b.Accepted(m.Topic, m.Number)
		}
	})
	for n := range uint64(100) {
		put(t, b, seal(t, key, n+1))
	}
	got := r.wait(t, outbox.Window)
	for b.Stats().Accepted < outbox.Window-1 {
		time.Sleep(time.Millisecond)
	}
	wantNumbers(t, got, outbox.Window)
	b.Accepted(topic, 1)
	wantNumbers(t, r.wait(t, 100), 100)
	stop()
	closeBox(t, b)
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		reason signing.Reason
		want   string
	}{
		{signing.ReasonDuplicate, "accepted"},
		{signing.ReasonReplay, "accepted"},
		{signing.ReasonStale, "refused"},
		{signing.ReasonEquivocation, "refused"},
		{signing.ReasonMalformed, "refused"},
		{signing.ReasonNotPermitted, "again after 30s"},
		{signing.ReasonFuture, "again after 30s"},
		{signing.ReasonRateLimited, "again after 1s"},
		{"", "again after 10s"}, // no answer at all
	} {
		t.Run(string(c.reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key, b := newKey(t), open(t, database(t), outbox.Options{})
				begin, result := time.Now(), ""
				r, stop := receive(t, b, func(m outbox.Message) {
					if again := time.Since(begin); again > 0 {
						result = fmt.Sprint("again after ", again)
						b.Accepted(m.Topic, m.Number)
					} else if c.reason != "" {
						b.Refused(m.Topic, m.Number, c.reason)
					}
				})
				put(t, b, seal(t, key, 1))
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := b.Stats(); result == "" && s.Accepted == 1 {
					result = "accepted"
				} else if s.Refused == 1 {
					result = "refused"
				}
				if result != c.want || b.Stats().Waiting != 0 {
					t.Errorf("%s, %+v, after %v", result, b.Stats(), r.numbers())
				}
				stop()
				closeBox(t, b)
			})
		})
	}
}

// What nobody answers is published again, ever more seldom; what the connection still has is left to it.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, b := newKey(t), open(t, database(t), outbox.Options{})
		begin, times := time.Now(), ""
		_, stop := receive(t, b, func(outbox.Message) { times += fmt.Sprint(time.Since(begin), " ") })
		put(t, b, seal(t, key, 1))
		time.Sleep(20 * time.Minute)
		stop()
		if want := "0s 10s 30s 1m10s 2m30s 5m10s 10m10s 15m10s "; times != want {
			t.Errorf("published after %s, want %s", times, want)
		}
		closeBox(t, b)
	})
}

// A backlog is drained at its rate; the first of it, as what is fresh, leaves at once.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, b := newKey(t), open(t, database(t), outbox.Options{Rate: 10})
		for n := range uint64(outbox.Window + 100) {
			put(t, b, seal(t, key, n+1))
		}
		r, stop := receive(t, b, nil)
		synctest.Wait()
		if got := len(r.numbers()); got != outbox.Window {
			t.Errorf("%d left at once", got)
		}
		time.Sleep(5*time.Second + time.Millisecond)
		synctest.Wait()
		if got := len(r.numbers()) - outbox.Window; got != 50 {
			t.Errorf("%d in the next 5 s", got)
		}
		stop()
		closeBox(t, b)
	})
}

// Three weeks without a receiver: nothing is lost, most of it on the disk; then all of it comes, in order.
func TestWeeksOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, path := newKey(t), database(t)
		b := open(t, path, outbox.Options{FlushEvery: 6 * time.Hour, Rate: fast})
		_, stop := receive(t, b, silent)
		const messages = 21 * 24 * 6
		raw := 0
		for n := range uint64(messages) {
			m := seal(t, key, n+1)
			raw += len(m.Sealed)
			put(t, b, m)
			time.Sleep(10 * time.Minute)
		}
		s := b.Stats()
		if s.Waiting != messages || s.Dropped != 0 || s.WaitingBytes > int64(raw)/2 {
			t.Errorf("%+v, sealed %d bytes", s, raw)
		}
		stop()
		closeBox(t, b)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d messages, %d bytes sealed, %d as they lie, a file of %d", messages, raw, s.WaitingBytes, info.Size())
		b = open(t, path, outbox.Options{Rate: fast})
		if got := b.Stats().Waiting; got != messages {
			t.Fatalf("%d wait after a restart", got)
		}
		r, stop := receive(t, b, nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		wantNumbers(t, r.numbers(), messages)
		stop()
		closeBox(t, b)
	})
}

// Beyond its bound the oldest go, and are counted; what comes last is there.
func TestMaxBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		flush time.Duration
	}{{"in memory", time.Hour}, {"on the disk", time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const messages, most = 2000, 50_000
				key, path := newKey(t), database(t)
				b := open(t, path, outbox.Options{FlushEvery: c.flush, MaxBytes: most, Rate: fast})
				_, stop := receive(t, b, silent)
				for n := range uint64(messages) {
					put(t, b, seal(t, key, n+1))
					time.Sleep(50 * time.Millisecond)
				}
				stop()
				closeBox(t, b)
				s := b.Stats()
				if s.WaitingBytes > most || s.Dropped == 0 || int(s.Dropped)+s.Waiting != messages {
					t.Errorf("%+v", s)
				}
				b = open(t, path, outbox.Options{Rate: fast})
				r, stop := receive(t, b, nil)
				time.Sleep(time.Minute)
				synctest.Wait()
				got := r.numbers()
				if len(got) != s.Waiting || got[len(got)-1] != messages || !slices.IsSorted(got) {
					t.Errorf("%d came of %d, the last %d", len(got), s.Waiting, got[len(got)-1])
				}
				stop()
				closeBox(t, b)
			})
		})
	}
}

// Answered within its time, nothing is ever written to the database.
func TestWritesNothingWhileAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, path := newKey(t), database(t)
		b := open(t, path, outbox.Options{})
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, stop := receive(t, b, func(m outbox.Message) {
			time.AfterFunc(2*time.Second, func() { b.Accepted(m.Topic, m.Number) })
		})
		for n := range uint64(3600) {
			put(t, b, seal(t, key, n+1))
			time.Sleep(time.Second)
		}
		after, err := os.ReadFile(path)
		if err != nil || string(after) != string(before) {
			t.Errorf("the database was written: %v", err)
		}
		if info, err := os.Stat(path + ".journal"); err != nil || info.Size() > 300_000 {
			t.Errorf("the journal has %v bytes, %v", info.Size(), err)
		}
		stop()
		closeBox(t, b)
	})
}

func TestDamagedIsMovedAway(t *testing.T) {
	path := database(t)
	key, b := newKey(t), open(t, path, outbox.Options{})
	for n := range uint64(100) {
		put(t, b, seal(t, key, n+1))
	}
	closeBox(t, b)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"junk", []byte(strings.Repeat("junk ", 4000))}, {"cut", whole[:5000]}, {"no file of its own", []byte("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := database(t)
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			b := open(t, path, outbox.Options{Rate: fast})
			r, stop := receive(t, b, nil)
			put(t, b, seal(t, key, 1000))
			if got := r.wait(t, 1); got[len(got)-1] != 1000 {
				t.Errorf("got %v", got)
			}
			stop()
			closeBox(t, b)
			if moved, err := os.ReadFile(path + ".damaged"); err != nil || string(moved) != string(c.data) {
				t.Errorf("the damaged file is gone: %v", err)
			}
		})
	}
}

// A chunk that rots is lost, and told of; the others are not.
func TestRottenChunk(t *testing.T) {
	path := database(t)
	key := newKey(t)
	for n := range uint64(3) { // three chunks
		b := open(t, path, outbox.Options{})
		put(t, b, seal(t, key, n+1))
		closeBox(t, b)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, clone(t, path), outbox.Options{Rate: fast})
	r, stop := receive(t, b, nil)
	wantNumbers(t, r.wait(t, 3), 3)
	stop()
	closeBox(t, b)
	flipped := 0
	for at := 4096 * 2; at < len(data); at += 301 {
		rotten := slices.Clone(data)
		rotten[at] ^= 0x40
		path := filepath.Join(t.TempDir(), "outbox.db")
		if err := os.WriteFile(path, rotten, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := outbox.Open(path, outbox.Options{Rate: fast})
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		r, stop := receive(t, b, nil)
		put(t, b, seal(t, key, 4))
		deadline := time.Now().Add(patience)
		for b.Stats().Waiting > 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		stop()
		if got := r.numbers(); !slices.Contains(got, 4) || len(got) > 4 {
			t.Errorf("byte %d: got %v", at, got)
		} else if len(got) < 4 {
			flipped++
		}
		_ = b.Close() // a rotten file may be of no use any more
	}
	if flipped == 0 {
		t.Error("no bit that mattered was hit")
	}
}

func TestInUse(t *testing.T) {
	path := database(t)
	b := open(t, path, outbox.Options{})
	defer closeBox(t, b)
	if _, err := outbox.Open(path, outbox.Options{}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Open(filepath.Join(file, "outbox.db"), outbox.Options{}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
