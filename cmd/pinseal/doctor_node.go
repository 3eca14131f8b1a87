package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pinseal/gpio"
	"pinseal/internal/clock"
	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"
	"pinseal/signing/replay"
	"pinseal/systemd"
)

// nodeChecks looks at a node's files and its machine, and asks the running node.
type nodeChecks struct {
	layout  layout
	config  *config
	keyring *signing.Keyring
	running bool
	dir     dirFlag
	now     func() time.Time
}

func newNodeChecks(dir dirFlag, now func() time.Time) *nodeChecks {
	return &nodeChecks{layout: dir.layout(), dir: dir, now: now}
}

// command is what to type; the system's node is root's to change.
func (n *nodeChecks) command(words string) string {
	if n.dir.Dir == "" {
		return "sudo " + n.dir.command(words)
	}
	return n.dir.command(words)
}

func (n *nodeChecks) list() []check {
	return []check{
		{"configuration", n.configuration},
		{"keys", n.keys},
		{"clock", n.clock},
		{"certificate", n.certificate},
		{"authority", n.authority},
		{"names", n.names},
		{"signers", n.signers},
		{"rights", n.rights},
		{"logins", n.logins},
		{"node", n.node},
		{"replay state", n.replayState},
		{"line", n.lines},
		{"sensors", n.sensors},
		{"port", n.port},
		{"joining", n.joining},
		{"devices", n.devices},
		{"operator", n.operator},
	}
}

func (n *nodeChecks) configuration(context.Context) (string, error) {
	cfg, err := readConfig(n.layout.config)
	if err != nil {
		return "", err
	}
	n.config, n.layout = cfg, cfg.place(n.layout)
	if cfg.denied, err = readDenied(n.layout); err != nil {
		return "", err
	}
	return n.layout.config, nil
}

// logins reads what clients without a certificate are judged by, and the rules in a file of their own.
func (n *nodeChecks) logins(context.Context) (string, error) {
	if n.elsewhere() {
		return brokerElsewhere, nil
	}
	if _, err := n.config.brokerPolicy(); err != nil {
		return "", err
	}
	if _, err := n.config.readLogins(); err != nil {
		return "", err
	}
	if !n.config.takesLogins() {
		return "by certificate alone", nil
	}
	return "by certificate, password or token, as the listeners say", nil
}

// keys looks whether every private key is there, readable for the node and for nobody else.
func (n *nodeChecks) keys(context.Context) (string, error) {
	paths := []string{n.signKey()}
	if n.elsewhere() {
		paths = append(paths, n.clientKey())
	} else {
		paths = append(paths, keyForCommands(brokerCredential, orDefault(n.config.TLS.Key, n.layout.brokerKey())))
	}
	if exists(n.layout.caKey()) {
		paths = append(paths, n.layout.caKey())
	}
	secrets := n.layout.encryption()
	if exists(secrets.own) {
		paths = append(paths, secrets.own)
	}
	for _, shared := range secrets.sharedNames() {
		paths = append(paths, secrets.sharedKey(shared))
	}
	for _, path := range paths {
		if err := checkPrivate(path); err != nil {
			return "", err
		}
	}
	if _, err := readSignKey(n.signKey()); err != nil {
		return "", err
	}
	return fmt.Sprintf("private keys: %d, readable by their owner alone", len(paths)), nil
}

func (n *nodeChecks) signKey() string {
	return keyForCommands(signCredential, orDefault(n.config.Agent.SignKey, n.layout.signKey()))
}

// checkPrivate wants a regular file that its owner alone can read, and an owner who is the one that asks.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return withHint(fmt.Errorf("%s is missing", path), "restore it from a backup; without one, make the node anew: pinseal init")
	}
	if err != nil {
		return withHint(err, "run as the user that the node runs as, or as root: sudo pinseal doctor")
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return withHint(fmt.Errorf("%s can be read by others (mode %#o)", path, mode.Perm()), "sudo chmod 600 %s; if others have read it, replace the key", path)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() != 0 && int(owner.Uid) != os.Geteuid() {
		return withHint(fmt.Errorf("%s belongs to user %d, not to you (%d)", path, owner.Uid, os.Geteuid()), "sudo chown $USER %s, or run as its owner", path)
	}
	return nil
}

