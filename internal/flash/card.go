package flash

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"time"
)

// Way is how the files get into the root file system.
type Way string

// The ways; the package comment explains them.
const (
	Files     Way = "files"
	CloudInit Way = "cloud-init"
	FirstRun  Way = "firstrun"
)

const (
	bootPartition = "boot"
	rootPartition = "root"
)

// What a caller can do something about.
var (
	ErrNotRaspberryPiOS = errors.New("not Raspberry Pi OS")
	ErrPrepared         = errors.New("the card was prepared already")
	ErrCannot           = errors.New("this way is not open")
)

// Card is a card with Raspberry Pi OS on it.
type Card struct {
	Boot Volume
	Root Volume // nil where the root file system is out of reach
}

// Check refuses what is not a card with Raspberry Pi OS that has not been booted yet.
func (c *Card) Check() error {
	for _, name := range []string{"config.txt", "cmdline.txt"} {
		if _, err := c.Boot.Read(name); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: the boot partition has no %s", ErrNotRaspberryPiOS, name)
		} else if err != nil {
			return fmt.Errorf("reading the boot partition: %w", err)
		}
	}
	if c.Root == nil {
		return nil
	}
	if _, err := c.Root.Read("etc/rpi-issue"); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the root partition has no /etc/rpi-issue", ErrNotRaspberryPiOS)
	} else if err != nil {
		return fmt.Errorf("reading the root partition: %w", err)
	}
	return nil
}

// Prepared says what of an earlier preparation is on the card, payload being the files to install.
func (c *Card) Prepared(payload []File) error {
	there := func(v Volume, name string) bool {
		_, err := v.Read(name)
		return err == nil
	}
	for _, name := range []string{setupArchive, setupScript} {
		if there(c.Boot, name) {
			return fmt.Errorf("%w: there is %s on the boot partition", ErrPrepared, name)
		}
	}
	if c.Root == nil {
		return nil
	}
	for _, f := range payload {
		if there(c.Root, f.Path) {
			return fmt.Errorf("%w: there is /%s on the root partition", ErrPrepared, f.Path)
		}
	}
	return nil
}

// Way is the best that the card supports: straight into the root file system, otherwise what its
// system looks for on the boot partition.
func (c *Card) Way() Way {
	if c.Root != nil {
		return Files
	}
	for _, name := range []string{"user-data", "meta-data"} {
		if _, err := c.Boot.Read(name); err != nil {
			return FirstRun
		}
	}
	return CloudInit
}

// Host is the host name that Raspberry Pi Imager has given the card, or nothing.
func (c *Card) Host() string {
	if userData, err := c.Boot.Read("user-data"); err == nil && cloudHost(userData.Data) != "" {
		return cloudHost(userData.Data)
	}
	if script, err := c.Boot.Read("firstrun.sh"); err == nil {
		return imagerHost(script.Data)
	}
	return ""
}

// Program is a program of the card's system, which tells its architecture; nil without the root file system.
func (c *Card) Program() ([]byte, error) {
	if c.Root == nil {
		return nil, nil
	}
	program, err := c.Root.Read("usr/bin/dpkg")
	if err != nil {
		return nil, fmt.Errorf("%w: reading its dpkg: %w", ErrNotRaspberryPiOS, err)
	}
	return program.Data, nil
}

// Plan gives the changes that make the card install the payload and take the host name.
func (c *Card) Plan(way Way, payload []File, host string, now time.Time) ([]Change, error) {
	switch way {
	case Files:
		return c.planFiles(payload, host)
	case CloudInit, FirstRun:
		setup, err := setupFiles(payload, host, now)
		if err != nil {
			return nil, err
		}
		trigger, err := c.planFirstRun()
		if way == CloudInit {
			trigger, err = c.planCloudInit(host, now)
		}
		if err != nil {
			return nil, err
		}
		return c.changes(bootPartition, c.Boot, append(setup, trigger...)), nil
	default:
		return nil, fmt.Errorf("there is no way %q", way)
	}
}

