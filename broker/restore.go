package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"pinseal/broker/internal/store"
)

// openStore opens what survived the last run, and takes it up. A damaged file is set aside: what was in it is lost, and
// the broker serves.
func (b *Broker) openStore() error {
	p := b.keeper.config
	if p.Path == "" {
		return nil
	}
	r, err := b.readStore()
	if errors.Is(err, store.ErrDamaged) {
		aside := p.Path + ".damaged"
		b.log.Error("stored sessions and retained messages are lost, the file is set aside", slog.Any("error", err), slog.String("aside", aside))
		if err := os.Rename(p.Path, aside); err != nil {
			return fmt.Errorf("setting the broker's store aside: %w", err)
		}
		r, err = b.readStore()
	}
	if err != nil {
		return fmt.Errorf("opening the broker's store: %w", err)
	}
	r.apply(b, time.Now())
	return nil
}

func (b *Broker) readStore() (*restored, error) {
	p := b.keeper.config
	s, err := store.Open(store.Config{
		Path: p.Path, Buckets: buckets(), Sync: p.Interval == 0, Delay: p.Interval, OpenFile: p.OpenFile, Failed: b.storeFailed,
	})
	if err != nil {
		return nil, err
	}
	r := &restored{sessions: map[string]*session{}, records: map[string]*sessionRecord{}, messages: map[uint64]*message{}}
	if err := r.read(b, s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	b.keeper.store = s
	return r, nil
}

func (b *Broker) storeFailed(err error) {
	if err != nil {
		b.log.Error("cannot store sessions and messages: those who publish them are told so", slog.Any("error", err))
		return
	}
	b.log.Info("sessions and messages are stored again")
}

// restored is what was read from the store.
type restored struct {
	sessions map[string]*session
	records  map[string]*sessionRecord
	messages map[uint64]*message
	retained []*message
	orphans  []orphan // what a crash left between two commits
}

type orphan struct{ bucket, key string }

// read reads all buckets, sessions before what belongs to them.
func (r *restored) read(b *Broker, from *store.Store) error {
	for _, step := range []struct {
		bucket string
		visit  func(key string, value []byte) error
	}{
		{bucketSessions, func(id string, value []byte) error { return r.session(b, id, value) }},
		{bucketSubscriptions, r.subscription},
		{bucketMessages, r.message},
		{bucketDeliveries, r.delivery},
		{bucketReceived, r.received},
		{bucketRetained, r.retain},
	} {
		err := from.Read(step.bucket, step.visit)
		if errors.Is(err, errRecord) {
			err = fmt.Errorf("%w: %w in %s", store.ErrDamaged, err, step.bucket)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *restored) session(b *Broker, id string, value []byte) error {
	record, err := parseSession(value)
	if err != nil {
		return err
	}
	identity, clientID, ok := strings.Cut(id, ":")
	if !ok {
		return errRecord
	}
	s := newSession(b, id, identity, clientID)
	s.kept, s.version, s.keep, s.away, s.will = true, record.version, record.keep, record.away, record.will
	s.queue.lastSent, s.queue.lastNumber = record.lastSent, record.lastSent
	r.sessions[id], r.records[id] = s, record
	return nil
}

// of returns the session a key belongs to, nil if that was deleted in a commit before.
func (r *restored) of(bucket, key string) (s *session, rest string) {
	id, rest := parseKey(key)
	if s = r.sessions[id]; s == nil {
		r.orphans = append(r.orphans, orphan{bucket, key})
	}
	return s, rest
}

func (r *restored) subscription(key string, value []byte) error {
	s, filter := r.of(bucketSubscriptions, key)
	if s == nil {
		return nil
	}
	sub, err := parseSubscription(filter, value)
	s.filters[filter] = sub
	return err
}

func (r *restored) message(key string, value []byte) error {
	number, err := parseNumber(key)
	if err != nil {
		return err
	}
	m, err := parseMessage(value)
	m.kept.number = number
	r.messages[number] = m
	return err
}

func (r *restored) delivery(key string, value []byte) error {
	s, rest := r.of(bucketDeliveries, key)
	if s == nil {
		return nil
	}
	number, err := parseNumber(rest)
	if err != nil {
		return err
	}
	d, of, err := parseDelivery(number, value)
	if err != nil {
		return err
	}
	switch m := r.messages[of]; {
	case s.queue.byID[d.id] != nil:
		return errRecord
	case d.released:
		d.message = &message{}
	case m == nil: // acknowledged
		r.orphans = append(r.orphans, orphan{bucketDeliveries, key})
		return nil
	default:
		d.message = m
		m.kept.references++
	}
	d.sent = r.records[s.id].attached || number <= s.queue.lastSent
	s.queue.link(d)
	s.queue.lastID, s.queue.lastNumber = d.id, max(s.queue.lastNumber, number)
	return nil
}

func (r *restored) received(key string, _ []byte) error {
	s, rest := r.of(bucketReceived, key)
	if s == nil {
		return nil
	}
	id, err := parseIdentifier(rest)
	s.received[id] = 0
	return err
}

func (r *restored) retain(topic string, value []byte) error {
	m, err := parseMessage(value)
	if err == nil && m.topic != topic {
		return errRecord
	}
	r.retained = append(r.retained, m)
	return err
}

// apply takes up what was read. Sessions whose time has passed end, and subscriptions that the policy does not allow.
func (r *restored) apply(b *Broker, now time.Time) {
	k := &b.keeper
	for _, o := range r.orphans {
		k.store.Delete(o.bucket, o.key)
	}
	for number, m := range r.messages {
		if k.lastNumber = max(k.lastNumber, number); m.kept.references == 0 {
			k.store.Delete(bucketMessages, numberKey(number))
		}
	}
	for _, m := range r.retained {
		b.retained.add(m)
	}
	b.sessions.mu.Lock()
	var due []dueWill
	for id, s := range r.sessions {
		due = append(due, b.restore(s, r.records[id], now)...)
	}
	b.sessions.mu.Unlock()
	for _, s := range r.sessions {
		b.endSubscriptions(s)
	}
	b.expel()
	for _, w := range due {
		b.publishWill(w.of, w.will)
	}
	b.expire(now)
	b.log.Info("stored sessions and messages are back", slog.Int("sessions", len(r.sessions)), slog.Int("retained", len(r.retained)))
}

// restore puts a session into the table, as one whose client is away. Its client was connected until the last run ended,
// if that was not in peace; so its will is due now. The table's lock is held.
func (b *Broker) restore(s *session, record *sessionRecord, now time.Time) []dueWill {
	s.keep = min(record.keep, b.limits.Load().MaxSessionExpiry)
	if record.attached || s.away.After(now) { // a clock may have been wrong
		s.away = now
	}
	s.since, s.until = s.away, s.away.Add(s.keep)
	b.sessions.all[s.id] = s
	for _, sub := range s.filters {
		b.index.add(s, sub)
	}
	s.outlive() // whatever the limits are now
	w := s.will
	if w == nil && !record.attached {
		return nil
	}
	s.setWill(nil) // after the next crash it is neither connected nor is its will due again
	if w == nil {
		return nil
	}
	if left := w.delay - now.Sub(s.away); left > 0 {
		s.delayWill(w, min(left, s.keep))
		return nil
	}
	return []dueWill{{s, w}}
}
