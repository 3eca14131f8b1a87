package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	diskWrites = 50 // in a round
	// diskPause makes the disk as idle between writes as it is between commands.
	diskPause = 20 * time.Millisecond
)

// addDisk measures what a durable record costs on this disk at the least: one fdatasync of 4 KiB.
func (r results) addDisk(dir string) (err error) {
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	page := make([]byte, 4096)
	var times []time.Duration
	for i := range diskWrites {
		time.Sleep(diskPause)
		page[0] = byte(i)
		begin := time.Now()
		if _, err := f.WriteAt(page, 0); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
	}
	r.add(bare, figures{
		rowDisk50: milliseconds(percentile(times, 50)), rowDisk99: milliseconds(percentile(times, 99)),
	})
	return nil
}