func (n *nodeChecks) clock(context.Context) (string, error) {
	c, err := clock.New(clock.Config{
		Trust: clock.Trust(n.config.Clock.Trust), FloorPath: n.layout.clockFloor(), BuildTime: buildTime(), Synchronized: systemd.ClockSynchronized, Now: n.now,
	})
	if err != nil {
		return "", withHint(err, "remove the file if it is damaged: the next start makes it anew")
	}
	floor := c.FloorNow() // first: it is the present, unless that is below the floor
	now := c.Now()
	switch {
	case now.Before(floor):
		return "", withHint(fmt.Errorf("the clock says %s, but it was %s before", now.Format(time.RFC3339), floor.Format(time.RFC3339)),
			"timedatectl set-ntp true; if the clock was ahead by mistake, remove %s", n.layout.clockFloor())
	case n.config.Clock.Trust == "auto" && !c.Trusted():
		return "", noticef("not synchronised: commands need the node's challenge, which pinseal pub fetches; timedatectl set-ntp true")
	case !c.Trusted():
		return "", noticef("never trusted, as clock.trust says: commands need the node's challenge, which pinseal pub fetches")
	}
	return fmt.Sprintf("%s, trusted (%s)", now.Format(time.RFC3339), n.config.Clock.Trust), nil
}

func (n *nodeChecks) certificateFiles() pki.Files {
	return pki.Files{
		Certificate: orDefault(n.config.TLS.Certificate, n.layout.brokerCert()),
		Key:         keyForCommands(brokerCredential, orDefault(n.config.TLS.Key, n.layout.brokerKey())),
		CA:          orDefault(n.config.TLS.CA, n.layout.caCert()),
		CRL:         n.config.TLS.CRL,
		Denied:      n.layout.denied(),
	}
}

func (n *nodeChecks) certificate(context.Context) (string, error) {
	if n.elsewhere() {
		return n.clientCertificate()
	}
	files := n.certificateFiles()
	server, err := pki.LoadServer(files, 0, n.now)
	if err == nil {
		err = server.CheckLists()
	}
	if err != nil {
		return "", explainTLS(err)
	}
	cure := n.command("ca renew")
	if n.config.TLS.Certificate != "" {
		cure = "whoever issued it renews it"
	}
	return validity(files.Certificate, n.now(), cure)
}

// names compares the certificate with what this machine is called now: addresses change.
func (n *nodeChecks) names(context.Context) (string, error) {
	if n.elsewhere() {
		return brokerElsewhere, nil
	}
	certificate, err := readCertificate(n.certificateFiles().Certificate)
	if err != nil {
		return "", err
	}
	now, err := pki.LocalNames()
	if err != nil {
		return "", err
	}
	missing := slices.DeleteFunc(now, func(name string) bool { return certificate.VerifyHostname(name) == nil })
	if len(missing) > 0 {
		return "", noticef("not in the certificate: %s; clients that use such a name are refused", strings.Join(missing, ", "))
	}
	return "every name and address of this machine is in the certificate", nil
}

func (n *nodeChecks) signers(context.Context) (string, error) {
	keyring, err := readKeyring(n.layout)
	if err != nil {
		return "", withHint(err, "a file in %s is damaged: restore it, or remove it and add the signer again", n.layout.signers)
	}
	n.keyring = keyring
	if _, err := n.config.agentPolicy(n.layout); err != nil {
		return "", err
	}
	if node := string(n.config.Outbox.Node); node != "" && !knows(keyring, node) {
		return "", withHint(fmt.Errorf("no key of %s in %s: what it acknowledges cannot be believed, and telemetry waits", node, n.layout.signers),
			"pinseal signer add %s FILE; a bundle has it as signers/%s.pem", node, node)
	}
	return fmt.Sprintf("%s, trusted keys: %d", n.layout.signers, len(keyring.Signers())), nil
}

// rights looks for permits that can never be used, and outputs that nobody may command.
func (n *nodeChecks) rights(context.Context) (string, error) {
	known := map[string]bool{}
	for _, s := range n.keyring.Signers() {
		known[s.Name] = true
	}
	codes, err := enrol.OpenCodes(n.layout.codes())
	if err != nil {
		return "", withHint(err, "remove the file: whoever is about to join needs another code then")
	}
	commanded := map[name]bool{}
	for _, p := range n.config.Permits {
		switch {
		case known[string(p.Signer)]:
		case n.config.denies(string(p.Signer)): // its rights are there for when the name is admitted again
			continue
		case codes.Expects(string(p.Signer), n.now()):
			return "", noticef("%s may command %s once it has joined, and has not yet", p.Signer, p.Output)
		default:
			return "", withHint(fmt.Errorf("a [[permit]] names the signer %q, of whom there is no key", p.Signer),
				"pinseal signer add %s FILE, or let it join: %s; or mend the name in %s", p.Signer, n.command("device add "+string(p.Signer)), n.layout.config)
		}
		commanded[p.Output] = true
	}
	for _, o := range n.config.Outputs {
		if !commanded[o.Name] {
			return "", noticef("nobody is permitted to command the output %s", o.Name)
		}
	}
	return fmt.Sprintf("permits: %d", len(n.config.Permits)), nil
}

