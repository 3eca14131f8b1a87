package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pinseal/internal/flash"
	"pinseal/systemd"
)

type flashCmd struct {
	Card string `arg:"" optional:"" help:"The card: a block device or an image file; default: the one removable disk with Raspberry Pi OS on it."`

	Boot     string   `help:"Where the card's boot partition is mounted, instead of CARD." type:"existingdir" placeholder:"DIR"`
	Root     string   `help:"Where its root partition is mounted." type:"existingdir" placeholder:"DIR"`
	Way      string   `help:"How it gets there: auto, files (into the root file system), cloud-init (Trixie) or firstrun (Bookworm)." enum:"auto,files,cloud-init,firstrun" default:"auto"`
	Binary   string   `help:"Put this program on the card instead of this one." type:"existingfile" placeholder:"FILE"`
	Arch     string   `help:"Architecture of the card's system: arm64 or armhf; default: as its root file system has it." enum:",arm64,armhf" default:"" placeholder:"ARCH"`
	Out      string   `help:"New folder for the operator's bundle; default: operator-HOSTNAME." type:"path" placeholder:"FOLDER"`
	Hostname string   `help:"Name of the new machine; default: the one given in Raspberry Pi Imager, or raspiflow." placeholder:"NAME"`
	Node     string   `help:"Name of the node; default: the host name." placeholder:"NAME"`
	Chip     string   `help:"GPIO chip: auto, sim, a label or a device." default:"auto"`
	Line     string   `help:"Line of the first output." default:"GPIO17"`
	Output   string   `help:"Name of the first output." default:"led"`
	Topic    string   `help:"Topic that commands the first output." default:"ledStatus"`
	Listen   string   `help:"Address of the broker." default:":8883" placeholder:"HOST:PORT"`
	Enrol    string   `help:"Address where devices join, or off; default: :8443, off where the broker is for this machine alone." placeholder:"HOST:PORT"`
	Host     []string `help:"One more name or address for the broker's certificate; may be repeated." placeholder:"NAME"`
	Operator string   `help:"Name of the first operator." default:"operator"`
	DryRun   bool     `help:"Only list every file, with mode and size." short:"n"`
	Again    bool     `help:"Prepare a card that was prepared before; its keys are replaced."`
	Force    string   `help:"Take this block device although it is in use or not removable; repeats its name." placeholder:"DEVICE"`
}

// preparation is everything that is going to be written.
type preparation struct {
	hostname string
	way      flash.Way
	payload  []flash.File // what the Pi will have
	changes  []flash.Change
	bundle   fileSet // the operator's
	plan     *plan
}

// Run prepares the card, or leaves it as it was.
func (c *flashCmd) Run(ctx context.Context, std streams) (err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	card, err := c.openCard(ctx, std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, card.Close()) }()
	if err := card.Check(); err != nil {
		return explainFlash(err)
	}
	p, err := c.prepare(card, time.Now())
	if err != nil {
		return explainFlash(err)
	}
	if c.DryRun {
		return p.list(std.out)
	}
	if err := p.write(ctx, std); err != nil {
		return err
	}
	return p.tell(std.out, c.out(p.hostname))
}

// explainFlash adds what to do about a card that cannot be prepared.
func explainFlash(err error) error {
	switch {
	case errors.Is(err, flash.ErrNotRaspberryPiOS):
		return withHint(err, "write Raspberry Pi OS to the card with Raspberry Pi Imager first")
	case errors.Is(err, flash.ErrPrepared):
		return withHint(err, "write Raspberry Pi OS to it once more, or, if it has not been booted since, --again replaces everything with new keys")
	case errors.Is(err, flash.ErrCannot):
		return withHint(err, "as root, with --way files, pinseal writes into the root file system and needs nothing of the boot partition")
	default:
		return err
	}
}

func (c *flashCmd) out(hostname string) string { return orDefault(c.Out, "operator-"+hostname) }

func (c *flashCmd) prepare(card *openedCard, now time.Time) (*preparation, error) {
	hostname, err := c.hostname(card)
	if err != nil {
		return nil, err
	}
	p := &preparation{hostname: hostname, way: flash.Way(c.Way)}
	if c.Way == "auto" {
		p.way = card.Way()
	}
	program, err := c.program(card)
	if err != nil {
		return nil, err
	}
	if exists(c.out(hostname)) {
		return nil, withHint(fmt.Errorf("%s exists already, nothing was changed", c.out(hostname)), "--out FOLDER names another folder for the operator's bundle")
	}
	if p.plan, err = c.plan(hostname); err != nil {
		return nil, err
	}
	if err := p.fill(program, c.out(hostname), now); err != nil {
		return nil, err
	}
	if !c.Again {
		if err := card.Prepared(p.payload); err != nil {
			return nil, err
		}
	}
	p.changes, err = card.Plan(p.way, p.payload, hostname, now)
	return p, err
}

