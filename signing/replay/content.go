package replay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// formatVersion is what the package comment describes.
const formatVersion = 1

const metaBucket kind = "meta"

func allBuckets() []kind { return []kind{metaBucket, commands, telemetry, legacy} }

// change is a new value for a key; a nil value deletes it.
type change struct {
	bucket     kind
	key, value []byte
}

// content is what a database says, and with its log.
type content struct {
	since   time.Time
	run     []byte
	log     logState
	records map[recordKey]*entries
	logged  []recordKey // the records that are not in the database as they are here
}

// putEmpty fills a new database.
func putEmpty(tx *bbolt.Tx, since time.Time) error {
	for _, k := range allBuckets() {
		if _, err := tx.CreateBucket([]byte(k)); err != nil {
			return err
		}
	}
	changes := []change{{metaBucket, []byte("version"), binary.BigEndian.AppendUint32(nil, formatVersion)}}
	if !since.IsZero() {
		changes = append(changes, sinceChange(since))
	}
	return apply(tx, changes)
}

func sinceChange(since time.Time) change {
	return change{metaBucket, []byte("since"), binary.BigEndian.AppendUint64(nil, uint64(since.UnixMicro()))}
}

// apply makes the changes and keeps the sum.
func apply(tx *bbolt.Tx, changes []change) error {
	meta := tx.Bucket([]byte(metaBucket))
	var sum uint64
	if b := meta.Get([]byte("sum")); len(b) == 8 {
		sum = binary.BigEndian.Uint64(b)
	}
	for _, c := range changes {
		b := tx.Bucket([]byte(c.bucket))
		if old := b.Get(c.key); old != nil {
			sum ^= checksum(c.bucket, c.key, old)
		}
		if c.value == nil {
			if err := b.Delete(c.key); err != nil {
				return err
			}
			continue
		}
		sum ^= checksum(c.bucket, c.key, c.value)
		if err := b.Put(c.key, c.value); err != nil {
			return err
		}
	}
	return meta.Put([]byte("sum"), binary.BigEndian.AppendUint64(nil, sum))
}

// checksum is the part of one key and value in the sum of all.
func checksum(k kind, key, value []byte) uint64 {
	b := make([]byte, 0, len(k)+2+len(key)+len(value))
	b = append(b, k...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key))) //nolint:gosec // bbolt's keys are shorter
	b = append(append(b, key...), value...)
	h := sha256.Sum256(b)
	return binary.BigEndian.Uint64(h[:])
}

// read reads all of the database.
func read(tx *bbolt.Tx) (content, error) {
	c := content{records: map[recordKey]*entries{}}
	for _, k := range allBuckets() {
		if tx.Bucket([]byte(k)) == nil {
			return c, fmt.Errorf("%w: no bucket %s", ErrDamaged, k)
		}
	}
	meta := tx.Bucket([]byte(metaBucket))
	version, since := meta.Get([]byte("version")), meta.Get([]byte("since"))
	if len(version) != 4 || since != nil && len(since) != 8 {
		return c, fmt.Errorf("%w: wrong meta data", ErrDamaged)
	}
	if n := binary.BigEndian.Uint32(version); n != formatVersion {
		return c, fmt.Errorf("format version %d, this program knows %d", n, formatVersion)
	}
	if since != nil {
		c.since = time.UnixMicro(int64(binary.BigEndian.Uint64(since))).UTC() //nolint:gosec // two's complement
	}
	c.run = bytes.Clone(meta.Get([]byte("run")))
	if err := checkSum(tx); err != nil {
		return c, err
	}
	var err error
	if c.log, err = parseLogState(meta.Get([]byte("log"))); err != nil {
		return c, err
	}
	for _, k := range []kind{commands, telemetry, legacy} {
		if err := readBucket(tx, k, c.records); err != nil {
			return c, err
		}
	}
	return c, nil
}

// checkSum compares the sum of what is there with what should be.
func checkSum(tx *bbolt.Tx) error {
	var sum uint64
	for _, k := range allBuckets() {
		err := tx.Bucket([]byte(k)).ForEach(func(key, value []byte) error {
			if k != metaBucket || string(key) != "sum" {
				sum ^= checksum(k, key, value)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	want := binary.BigEndian.AppendUint64(nil, sum)
	if !bytes.Equal(tx.Bucket([]byte(metaBucket)).Get([]byte("sum")), want) {
		return fmt.Errorf("%w: wrong sum", ErrDamaged)
	}
	return nil
}

func readBucket(tx *bbolt.Tx, k kind, records map[recordKey]*entries) error {
	return tx.Bucket([]byte(k)).ForEach(func(key, value []byte) error {
		rk, err := parseRecordKey(k, key)
		if err != nil {
			return err
		}
		es, err := parseEntries(k, value)
		if err != nil {
			return err
		}
		records[rk] = &es
		return nil
	})
}
