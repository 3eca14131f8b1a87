package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"pinseal/signing/sequence"
)

// serviceUser is who `pinseal run` is as a service, and the group that its lines belong to: the unit's User= and Group=.
const (
	serviceUser  = "pinseal"
	serviceGroup = "gpio"
)

// owner is a user and a group by number.
type owner struct{ uid, gid int }

// serviceOwner is the user of the service, if it exists and we are root, who may give files away.
func serviceOwner() (owner, bool) {
	u, err := user.Lookup(serviceUser)
	if err != nil || os.Geteuid() != 0 {
		return owner{}, false
	}
	g, err := user.LookupGroup(serviceGroup)
	if err != nil {
		return owner{}, false
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(g.Gid)
	return owner{uid, gid}, uidErr == nil && gidErr == nil
}

// share makes what root wrote into the system's places usable by the service: now if its user exists, otherwise systemd
// hands the state folder over when the service starts.
func (f dirFlag) share() error {
	l := f.layout()
	if f.Dir != "" {
		return nil
	}
	if to, ok := serviceOwner(); ok {
		return l.handOver(to)
	}
	return l.letRead()
}

// letRead lets every user read what holds no secret: the configuration, public keys and certificates.
func (l layout) letRead() error {
	for _, dir := range []string{filepath.Dir(l.config), l.signers, l.recipients(), filepath.Dir(revokedKey(l, ""))} {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm() == publicFolder {
			continue // it may be where nothing can be written
		}
		if err := os.Chmod(dir, publicFolder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("letting the service read: %w", err)
		}
	}
	return nil
}

// publicFolder is the mode of a folder without secrets.
const publicFolder = 0o755

// handOver gives to the service what it writes or must keep secret. What it has no use for stays root's alone: the bundles
// of others, and the authority's key unless devices join.
func (l layout) handOver(to owner) error {
	if err := l.letRead(); err != nil {
		return err
	}
	// The folder is the service's: were that taken over, links in it could lead root anywhere. They do not lead out of a Root.
	root, err := os.OpenRoot(l.state)
	if err != nil {
		return fmt.Errorf("handing over to the service: %w", err)
	}
	defer root.Close() //nolint:errcheck // nothing is written through it
	if err := root.Chmod("pki", publicFolder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("letting the service read: %w", err)
	}
	if !l.enrols() && os.Geteuid() == 0 { // devices may have joined before
		if err := root.Lchown(strings.TrimPrefix(l.caKey(), l.state+"/"), 0, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("taking the authority's key back: %w", err)
		}
	}
	names := []string{"."}
	for _, path := range l.serviceFiles(l.enrols())[1:] {
		// With what lies beside a file under a longer name, such as the database's log.
		found, err := fs.Glob(root.FS(), strings.TrimPrefix(path, l.state+"/")+"*")
		if err != nil {
			return fmt.Errorf("handing over to the service: %w", err)
		}
		names = append(names, found...)
	}
	for _, name := range names {
		if err := give(root, name, to); err != nil {
			return fmt.Errorf("handing over to the service: %w", err)
		}
	}
	return nil
}

// give gives a file away, or a folder if it is one of the service's: whoever has taken that over can put those of root's in
// their places. A folder is opened first, so that the one that was looked at is the one that goes.
func give(root *os.Root, name string, to owner) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		// A link in the place of a folder would lead to what is given next.
		if folder, err := root.Lstat(filepath.Dir(name)); err != nil || !folder.IsDir() {
			return errors.Join(err, fmt.Errorf("%s is not a folder any more: the service may have been taken over", filepath.Dir(name)))
		}
		return root.Lchown(name, to.uid, to.gid)
	}
	folder, err := root.Open(name)
	if err != nil {
		return err
	}
	defer folder.Close() //nolint:errcheck // only looked at
	entries, err := folder.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if authority := strings.HasPrefix(entry.Name(), "ca") && strings.HasSuffix(entry.Name(), ".key"); name != "." && (entry.IsDir() || authority) {
			return fmt.Errorf("%s holds %s, which is root's alone: the service may have been taken over", name, entry.Name())
		}
	}
	return folder.Chown(to.uid, to.gid)
}

// serviceFiles are the state folder and what in it belongs to the service too.
func (l layout) serviceFiles(enrols bool) []string {
	files := []string{
		l.state, filepath.Dir(l.signKey()), l.signKey(), sequenceFile(l.signKey()), l.brokerKey(), l.journal(), l.stateDB(), l.stateLog(), l.clockFloor(), l.codes(), l.joined(), l.joinedRecipients(),
		l.decryptKey(), filepath.Join(filepath.Dir(l.signKey()), sharedPrefix),
	}
	if enrols {
		files = append(files, l.caKey())
	}
	return files
}

// enrols reports whether devices join the node, as far as its configuration can be read.
func (l layout) enrols() bool {
	cfg, err := readConfig(l.config)
	return err == nil && cfg.enrols()
}

// openNumbers opens the numbers of a signing key. Where root makes their file, it is the key's owner's, who has to go on with it.
func openNumbers(key string) (*sequence.Counter, error) {
	path := sequenceFile(key)
	made := !exists(path)
	numbers, err := sequence.Open(path)
	if err != nil || !made || os.Geteuid() != 0 {
		return numbers, err
	}
	if info, err := os.Lstat(key); err == nil { // otherwise it is elsewhere, and handOver knows whose
		if to, ok := info.Sys().(*syscall.Stat_t); ok {
			return numbers, os.Lchown(path, int(to.Uid), int(to.Gid))
		}
	}
	return numbers, nil
}

// becomeServiceUser makes `sudo pinseal run` the user that the service is, once there is one: as root it would leave files
// behind that the service cannot read, and need not be root for anything.
func (c *runCmd) becomeServiceUser() error {
	to, ok := serviceOwner()
	if c.Dir != "" || !ok {
		return nil
	}
	// Not the layout of --config, whose folder may be anybody's.
	l := layoutUnder("")
	if err := os.MkdirAll(l.run, 0o755); err != nil { //nolint:gosec // the control socket has its own mode
		return fmt.Errorf("making the folder of the control socket: %w", err)
	}
	if err := errors.Join(os.Chown(l.run, to.uid, to.gid), l.handOver(to)); err != nil {
		return err
	}
	err := errors.Join(syscall.Setgroups([]int{to.gid}), syscall.Setgid(to.gid), syscall.Setuid(to.uid))
	if err != nil {
		return fmt.Errorf("becoming the user %s: %w", serviceUser, err)
	}
	return nil
}

// giveToCaller makes a folder that root has just made, with all that is in it, the user's who called sudo: it is to be
// carried to another machine.
func giveToCaller(folder string) error {
	to, ok := callerOfSudo()
	if !ok {
		return nil
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return fmt.Errorf("giving the bundle to who called sudo: %w", err)
	}
	defer root.Close() //nolint:errcheck // nothing is written through it
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, root.Lchown(path, to.uid, to.gid))
	})
	if err != nil {
		return fmt.Errorf("giving the bundle to who called sudo: %w", err)
	}
	return nil
}

func callerOfSudo() (owner, bool) {
	uid, uidErr := strconv.Atoi(os.Getenv("SUDO_UID"))
	gid, gidErr := strconv.Atoi(os.Getenv("SUDO_GID"))
	return owner{uid, gid}, os.Geteuid() == 0 && uidErr == nil && gidErr == nil
}