func (n *nodeChecks) node(context.Context) (string, error) {
	if n.running = isRunning(n.layout); !n.running {
		return "", noticef("not running; checking what it would find")
	}
	return "running", nil
}

func (n *nodeChecks) replayState(context.Context) (string, error) {
	switch {
	case n.running:
		return "held by the running node", nil
	case !exists(n.layout.stateDB()):
		return "", noticef("%s is not there yet; the first start makes it", n.layout.stateDB())
	}
	store, err := replay.Open(n.layout.stateDB(), replay.Options{})
	if err != nil {
		return "", withHint(err, "move it away: the node then refuses every command sealed before its next start")
	}
	return n.layout.stateDB(), store.Close()
}

// lines claims nothing: who holds a line is told by the chip.
func (n *nodeChecks) lines(context.Context) (found string, err error) {
	if len(n.config.Outputs)+len(n.config.Inputs) == 0 {
		return "none is used", nil
	}
	chip, err := openChip(n.config.GPIO.Chip, n.layout)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	lines, err := chip.Lines()
	if err != nil {
		return "", err
	}
	held, err := n.inputLines(lines)
	if err != nil {
		return "", err
	}
	for _, o := range n.config.Outputs {
		if o.PWM.hardware() { // who holds it can be told only by taking it
			held = append(held, fmt.Sprintf("%s on PWM %s", o.Name, o.PWM))
			continue
		}
		line, err := gpio.FindLine(lines, o.Line)
		if err != nil {
			return "", withHint(fmt.Errorf("output %s: %w", o.Name, err), "pinseal gpio list shows the lines of this machine")
		}
		if line.Used && !n.running {
			return "", withHint(fmt.Errorf("output %s: line %s is held by %s", o.Name, o.Line, orDefault(line.Consumer, "somebody")), "stop that program, or remove the device-tree overlay behind it")
		}
		held = append(held, fmt.Sprintf("%s on %s", o.Name, line.Name))
	}
	return strings.Join(held, ", "), nil
}

func (n *nodeChecks) port(ctx context.Context) (string, error) {
	if n.config.Monitor.Address != "" && !n.running {
		socket, err := n.config.Monitor.listen()
		if err != nil {
			return "", err
		}
		if err := socket.Close(); err != nil {
			return "", err
		}
	}
	if n.elsewhere() {
		return n.otherBroker(ctx)
	}
	var addresses []string
	for _, l := range n.config.Listeners {
		addresses = append(addresses, string(l.Address))
		if n.running {
			continue
		}
		socket, err := l.listen()
		if err != nil {
			return "", withHint(fmt.Errorf("listening on %s: %w", l.Address, err), "see who has the port: ss -ltnp")
		}
		if err := socket.Close(); err != nil {
			return "", err
		}
	}
	return strings.Join(addresses, ", "), nil
}

// operator plays the client's half with the first bundle that init left here.
func (n *nodeChecks) operator(ctx context.Context) (string, error) {
	if !n.running {
		return "", noticef("the node is not running, so nobody can be asked")
	}
	dir := n.someBundle()
	if dir == "" {
		return "", noticef("no bundle in %s to try with", n.layout.bundles())
	}
	settings, err := connectFlags{Bundle: dir}.client(streams{err: io.Discard, now: n.now})
	if err != nil {
		return "", err
	}
	checks := newClientChecks(settings, "")
	for _, c := range checks.list() {
		if _, err := c.run(ctx); err != nil {
			return "", errors.Join(fmt.Errorf("%s, %s: %w", dir, c.name, err), checks.close())
		}
	}
	return dir + ": " + checks.heard, checks.close()
}

// someBundle is the first that can be tried: with keys, which pinseal flash gives to the operator only, and not revoked.
func (n *nodeChecks) someBundle() string {
	certificates, err := filesIn(n.layout.bundles(), bundle{dir: "*"}.clientCert())
	if err != nil {
		return ""
	}
	for _, path := range certificates {
		if dir := filepath.Dir(path); !n.config.denies(filepath.Base(dir)) {
			return dir
		}
	}
	return ""
}
