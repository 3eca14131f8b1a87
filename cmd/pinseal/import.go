package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pinseal/broker"
	"pinseal/broker/auth"
	"pinseal/internal/mosquitto"
	"pinseal/pki"
)

type importCmd struct {
	dirFlag
	Conf   string `arg:"" help:"mosquitto.conf." type:"existingfile"`
	Node   string `help:"Name of this node; default: that of the configuration there is, or the host name." placeholder:"NAME"`
	Chip   string `help:"GPIO chip: auto, sim, a label or a device." default:"auto"`
	Out    string `help:"Write this file; default: imported.toml beside pinseal.toml." type:"path" placeholder:"FILE"`
	DryRun bool   `help:"Write nothing, and print what would be written."`
}

// Run translates a configuration of mosquitto. What has no counterpart is listed on standard error.
func (c *importCmd) Run(std streams) error {
	nodeName, err := c.node()
	if err != nil {
		return err
	}
	lines, err := mosquitto.Read(c.Conf)
	if err != nil {
		return fmt.Errorf("reading mosquitto's configuration: %w", err)
	}
	i := &imported{Config: mosquitto.Translate(lines), from: c.Conf, node: nodeName, chip: c.Chip}
	i.out = orDefault(c.Out, filepath.Join(filepath.Dir(c.layout().config), "imported.toml"))
	i.resolve(filepath.Dir(c.Conf))
	i.checkFiles()
	for _, n := range i.Notes {
		fmt.Fprintf(std.err, "%s: %s\n", n.At, n.Text)
	}
	if len(i.Listeners) == 0 {
		return withHint(fmt.Errorf("no listener of %s can be taken over, nothing was written", c.Conf), "the lines above say why; docs/migrating.md has more")
	}
	text := i.text()
	if _, err := parseConfig([]byte(text)); err != nil {
		return fmt.Errorf("what was made of %s cannot be read: %w", c.Conf, err)
	}
	if c.DryRun {
		fmt.Fprint(std.out, text)
		return nil
	}
	return i.write(std, text, c.dirFlag)
}

// node is the name that the node has, or will have.
func (c *importCmd) node() (string, error) {
	if c.Node != "" {
		return c.Node, name(c.Node).check()
	}
	if cfg, err := readConfig(c.layout().config); err == nil {
		return string(cfg.Node), nil
	}
	return nodeName()
}

// imported is a configuration on its way.
type imported struct {
	*mosquitto.Config
	from, out  string
	node, chip string
}

// resolve makes paths absolute, which mosquitto takes from where it was started.
func (i *imported) resolve(dir string) {
	for _, path := range []*string{&i.TLS.CA, &i.TLS.Certificate, &i.TLS.Key, &i.TLS.CRL, &i.PasswordFile, &i.ACLFile} {
		if *path == "" {
			continue
		}
		if absolute, err := filepath.Abs(filepath.Join(dir, *path)); err == nil && !filepath.IsAbs(*path) {
			*path = absolute
		}
	}
}

// checkFiles notes what the node will not like about the files that stay where they are.
func (i *imported) checkFiles() {
	note := func(at string, err error) {
		if err != nil {
			i.Notes = append(i.Notes, mosquitto.Note{At: at, Text: "the node will not start with it: " + strings.TrimPrefix(err.Error(), at+":")})
		}
	}
	read := func(path string, parse func(string, []byte) error) {
		if path == "" {
			return
		}
		text, err := os.ReadFile(path)
		if err == nil {
			err = parse(path, text)
		}
		note(path, err)
	}
	read(i.PasswordFile, func(path string, text []byte) error {
		_, err := auth.ParsePasswordFile(path, text)
		return err
	})
	read(i.ACLFile, func(path string, text []byte) error {
		_, err := broker.ParseACLFile(path, text)
		return err
	})
	if i.TLS.Certificate != "" {
		files := pki.Files{Certificate: i.TLS.Certificate, Key: i.TLS.Key, CA: i.TLS.CA, CRL: i.TLS.CRL}
		if files.CA != "" {
			_, err := pki.LoadServer(files, 0, time.Now)
			note(i.TLS.Certificate, explainTLS(err))
		}
	}
}

// anonymous reports whether a listener lets in clients without a name.
func (i *imported) anonymous() bool {
	for _, l := range i.Listeners {
		if l.AllowAnonymous {
			return true
		}
	}
	return false
}

// openACL is the ACL file that allows what mosquitto allows without one; empty where it is not needed.
func (i *imported) openACL() string {
	if !i.Open || !i.anonymous() {
		return ""
	}
	return "# mosquitto had no acl_file: everybody may do everything, who has no name too.\npattern readwrite #\npattern read $SYS/#\n"
}

func (i *imported) openACLFile() string { return strings.TrimSuffix(i.out, ".toml") + ".acl" }

func (i *imported) write(std streams, text string, dir dirFlag) error {
	files := fileSet{{i.out, []byte(text), 0o644}}
	if acl := i.openACL(); acl != "" {
		files = append(files, newFile{i.openACLFile(), []byte(acl), 0o644})
	}
	if err := files.create(); err != nil {
		return withHint(err, "--out names another file, --dry-run only prints")
	}
	for _, f := range files {
		fmt.Fprintf(std.out, "wrote %s\n", f.path)
	}
	if !exists(dir.layout().signKey()) {
		fmt.Fprintf(std.out, "next: %s, which makes the node's keys\n", dir.command("init"))
	}
	fmt.Fprintf(std.out, "then: %s --config %s\n", dir.command("run"), shellWord(i.out))
	return nil
}
