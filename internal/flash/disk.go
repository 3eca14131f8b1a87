package flash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Disk is a block device with its partitions, as lsblk(8) sees it.
type Disk struct {
	Path      string
	Model     string
	Size      string
	Removable bool // or on a bus whose devices come and go, such as USB and MMC
	Parts     []Part
}

// Part is a partition of a disk.
type Part struct {
	Path, Type, Label string
	Mounts            []string
}

// Disks lists the block devices of this machine.
func Disks(ctx context.Context) ([]Disk, error) {
	out, err := exec.CommandContext(ctx, "lsblk", "--json", "--output", "PATH,TYPE,RM,HOTPLUG,FSTYPE,LABEL,SIZE,MODEL,MOUNTPOINTS").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the disks: lsblk: %w", err)
	}
	return parseDisks(out)
}

// device is what lsblk says of a disk or a partition.
type device struct {
	Path        string    `json:"path"`
	Type        string    `json:"type"`
	Removable   bool      `json:"rm"`
	Hotplug     bool      `json:"hotplug"`
	FSType      string    `json:"fstype"`
	Label       string    `json:"label"`
	Size        string    `json:"size"`
	Model       string    `json:"model"`
	Mountpoints []*string `json:"mountpoints"`
	Children    []device  `json:"children"`
}

func parseDisks(out []byte) ([]Disk, error) {
	var listed struct {
		Devices []device `json:"blockdevices"`
	}
	if err := json.Unmarshal(out, &listed); err != nil {
		return nil, fmt.Errorf("listing the disks: lsblk: %w", err)
	}
	var disks []Disk
	for _, d := range listed.Devices {
		disk := Disk{Path: d.Path, Model: d.Model, Size: d.Size, Removable: d.Removable || d.Hotplug}
		for _, p := range append([]device{d}, d.below()...) { // a disk can hold a file system itself
			part := Part{Path: p.Path, Type: p.FSType, Label: p.Label}
			for _, m := range p.Mountpoints {
				if m != nil && *m != "" {
					part.Mounts = append(part.Mounts, *m)
				}
			}
			disk.Parts = append(disk.Parts, part)
		}
		disks = append(disks, disk)
	}
	return disks, nil
}

// below are all devices on top of this one: partitions, and what encryption or RAID make of them.
func (d device) below() (all []device) {
	for _, child := range d.Children {
		all = append(append(all, child), child.below()...)
	}
	return all
}

// Boot is the partition that Raspberry Pi OS boots from.
func (d Disk) Boot() (Part, bool) { return d.part("vfat", "bootfs", "boot") }

// Root is the partition with its root file system.
func (d Disk) Root() (Part, bool) { return d.part("ext4", "rootfs") }

func (d Disk) part(fsType string, labels ...string) (Part, bool) {
	at := slices.IndexFunc(d.Parts, func(p Part) bool { return p.Type == fsType && slices.Contains(labels, p.Label) })
	if at < 0 {
		return Part{}, false
	}
	return d.Parts[at], true
}

// InUse are mount points of the disk that are not those at which desktops mount a card.
func (d Disk) InUse() (mounts []string) {
	for _, p := range d.Parts {
		for _, m := range p.Mounts {
			card := p.Label == "rootfs" || p.Label == "bootfs" || p.Label == "boot"
			if !card || !underAny(m, "/media/", "/run/media/", "/mnt/") {
				mounts = append(mounts, m)
			}
		}
	}
	return mounts
}

func underAny(path string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return strings.HasPrefix(path, f) })
}

// Mount mounts a file system for as long as the card is prepared; options are those of mount(8).
// unmount also writes everything to the card.
func Mount(ctx context.Context, source string, options ...string) (dir string, unmount func() error, err error) {
	dir, err = os.MkdirTemp("", "pinseal-card-")
	if err != nil {
		return "", nil, fmt.Errorf("making a mount point: %w", err)
	}
	args := []string{source, dir}
	if len(options) > 0 {
		args = append([]string{"-o", strings.Join(options, ",")}, args...)
	}
	if out, err := exec.CommandContext(ctx, "mount", args...).CombinedOutput(); err != nil { //nolint:gosec // a device that the user named
		err = fmt.Errorf("mounting %s: %s: %w", source, strings.TrimSpace(string(out)), err)
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	return dir, func() error {
		// The context may have ended, and the mount must still go.
		out, err := exec.CommandContext(context.WithoutCancel(ctx), "umount", dir).CombinedOutput() //nolint:gosec // our own mount point
		if err != nil {
			return fmt.Errorf("unmounting %s: %s: %w", dir, strings.TrimSpace(string(out)), err)
		}
		return os.Remove(dir)
	}, nil
}
