package flash

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

// Change is one file to write.
type Change struct {
	Partition string // "boot" or "root"
	Replaces  bool   // a file that is there
	File
	volume Volume
}

// Apply writes the changes in their order, waits until they are on the card, and reads all of them back.
// If anything fails or ctx ends, whatever was changed is undone and the error says so. progress, which may be
// nil, is told of each change before it is written and before it is read back.
func Apply(ctx context.Context, changes []Change, progress func(verb string, c Change)) error {
	if progress == nil {
		progress = func(string, Change) {}
	}
	err := write(ctx, changes, progress)
	if err == nil {
		err = verify(ctx, changes, progress)
	}
	if err == nil {
		return nil
	}
	var left []string
	for _, v := range volumes(changes) {
		left = append(left, v.Rollback()...)
	}
	if len(left) > 0 {
		return fmt.Errorf("%w; on the card remain: %s", err, strings.Join(left, ", "))
	}
	return fmt.Errorf("%w; the card is as it was", err)
}

func write(ctx context.Context, changes []Change, progress func(string, Change)) error {
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: %w", err)
		}
		progress("writing", c)
		if err := c.volume.Write(c.File); err != nil {
			return fmt.Errorf("writing %s to the %s partition: %w", c.Path, c.Partition, err)
		}
	}
	for _, v := range volumes(changes) {
		if err := v.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// volumes are those of the changes, each once.
func volumes(changes []Change) (all []Volume) {
	for _, c := range changes {
		if !slices.Contains(all, c.volume) {
			all = append(all, c.volume)
		}
	}
	return all
}

func verify(ctx context.Context, changes []Change, progress func(string, Change)) error {
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: %w", err)
		}
		progress("verifying", c)
		got, err := c.volume.Read(c.Path)
		if err != nil {
			return fmt.Errorf("reading back %s of the %s partition: %w", c.Path, c.Partition, err)
		}
		sameMode := got.Link != "" || c.Partition == bootPartition || got.Mode == c.Mode || c.Mode.IsDir()
		if got.Link != c.Link || !bytes.Equal(got.Data, c.Data) || !sameMode {
			return fmt.Errorf("%s of the %s partition is not what was written: the card may be broken", c.Path, c.Partition)
		}
	}
	return nil
}
