package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pinseal/internal/flash"
)

// openedCard is a card and how to let go of it.
type openedCard struct {
	flash.Card
	closers []func() error
}

// Close unmounts what was mounted, newest first.
func (o *openedCard) Close() error {
	var errs []error
	for _, closer := range slices.Backward(o.closers) {
		errs = append(errs, closer())
	}
	return errors.Join(errs...)
}

// openCard finds the card that the command line means.
func (c *flashCmd) openCard(ctx context.Context, std streams) (*openedCard, error) {
	if c.Boot != "" && c.Card != "" || c.Boot == "" && c.Root != "" {
		return nil, usagef("a card is either CARD or --boot with, where it is mounted, --root")
	}
	o := &openedCard{}
	var err error
	info, statErr := os.Stat(c.Card)
	switch {
	case c.Boot != "":
		err = o.folders(c.Boot, c.Root)
	case c.Card != "" && statErr != nil:
		err = fmt.Errorf("looking at the card: %w", statErr)
	case c.Card != "" && info.Mode().IsRegular():
		err = c.openImage(ctx, o)
	default:
		err = c.openDisk(ctx, o, std)
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// folders are mounted partitions.
func (o *openedCard) folders(boot, root string) error {
	for _, dir := range []string{boot, root} {
		if isOurs(dir) {
			return usagef("%s belongs to this machine, not to a card", dir)
		}
	}
	bootFolder, err := o.folder(boot)
	if err != nil {
		return err
	}
	o.Boot = bootFolder
	if root == "" {
		return nil
	}
	rootFolder, err := o.folder(root)
	if err != nil {
		return err
	}
	o.Root = rootFolder
	return nil
}

func (o *openedCard) folder(dir string) (*flash.Folder, error) {
	f, err := flash.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, f.Close)
	return f, nil
}

// isOurs says whether dir is what this machine itself runs from.
func isOurs(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && slices.ContainsFunc([]string{"/", "/boot", "/boot/firmware"}, func(own string) bool {
		ownInfo, err := os.Stat(own)
		return err == nil && os.SameFile(info, ownInfo)
	})
}

// openImage takes the boot partition of an image without mounting it; the root partition needs mount(8), and so root.
func (c *flashCmd) openImage(ctx context.Context, o *openedCard) error {
	bootPart, rootPart, err := flash.Partitions(c.Card)
	if err != nil {
		return withHint(err, "an image as it is on the card, not packed: unxz IMAGE.xz")
	}
	access := os.O_RDWR
	if c.DryRun {
		access = os.O_RDONLY
	}
	file, err := os.OpenFile(c.Card, access, 0)
	if err != nil {
		return fmt.Errorf("opening the image: %w", err)
	}
	o.closers = append(o.closers, file.Close)
	if o.Boot, err = flash.OpenImage(file, bootPart); err != nil {
		return err
	}
	if c.Way != "files" && (c.Way != "auto" || os.Geteuid() != 0) {
		return nil
	}
	loop := []string{"loop", fmt.Sprintf("offset=%d", rootPart.Start), fmt.Sprintf("sizelimit=%d", rootPart.Size)}
	dir, err := c.mount(ctx, o, c.Card, loop...)
	if err != nil {
		return withHint(err, "--way cloud-init and --way firstrun do without mounting, which needs root (sudo)")
	}
	o.Root, err = o.folder(dir)
	return err
}

func (c *flashCmd) mount(ctx context.Context, o *openedCard, source string, options ...string) (string, error) {
	if c.DryRun {
		options = append(options, "ro")
	}
	dir, unmount, err := flash.Mount(ctx, source, options...)
	if err != nil {
		return "", err
	}
	o.closers = append(o.closers, unmount)
	return dir, nil
}

// openDisk takes the partitions of a block device where they are mounted, or mounts them.
func (c *flashCmd) openDisk(ctx context.Context, o *openedCard, std streams) error {
	disk, err := c.findDisk(ctx)
	if err != nil {
		return err
	}
	boot, ok := disk.Boot()
	if !ok {
		return explainFlash(fmt.Errorf("%w: %s has no FAT partition named bootfs", flash.ErrNotRaspberryPiOS, disk.Path))
	}
	root, hasRoot := disk.Root()
	fmt.Fprintf(std.out, "card: %s\n", describe(disk))
	bootDir, err := c.mountPoint(ctx, o, boot)
	if err != nil {
		return err
	}
	rootDir := ""
	if hasRoot && (c.Way == "auto" || c.Way == "files") {
		if rootDir, err = c.mountPoint(ctx, o, root); err != nil {
			return err
		}
	}
	return o.folders(bootDir, rootDir)
}

func (c *flashCmd) mountPoint(ctx context.Context, o *openedCard, p flash.Part) (string, error) {
	if len(p.Mounts) > 0 {
		return p.Mounts[0], nil
	}
	dir, err := c.mount(ctx, o, p.Path)
	return dir, withHint(err, "mount the card yourself and give --boot and --root; mounting needs root (sudo)")
}

// findDisk is the disk that was named, or the only one that can be meant, unless it is a dangerous one.
func (c *flashCmd) findDisk(ctx context.Context) (flash.Disk, error) {
	disks, err := flash.Disks(ctx)
	if err != nil {
		return flash.Disk{}, err
	}
	if c.Card == "" {
		return onlyCard(disks)
	}
	path, err := filepath.EvalSymlinks(c.Card)
	if err != nil {
		return flash.Disk{}, fmt.Errorf("looking at the card: %w", err)
	}
	at := slices.IndexFunc(disks, func(d flash.Disk) bool { return d.Path == path })
	if at < 0 {
		return flash.Disk{}, withHint(fmt.Errorf("%s is neither a disk nor an image file", c.Card), "name the whole disk, not a partition: lsblk lists them")
	}
	return disks[at], c.refuse(disks[at])
}

// refuse protects the disks of this machine.
func (c *flashCmd) refuse(d flash.Disk) error {
	forced := c.Force == d.Path
	if c.Force != "" && !forced {
		return usagef("--force names %s, the card is %s", c.Force, d.Path)
	}
	if used := d.InUse(); len(used) > 0 && !forced {
		return withHint(fmt.Errorf("%s is in use: it is mounted at %s", d.Path, strings.Join(used, ", ")), "unmount it; or, if it really is the card: --force %s", d.Path)
	}
	if !d.Removable && !forced {
		return withHint(fmt.Errorf("%s is not removable", d.Path), "if it really is the card: --force %s", d.Path)
	}
	return nil
}

// onlyCard is the one card among the disks.
func onlyCard(disks []flash.Disk) (flash.Disk, error) {
	var cards []flash.Disk
	var names []string
	for _, d := range disks {
		if _, ok := d.Boot(); ok && d.Removable && len(d.InUse()) == 0 {
			cards = append(cards, d)
			names = append(names, describe(d))
		}
	}
	switch len(cards) {
	case 0:
		return flash.Disk{}, withHint(errors.New("no card with Raspberry Pi OS found"), "write Raspberry Pi OS to one and leave it in the reader, or name a device, an image file, or --boot and --root")
	case 1:
		return cards[0], nil
	default:
		return flash.Disk{}, withHint(fmt.Errorf("more than one card found: %s", strings.Join(names, "; ")), "name the one: pinseal flash DEVICE")
	}
}

func describe(d flash.Disk) string {
	return strings.Join(strings.Fields(d.Path+" "+d.Size+" "+d.Model), " ")
}
