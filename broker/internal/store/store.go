// Package store keeps keys and values on disk, in a bbolt database, and tells when they are there.
//
// Put and Delete only take note. Who must know that a change is on disk calls After with the Mark that came back: then
// it is written at once, in one commit with everything else that was noted meanwhile. What nobody waits for is written
// within Config.Delay. Nothing is written while nothing changes.
//
// # When the disk refuses
//
// Those who wait are told. The changes are kept, and tried again, so that the disk agrees with the memory as soon as it
// can; who was told of an error and takes its change back has it taken back there too. Before each further try the file
// is opened anew and its structure is checked: that finds a disk that was mounted again.
//
// # The file
//
// It has pages of 4096 bytes, no stored free list, and a bucket "meta" whose key "version" is a uint32, big-endian, 1;
// any other is refused. Before each value of the other buckets stands its CRC-32C, taken over the bucket's name, a zero
// byte, the key, a zero byte and the value: bbolt itself has checksums on its two meta pages only. Its mode is 0600, and
// it is locked (flock) by the process that uses it.
package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"pinseal/internal/boltfile"
)

// Errors of Open that a caller can act on.
var (
	// ErrInUse says that another process holds the database.
	ErrInUse = boltfile.ErrInUse
	// ErrDamaged says that the file is not a complete database of this package.
	ErrDamaged = boltfile.ErrDamaged
)

// Config says where and how to store.
type Config struct {
	Path    string
	Buckets []string
	// Sync lets After wait for the disk. Without it, After only tells of a disk that refuses, and what was noted since
	// the last commit is lost in a crash.
	Sync bool
	// Delay is how long a change may wait that nobody waits for; 0 is DefaultDelay.
	Delay time.Duration
	// Failed is told when the disk begins to refuse, and nil when it takes everything again. It may be nil itself.
	Failed func(error)
	// OpenFile is os.OpenFile where it is nil; tests of broken disks replace it.
	OpenFile func(name string, flag int, perm os.FileMode) (*os.File, error)
}

// DefaultDelay suits an SD card.
const DefaultDelay = 5 * time.Second

// retryDelay is the shortest time between two tries on a disk that refuses.
const retryDelay = 250 * time.Millisecond

const (
	metaBucket    = "meta"
	versionKey    = "version"
	formatVersion = 1
)

// Mark says how much must be on disk. The zero Mark is nothing, and a higher one includes all below.
type Mark uint64

// Store is safe for concurrent use.
type Store struct {
	cfg     Config
	file    *boltfile.File // of the goroutine that commits
	reopen  bool
	wake    chan struct{}
	closing chan struct{}
	closed  chan struct{}
	whole   sync.RWMutex // held for reading between Begin and End

	mu      sync.Mutex
	next    Mark // of what is noted now
	durable Mark
	pending map[place]change
	waiting []func(error) // for pending
	writing Mark          // what is being written, 0 if nothing is
	behind  []func(error) // for writing
	failing error
}

type place struct{ bucket, key string }

type change struct {
	value []byte // nil deletes
	fresh bool   // the key is not on disk
}

// Open opens the database, or makes it. The error names the file.
func Open(cfg Config) (*Store, error) {
	if cfg.OpenFile == nil {
		cfg.OpenFile = os.OpenFile
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	cfg.Delay = cmp.Or(cfg.Delay, DefaultDelay)
	s := &Store{
		cfg: cfg, file: boltfile.New(cfg.Path, cfg.OpenFile), next: 1, pending: map[place]change{},
		wake: make(chan struct{}, 1), closing: make(chan struct{}), closed: make(chan struct{}),
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Path, boltfile.WithoutPath(err))
	}
	go s.run()
	return s, nil
}