func (c *Card) changes(partition string, v Volume, files []File) (changes []Change) {
	for _, f := range files {
		old, err := v.Read(f.Path)
		if err == nil && f.Mode.IsDir() && old.Mode.IsDir() {
			continue
		}
		changes = append(changes, Change{Partition: partition, Replaces: err == nil, File: f, volume: v})
	}
	return changes
}

// planFiles has the links last, one of which enables the service.
func (c *Card) planFiles(payload []File, host string) ([]Change, error) {
	if c.Root == nil {
		return nil, fmt.Errorf("%w: the root file system is out of reach", ErrCannot)
	}
	files := slices.Clone(payload)
	slices.SortStableFunc(files, func(a, b File) int { return len(a.Link) - len(b.Link) })
	hosts, err := c.Root.Read("etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the root partition: %w", err)
	}
	names := []File{
		{Path: "etc/hostname", Mode: 0o644, Data: []byte(host + "\n")},
		{Path: "etc/hosts", Mode: 0o644, Data: hostsWith(hosts.Data, host)},
	}
	return c.changes(rootPartition, c.Root, append(names, files...)), nil
}

func (c *Card) planCloudInit(host string, now time.Time) ([]File, error) {
	userData, err := c.Boot.Read("user-data")
	if errors.Is(err, fs.ErrNotExist) {
		userData.Data = []byte("#cloud-config\n")
	} else if err != nil {
		return nil, fmt.Errorf("reading user-data: %w", err)
	}
	if !bytes.Contains(userData.Data, []byte(setupScript)) { // prepared again
		if userData.Data, err = userDataWith(userData.Data, host); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCannot, err)
		}
	}
	var files []File
	if _, err := c.Boot.Read("meta-data"); errors.Is(err, fs.ErrNotExist) {
		text := fmt.Sprintf("dsmode: local\ninstance-id: pinseal-%d\n", now.Unix())
		files = append(files, File{Path: "meta-data", Mode: 0o755, Data: []byte(text)})
	}
	return append(files, File{Path: "user-data", Mode: 0o755, Data: userData.Data}), nil
}

func (c *Card) planFirstRun() ([]File, error) {
	if err := c.checkRelease(); err != nil {
		return nil, err
	}
	line, err := c.Boot.Read("cmdline.txt")
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's command line: %w", err)
	}
	runs := runsFirst(line.Data)
	script, err := c.Boot.Read("firstrun.sh")
	hasScript := err == nil
	switch {
	case !hasScript && runs == "":
		return []File{
			{Path: "firstrun.sh", Mode: 0o755, Data: []byte(firstRunScript)},
			{Path: "cmdline.txt", Mode: 0o755, Data: cmdlineWith(line.Data)},
		}, nil
	case hasScript && bytes.Contains(script.Data, []byte(setupScript)): // prepared again
		return nil, nil
	case hasScript && (runs == "/boot/firstrun.sh" || runs == firmware+"/firstrun.sh"):
		data, err := firstRunWith(script.Data)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCannot, err)
		}
		return []File{{Path: "firstrun.sh", Mode: 0o755, Data: data}}, nil
	default:
		return nil, fmt.Errorf("%w: firstrun.sh and cmdline.txt do not belong together; was the card booted already?", ErrCannot)
	}
}

// bookworm is the first release that mounts the boot partition where firstrun.sh is looked for.
const bookworm = "2023-10-10"

// checkRelease reads what issue.txt begins with: Raspberry Pi reference 2024-11-19.
func (c *Card) checkRelease() error {
	issue, err := c.Boot.Read("issue.txt")
	if err != nil {
		return nil //nolint:nilerr // an image of somebody else's making; nothing speaks against it
	}
	released := regexp.MustCompile(`reference (\d{4}-\d\d-\d\d)`).FindSubmatch(issue.Data)
	if released != nil && string(released[1]) < bookworm {
		return fmt.Errorf("%w: this Raspberry Pi OS of %s is older than Bookworm", ErrCannot, released[1])
	}
	return nil
}