// hostname is one name for the machine, the node and its certificate. Two would be found out only on the Pi.
func (c *flashCmd) hostname(card *openedCard) (string, error) {
	given := card.Host()
	if given != "" && c.Hostname != "" && given != c.Hostname {
		return "", usageError(withHint(fmt.Errorf("the card names the machine %s, not %s", given, c.Hostname), "leave --hostname away, or give the other name in Raspberry Pi Imager"))
	}
	hostname := orDefault(orDefault(c.Hostname, given), "raspiflow")
	if !regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`).MatchString(hostname) {
		return "", usagef("%q cannot be a host name: letters, digits and -, at most 63", hostname)
	}
	return hostname, nil
}

// program is the one to put on the card, which must be for its architecture.
func (c *flashCmd) program(card *openedCard) ([]byte, error) {
	program, err := (&installCmd{Binary: c.Binary}).program()
	if err != nil {
		return nil, err
	}
	is, err := archOf(program)
	if err != nil {
		return nil, err
	}
	wanted, err := c.arch(card)
	if err != nil {
		return nil, err
	}
	if wanted == "" && c.Binary == "" {
		return nil, usageError(withHint(errors.New("for which architecture is the system on the card?"), "--arch arm64 or --arch armhf (32 bits); only its root file system would tell"))
	}
	if wanted != "" && wanted != is {
		goarm := ""
		if wanted == "arm" {
			goarm = " GOARM=6"
		}
		return nil, withHint(fmt.Errorf("the card's system is for %s, this program for %s", wanted, is), "--binary FILE puts another one on the card; make build GOARCH=%s%s makes it", wanted, goarm)
	}
	return program, nil
}

// arch is the GOARCH of the card's system, or nothing.
func (c *flashCmd) arch(card *openedCard) (string, error) {
	switch c.Arch {
	case "armhf":
		return "arm", nil
	case "arm64":
		return "arm64", nil
	}
	program, err := card.Program()
	if err != nil || program == nil {
		return "", err
	}
	return archOf(program)
}

// plan is init's, for another machine.
func (c *flashCmd) plan(hostname string) (*plan, error) {
	p := &plan{
		layout: layoutUnder(""), node: orDefault(c.Node, hostname), chip: c.Chip, line: c.Line, output: c.Output, topic: c.Topic,
		listen: c.Listen, enrol: enrolAddress(c.Enrol, c.Listen), operator: c.Operator,
		names: append([]string{localName(hostname), hostname, "localhost", "127.0.0.1", "::1"}, c.Host...),
	}
	return p, p.check(hostname)
}

// firstBootUnit makes the service's user and hands its files over, which only the Pi itself can do; then it removes itself.
const firstBootUnit = `# Written by pinseal flash.
[Unit]
Description=first boot of pinseal: its user, and the owner of its files
Before=pinseal.service

[Service]
Type=oneshot
ExecStart=/usr/bin/systemd-sysusers %s
ExecStart=/bin/chown %s:%s %s
ExecStart=/bin/rm -f %s %s
`

// Units that an administrator, or pinseal flash, adds.
const (
	unitFolder     = "/etc/systemd/system"
	firstBootName  = "pinseal-first-boot.service"
	firstBootPath  = unitFolder + "/" + firstBootName
	firstBootWants = unitFolder + "/pinseal.service.requires/" + firstBootName
)

// fill makes the keys and puts together what the Pi and the operator will have.
func (p *preparation) fill(program []byte, out string, now time.Time) error {
	installed, err := newInstallPlan(program, "", "/usr/local")
	if err != nil {
		return err
	}
	operator, node, err := p.plan.files(out, now)
	if err != nil {
		return err
	}
	p.bundle = operator
	l := p.plan.layout
	p.folders(l)
	for _, f := range installed.files {
		p.add(f.path, f.perm, f.data)
	}
	for _, f := range append(node, p.trace(l, operator)...) {
		p.add(f.path, f.perm, f.data)
	}
	// Until it hears the time, the Pi believes at least that of its preparation.
	p.add(l.clockFloor(), 0o600, []byte(now.UTC().Format(time.RFC3339)+"\n"))
	p.service(l, installed.sysusers())
	return nil
}

func (p *preparation) add(path string, perm os.FileMode, data []byte) {
	p.payload = append(p.payload, flash.File{Path: strings.TrimPrefix(path, "/"), Mode: perm, Data: data})
}

// folders are init's and install's: what holds no secret may be read by everybody.
func (p *preparation) folders(l layout) {
	public := []string{filepath.Dir(l.config), l.signers, l.recipients()}
	private := []string{l.state, filepath.Dir(l.signKey()), l.bundles(), p.plan.operatorBundle()}
	for _, dir := range public {
		p.add(dir, os.ModeDir|0o755, nil)
	}
	for _, dir := range private {
		p.add(dir, os.ModeDir|0o700, nil)
	}
	p.add(filepath.Dir(l.caCert()), os.ModeDir|0o755, nil)
}

// trace is what the node keeps of the operator's bundle: how it is reached, for the bundles of devices
// to come. The operator's keys are never on the card.
func (p *preparation) trace(l layout, operator fileSet) (kept fileSet) {
	for _, f := range operator {
		if filepath.Base(f.path) == "client.toml" {
			kept = append(kept, newFile{filepath.Join(l.bundle(p.plan.operator), "client.toml"), f.data, f.perm})
		}
	}
	return kept
}

// service enables the service and prepares its user.
func (p *preparation) service(l layout, sysusers string) {
	var own []string
	for _, path := range l.serviceFiles(p.plan.enrol != "") {
		for _, f := range p.payload {
			if "/"+f.Path == path {
				own = append(own, path)
			}
		}
	}
	unit := fmt.Sprintf(firstBootUnit, sysusers, serviceUser, serviceGroup, strings.Join(own, " "), firstBootWants, firstBootPath)
	p.add(firstBootPath, 0o644, []byte(unit))
	p.link(firstBootWants, "../"+firstBootName)
	p.link(unitFolder+"/multi-user.target.wants/"+systemd.ServiceUnit, "/usr/local/lib/systemd/system/"+systemd.ServiceUnit)
}

func (p *preparation) link(path, to string) {
	p.payload = append(p.payload, flash.File{Path: strings.TrimPrefix(path, "/"), Mode: 0o777, Link: to})
}

// write writes the operator's bundle and the card: both or none.
func (p *preparation) write(ctx context.Context, std streams) error {
	if err := p.bundle.create(); err != nil {
		return err
	}
	show := newProgress(std.err, 2*len(p.changes))
	err := flash.Apply(ctx, p.changes, func(verb string, f flash.Change) { show.step(verb + " " + f.Path) })
	show.end()
	if err != nil {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(p.bundle[0].path)))
		return withHint(err, "if the card is not what it was, write Raspberry Pi OS to it again and start over")
	}
	return giveToCaller(filepath.Dir(p.bundle[0].path))
}

func (p *preparation) tell(w io.Writer, out string) error {
	_, err := fmt.Fprintf(w, `the card is ready: %s comes up sealed on its first boot (way: %s)
  operator       %s
next: boot the Raspberry Pi with it
then: pinseal pub --bundle %s -h %s -t %s -m 1
`, p.hostname, p.way, out, shellWord(out), p.plan.host, shellWord(p.plan.topic))
	return err
}

// list shows what would be written.
func (p *preparation) list(w io.Writer) error {
	t := newTable(w)
	t.row("PARTITION", "FILE", "MODE", "SIZE", "")
	for _, c := range p.changes {
		note := ""
		if c.Replaces {
			note = "replaces what is there"
		}
		listFile(t, c.Partition, c.File, note)
	}
	if p.way != flash.Files {
		for _, f := range p.payload {
			listFile(t, "root", f, "on first boot")
		}
	}
	for _, f := range p.bundle {
		t.row("here", f.path, fmt.Sprintf("%04o", f.perm), strconv.Itoa(len(f.data)), "the operator's bundle")
	}
	return t.flush()
}

func listFile(t *table, partition string, f flash.File, note string) {
	path, size := "/"+f.Path, strconv.Itoa(len(f.Data))
	switch {
	case f.Link != "":
		path, size = path+" -> "+f.Link, ""
	case f.Mode.IsDir():
		path, size = path+"/", ""
	}
	t.row(partition, path, fmt.Sprintf("%04o", f.Mode.Perm()), size, note)
}

// progress is one line that changes, on a terminal, and nothing elsewhere.
type progress struct {
	w          io.Writer // nil: not a terminal
	done, of   int
	lineLength int
}

func newProgress(w io.Writer, of int) *progress {
	p := &progress{of: of}
	if _, ok := terminal(w); ok {
		p.w = w
	}
	return p
}

func (p *progress) step(text string) {
	if p.w == nil {
		return
	}
	line := fmt.Sprintf("%3d%% %s", 100*p.done/max(p.of, 1), text)
	p.done++
	p.show(line)
}

func (p *progress) end() {
	if p.w != nil {
		p.show("")
	}
}

// show writes a line over the last one.
func (p *progress) show(line string) {
	padding := bytes.Repeat([]byte(" "), max(0, p.lineLength-len(line)))
	fmt.Fprintf(p.w, "\r%s%s\r", line, padding)
	p.lineLength = len(line)
}