func (s *Store) open() error {
	if _, err := os.Lstat(s.cfg.Path); errors.Is(err, fs.ErrNotExist) {
		if err := boltfile.Create(s.cfg.Path, s.cfg.OpenFile, s.fill); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := s.file.Open(); err != nil {
		return err
	}
	if err := s.file.View(s.check); err != nil {
		return boltfile.Also(err, s.file.Close())
	}
	// It may stay as large as it is.
	if _, err := s.file.Shrink(boltfile.WorthShrinking); !s.file.IsOpen() {
		return err
	}
	return nil
}

func (s *Store) fill(tx *bbolt.Tx) error {
	for _, name := range append([]string{metaBucket}, s.cfg.Buckets...) {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return tx.Bucket([]byte(metaBucket)).Put([]byte(versionKey), binary.BigEndian.AppendUint32(nil, formatVersion))
}

func (s *Store) check(tx *bbolt.Tx) error {
	for _, name := range append([]string{metaBucket}, s.cfg.Buckets...) {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: no bucket %s", ErrDamaged, name)
		}
	}
	version := tx.Bucket([]byte(metaBucket)).Get([]byte(versionKey))
	if len(version) != 4 {
		return fmt.Errorf("%w: wrong meta data", ErrDamaged)
	}
	if n := binary.BigEndian.Uint32(version); n != formatVersion {
		return fmt.Errorf("format version %d, this program knows %d", n, formatVersion)
	}
	return nil
}

// Read visits what a bucket held when the store was opened. It must come before all changes. The value must not be kept.
func (s *Store) Read(bucket string, visit func(key string, value []byte) error) error {
	err := s.file.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(key, stored []byte) error {
			value, ok := unseal(bucket, string(key), stored)
			if !ok {
				return fmt.Errorf("%w: wrong checksum in %s", ErrDamaged, bucket)
			}
			return visit(string(key), value)
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", s.cfg.Path, err)
	}
	return nil
}

// Begin has all that its caller notes until it calls End come into one commit. In between it must wait for nothing that
// another commit brings, and not call Begin again.
func (s *Store) Begin() { s.whole.RLock() }

// End is the end of what Begin began.
func (s *Store) End() { s.whole.RUnlock() }

// Put notes a value. fresh says that there is none under the key on disk: if it is deleted before it is written, then
// nothing is.
func (s *Store) Put(bucket, key string, value []byte, fresh bool) Mark {
	return s.note(place{bucket, key}, change{slices.Clip(value), fresh})
}

// Delete notes that there is to be no value.
func (s *Store) Delete(bucket, key string) Mark {
	return s.note(place{bucket, key}, change{})
}

func (s *Store) note(at place, c change) Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, noted := s.pending[at]
	switch {
	case noted && before.fresh && c.value == nil:
		delete(s.pending, at)
		return s.next
	case noted:
		c.fresh = before.fresh
	}
	s.pending[at] = c
	if len(s.pending) == 1 {
		s.signal() // the delay begins
	}
	return s.next
}

// Latest is the Mark of all that was noted.
func (s *Store) Latest() Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) > 0 {
		return s.next
	}
	return s.next - 1
}

// Durable reports whether it need not be waited for.
func (s *Store) Durable(m Mark) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m <= s.durable || !s.cfg.Sync
}

// After calls then once what was noted is on disk, or with an error when a try to bring it there has failed. It may call
// it at once. Calls come in the order in which they were asked for.
func (s *Store) After(m Mark, then func(error)) {
	s.mu.Lock()
	switch {
	case m <= s.durable:
		s.mu.Unlock()
		then(nil)
	case !s.cfg.Sync:
		err := s.failing
		s.mu.Unlock()
		then(err)
	case m <= s.writing:
		s.behind = append(s.behind, then)
		s.mu.Unlock()
	default:
		s.waiting = append(s.waiting, then)
		s.signal()
		s.mu.Unlock()
	}
}

// signal wakes the goroutine that commits, which may be awake. s.mu is held.
func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close writes what is left. Its error is that something was not written. The store must not be used afterwards.
func (s *Store) Close() error {
	close(s.closing)
	<-s.closed
	return boltfile.Also(s.failing, s.file.Close())
}

func seal(at place, value []byte) []byte {
	sealed := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(value)), checksum(at, value))
	return append(sealed, value...)
}

func unseal(bucket, key string, stored []byte) (value []byte, ok bool) {
	if len(stored) < 4 {
		return nil, false
	}
	value = stored[4:]
	return value, binary.BigEndian.Uint32(stored) == checksum(place{bucket, key}, value)
}

func checksum(at place, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, []byte(at.bucket+"\x00"+at.key+"\x00"))
	return crc32.Update(sum, table, value)
}
