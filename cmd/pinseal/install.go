package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"pinseal/internal/atomicfile"
	"pinseal/systemd"
)

type installCmd struct {
	Root      string `help:"Install below this folder, for packages and images; then no command is run." type:"path" placeholder:"DIR"`
	Prefix    string `help:"Where it goes: /usr in a package, /usr/local otherwise." default:"/usr/local" placeholder:"DIR"`
	Binary    string `help:"Install this program instead of this one, such as one for another board." type:"existingfile" placeholder:"FILE"`
	DryRun    bool   `help:"Only say which files and commands it would be." short:"n"`
	Uninstall bool   `help:"Remove what was installed; configuration, keys and changed files stay."`
}

// installPlan is what makes a machine run pinseal as a service.
type installPlan struct {
	root  string // empty: this machine
	files []installFile
}

// installFile is a file of the plan.
type installFile struct {
	path string // where it is once root is the root
	data []byte
	perm os.FileMode
}

// newInstallPlan plans for a program, given as its whole file. Root "" is this machine.
func newInstallPlan(program []byte, root, prefix string) (*installPlan, error) {
	arch, err := archOf(program)
	if err != nil {
		return nil, err
	}
	options := systemd.Options{Prefix: prefix, Arch: arch}
	p := &installPlan{root: root, files: []installFile{{filepath.Join(options.Bin(), "pinseal"), program, 0o755}}}
	for _, f := range systemd.Files(options) {
		p.files = append(p.files, installFile{f.Path, f.Data, 0o644})
	}
	return p, nil
}

// archOf is the GOARCH of a program, which tells units for 32-bit ARM from others.
func archOf(program []byte) (string, error) {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return "", withHint(errors.New("the program to install is none for Linux"), "--binary FILE names a pinseal that make build has made")
	}
	switch file.Machine {
	case elf.EM_ARM:
		return "arm", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	case elf.EM_X86_64:
		return "amd64", nil
	default:
		return "", fmt.Errorf("the program to install is for %v, not for a machine that pinseal runs on", file.Machine)
	}
}

// Run installs or uninstalls; done twice it changes nothing the second time.
func (c *installCmd) Run(ctx context.Context, std streams) error {
	if !filepath.IsAbs(c.Prefix) {
		return usagef("--prefix must be absolute, not %q", c.Prefix)
	}
	program, err := c.program()
	if err != nil {
		return err
	}
	p, err := newInstallPlan(program, c.Root, c.Prefix)
	if err != nil {
		return err
	}
	if c.Root == "" && !c.DryRun && !exists("/run/systemd/system") {
		return withHint(errors.New("this machine does not run systemd"), "pinseal run does without; --root DIR installs into a package or an image")
	}
	installer := &installer{plan: p, std: std, dryRun: c.DryRun}
	if c.Uninstall {
		return installer.uninstall(ctx)
	}
	return installer.install(ctx)
}

func (c *installCmd) program() ([]byte, error) {
	path := c.Binary
	if path == "" {
		var err error
		if path, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("finding this program: %w", err)
		}
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the program: %w", err)
	}
	return program, nil
}

// installer carries a plan out, or only says what it would do; it says both with the same words.
type installer struct {
	plan   *installPlan
	std    streams
	dryRun bool
}

func (i *installer) say(verb, what string) {
	fmt.Fprintf(i.std.out, "%-9s %s\n", verb, what)
}

func (i *installer) install(ctx context.Context) error {
	for _, f := range i.plan.files {
		if err := i.place(f); err != nil {
			return err
		}
	}
	if i.plan.root != "" {
		return nil
	}
	commands := i.plan.commands()
	for _, command := range commands {
		if err := i.run(ctx, command); err != nil {
			return err
		}
	}
	return i.start(ctx)
}

// commands make the system take notice of the files.
func (p *installPlan) commands() [][]string {
	return [][]string{
		{"systemd-sysusers", p.sysusers()},
		{"udevadm", "control", "--reload"},
		{"udevadm", "trigger", "--subsystem-match=gpio"},
		{"systemctl", "daemon-reload"},
		{"systemctl", "enable", systemd.ServiceUnit},
	}
}

