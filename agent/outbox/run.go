package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pinseal/internal/boltfile"
)

// Run publishes what waits until ctx ends. publish hands a message to the broker and calls done when the broker has it,
// or never will; it does not block. Run is to be called once.
func (b *Box) Run(ctx context.Context, publish func(m Message, done func(error))) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next := b.due(time.Now())
		for _, i := range due {
			publish(i.Message, func(err error) { b.handed(i, err) })
		}
		timer.Reset(time.Until(next))
		select {
		case <-b.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// handed notes that the broker has a message, from when on an answer is awaited, or does not take it.
func (b *Box) handed(i *item, err error) {
	b.tell(func() {
		if err != nil {
			b.log.Debug("telemetry not handed over", "topic", i.Topic, "error", err)
		}
		i.confirmed = true
		i.wait = min(max(2*i.wait, b.options.RetryAfter), retryMost*b.options.RetryAfter)
		i.retry = time.Now().Add(i.wait)
		b.signal()
	})
}

// Again has published at once what the broker has had without an answer: it may have died with the receiver, or lost it.
// It is for when there is a new connection, and does not wait for a disk.
func (b *Box) Again() {
	b.tell(func() {
		for _, i := range b.flying {
			i.retry, i.wait = time.Time{}, 0
		}
		b.signal()
	})
}

// idle is how long Run sleeps when there is nothing to wait for.
const idle = time.Hour

// due returns what is to be published now, and when there may be more.
func (b *Box) due(now time.Time) (due []*item, next time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hear()
	next = b.flushDue(now)
	b.fill(now)
	if now.Before(b.unread) {
		next = earlier(next, b.unread)
	}
	for _, i := range b.flying {
		switch {
		case i.published && !i.confirmed:
			continue // the connection has it, and sends it again by itself
		case i.published && now.Before(i.retry):
			next = earlier(next, i.retry)
			continue
		}
		turn := b.pace.ReserveN(now, 1)
		if delay := turn.DelayFrom(now); delay > 0 {
			turn.CancelAt(now)
			return due, earlier(next, now.Add(delay))
		}
		i.published, i.confirmed = true, false
		due = append(due, i)
	}
	return due, next
}

// fill has as many messages fly as may. b.mu is held.
func (b *Box) fill(now time.Time) {
	for len(b.flying) == 0 || b.flights-b.flying[0].flight < Window {
		switch {
		case len(b.loaded) > 0:
			b.fly(b.loaded[0])
			b.loaded = b.loaded[1:]
		case len(b.chunks) > 0:
			if !b.load(now) {
				return // what is newer waits behind it
			}
		case len(b.recent) > 0:
			i := b.recent[0]
			b.recent = b.recent[1:]
			b.memory -= i.bytes()
			b.fly(i)
		default:
			return
		}
	}
}

func (b *Box) fly(i *item) {
	i.flight = b.flights
	b.flights++
	b.flying = append(b.flying, i)
}

// load takes the oldest chunk from the disk, or gives up one that is damaged. It reports whether either was possible: a
// disk that cannot be read now may be read later. b.mu is held.
func (b *Box) load(now time.Time) bool {
	if now.Before(b.unread) {
		return false
	}
	c := b.chunks[0]
	items, err := b.store.load(c)
	if err != nil && !errors.Is(err, boltfile.ErrDamaged) {
		b.disk("the outbox cannot be read; what waits on the disk goes on waiting", err)
		b.unread = now.Add(diskRetry)
		return false
	}
	b.chunks = b.chunks[1:]
	if err != nil {
		b.log.Error("telemetry lost: the outbox is damaged", "messages", c.left, "error", err)
		b.stats.Dropped += b.resting(c)
		b.discard(c)
		return true
	}
	flies := map[uint64]bool{}
	for _, i := range b.flying {
		flies[i.position] = true
	}
	for _, i := range items {
		if !b.done[i.position] && !flies[i.position] {
			b.loaded = append(b.loaded, i)
		}
	}
	return true
}

// flushDue writes to the disk when it is time, and returns when it will be the next time. b.mu is held.
func (b *Box) flushDue(now time.Time) (next time.Time) {
	since := b.dirty
	for _, i := range b.unstored() {
		if since.IsZero() || i.put.Before(since) {
			since = i.put
		}
	}
	next = since.Add(b.options.FlushEvery)
	full := b.journal.size > maxJournal && !now.Before(b.again)
	if full {
		b.renewJournal()
	}
	switch {
	case b.exposed, full && b.journal.size > maxJournal/2:
		next = now
	case since.IsZero():
		return now.Add(idle) // nothing to write
	}
	if next.Before(b.again) {
		next = b.again
	}
	if now.Before(next) {
		return next
	}
	if err := b.flush(); err != nil {
		b.disk("the outbox cannot be written; what waits is in memory alone", err)
		b.again = now.Add(diskRetry)
		return b.again
	}
	return now.Add(b.options.FlushEvery)
}

// renewJournal leaves out of the journal what waits no more. b.mu is held.
func (b *Box) renewJournal() {
	if err := b.journal.renew(b.unstored(), slices.Collect(maps.Keys(b.done))); err != nil {
		b.disk("the outbox's journal cannot be renewed", err)
	}
}

// unstored is what is not in the database. b.mu is held.
func (b *Box) unstored() (items []*item) {
	for _, i := range slices.Concat(b.flying, b.recent) {
		if i.chunk == nil {
			items = append(items, i)
		}
	}
	return items
}

// diskRetry is how long a disk that refused is left alone.
const diskRetry = 5 * time.Second

// flush brings the disk up to date and empties the journal. b.mu is held.
func (b *Box) flush() error {
	done := slices.Collect(maps.Keys(b.done))
	var added []*chunk
	for _, items := range b.runs() {
		gaps := gapsOf(items)
		c, err := newChunk(items, len(gaps))
		if err != nil {
			return err
		}
		added = append(added, c)
		done = append(done, gaps...)
	}
	if err := b.store.write(b.emptied, added, done); err != nil {
		return fmt.Errorf("writing the outbox: %w", err)
	}
	b.emptied, b.dirty, b.exposed = nil, time.Time{}, false
	for _, position := range done {
		b.done[position] = true
	}
	for _, c := range added {
		b.stored(c)
	}
	b.recent, b.memory = nil, 0
	slices.SortFunc(b.chunks, func(a, b *chunk) int { return cmp.Compare(a.first, b.first) })
	return b.journal.empty()
}

// runs cuts what is not in the database into groups that have no chunk of the database between them. b.mu is held.
func (b *Box) runs() (runs [][]*item) {
	begins := map[uint64]bool{} // of chunks there are
	for _, c := range b.chunks {
		begins[c.first] = true
	}
	for _, i := range slices.Concat(b.flying, b.loaded) {
		if i.chunk != nil {
			begins[i.chunk.first] = true
		}
	}
	items := b.unstored()
	slices.SortFunc(items, func(a, b *item) int { return cmp.Compare(a.position, b.position) })
	from := 0
	for n := 1; n <= len(items); n++ {
		if n < len(items) && !anyBetween(begins, items[n-1].position, items[n].position) {
			continue
		}
		runs = append(runs, items[from:n])
		from = n
	}
	return runs
}

func anyBetween(begins map[uint64]bool, from, to uint64) bool {
	for first := range begins {
		if from < first && first < to {
			return true
		}
	}
	return false
}

// gapsOf are the positions between items that wait no more.
func gapsOf(items []*item) (gaps []uint64) {
	for n := 1; n < len(items); n++ {
		for p := items[n-1].position + 1; p < items[n].position; p++ {
			gaps = append(gaps, p)
		}
	}
	return gaps
}

// stored takes the messages of a chunk that was written out of memory, unless they fly. b.mu is held.
func (b *Box) stored(c *chunk) {
	for _, i := range c.items {
		b.bytes -= i.bytes()
		i.chunk = c // of those that do not fly, the copy on the disk is what counts from now on
	}
	b.bytes += c.bytes
	c.items, c.value = nil, nil
	b.chunks = append(b.chunks, c)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