func (p *installPlan) sysusers() string {
	at := slices.IndexFunc(p.files, func(f installFile) bool { return strings.Contains(f.path, "/sysusers.d/") })
	return p.files[at].path
}

// start starts the service, or says how it will be: before init there is nothing to start.
func (i *installer) start(ctx context.Context) error {
	l := layoutUnder("")
	if !exists(l.config) {
		fmt.Fprintln(i.std.out, "next: sudo pinseal init && sudo systemctl start pinseal")
		return nil
	}
	if err := i.own(l); err != nil {
		return err
	}
	return i.run(ctx, []string{"systemctl", "restart", systemd.ServiceUnit})
}

// place writes a file unless it is there already. A file that is there and different is kept beside the new one, and named.
func (i *installer) place(f installFile) error {
	path := i.plan.path(f)
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		i.say("create", path)
	case err != nil:
		return fmt.Errorf("reading what is installed: %w", err)
	case bytes.Equal(old, f.data):
		i.say("keep", path)
		return nil
	case f.perm&0o100 != 0: // another version of the program is no loss
		i.say("replace", path)
	default:
		i.say("replace", path+" (it was different; that is now "+path+".old)")
		if !i.dryRun {
			if err := os.Rename(path, path+".old"); err != nil {
				return fmt.Errorf("keeping the changed file: %w", err)
			}
		}
	}
	if i.dryRun {
		return nil
	}
	if err := makePublicFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return atomicfile.Write(path, f.data, f.perm)
}

func (p *installPlan) path(f installFile) string { return filepath.Join(p.root, f.path) }

// makePublicFolder makes a folder and its parents for everybody to read, whatever the umask.
func makePublicFolder(dir string) error {
	if exists(dir) {
		return nil
	}
	if err := makePublicFolder(filepath.Dir(dir)); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o755) //nolint:gosec // units and programs are no secret
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // as above
	}
	return withHint(err, "installing needs root: sudo pinseal install")
}

func (i *installer) run(ctx context.Context, command []string) error {
	i.say("run", strings.Join(command, " "))
	if i.dryRun {
		return nil
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // one of the plan's own
	cmd.Stdout, cmd.Stderr = i.std.out, i.std.err
	if err := cmd.Run(); err != nil {
		return withHint(fmt.Errorf("%s: %w", strings.Join(command, " "), err), "installing needs root: sudo pinseal install")
	}
	return nil
}

// uninstall removes the files that are as they were installed; the user, the configuration and the keys stay.
func (i *installer) uninstall(ctx context.Context) error {
	if i.plan.root == "" && i.plan.installed() {
		for _, command := range [][]string{
			{"systemctl", "disable", "--now", systemd.SocketUnit, systemd.ServiceUnit},
			{"systemctl", "stop", systemd.TimerUnit},
		} {
			if err := i.run(ctx, command); err != nil {
				return err
			}
		}
	}
	for _, f := range i.plan.files {
		if err := i.remove(f); err != nil {
			return err
		}
	}
	if i.plan.root != "" {
		return nil
	}
	return i.run(ctx, []string{"systemctl", "daemon-reload"})
}

// installed says whether the service is there: without it there is nothing to stop.
func (p *installPlan) installed() bool {
	return slices.ContainsFunc(p.files, func(f installFile) bool {
		return filepath.Base(f.path) == systemd.ServiceUnit && exists(p.path(f))
	})
}

func (i *installer) remove(f installFile) error {
	path := i.plan.path(f)
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("reading what is installed: %w", err)
	case f.perm&0o100 == 0 && !bytes.Equal(old, f.data):
		i.say("keep", path+" (it was changed)")
		return nil
	}
	i.say("remove", path)
	if i.dryRun {
		return nil
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("uninstalling: %w", err)
	}
	return nil
}

// own hands what init and run made as root over to the service's user.
func (i *installer) own(l layout) error {
	i.say("hand over", l.state+" to "+serviceUser)
	if i.dryRun {
		return nil
	}
	to, ok := serviceOwner()
	if !ok {
		return fmt.Errorf("systemd-sysusers made no user %s with a group %s", serviceUser, serviceGroup)
	}
	return l.handOver(to)
}
