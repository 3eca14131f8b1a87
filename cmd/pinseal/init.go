package main

import (
	_ "embed"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pinseal/agent"
	"pinseal/pki"
	"pinseal/signing"
	"pinseal/signing/encryption"
)

type initCmd struct {
	dirFlag
	Node     string   `help:"Name of this node; default: the host name." placeholder:"NAME"`
	Chip     string   `help:"GPIO chip: auto, sim, a label or a device." default:"auto"`
	Line     string   `help:"Line of the first output." default:"GPIO17"`
	Output   string   `help:"Name of the first output." default:"led"`
	Topic    string   `help:"Topic that commands the first output." default:"ledStatus"`
	Listen   string   `help:"Address of the broker." default:":8883" placeholder:"HOST:PORT"`
	Enrol    string   `help:"Address where devices join, or off; default: :8443, off where the broker is for this machine alone." placeholder:"HOST:PORT"`
	Host     []string `help:"One more name or address for the broker's certificate; may be repeated." placeholder:"NAME"`
	Operator string   `help:"Name of the first operator." default:"operator"`

	Authority string `help:"Where the root of trust is: here, elsewhere, or the file that pinseal ca sign has written there." default:"here" placeholder:"here|elsewhere|FILE"`
}

// plan is what init is going to make.
type plan struct {
	layout   layout
	node     string
	chip     string
	line     string
	output   string
	topic    string
	host     string // where clients on this network find the broker
	listen   string
	enrol    string // empty: devices cannot join
	port     uint16
	names    []string // of the broker's certificate
	operator string

	trustClock bool // whatever the chip

	authority *pki.Authority // nil: make one
}

// Run makes the node's files; it overwrites nothing and leaves nothing half-made.
func (c *initCmd) Run(std streams) error {
	p, err := c.plan()
	if err != nil {
		return err
	}
	if exists(p.layout.config) {
		return withHint(fmt.Errorf("%s exists already, nothing was changed", p.layout.config), "start the node with: %s", c.command("run"))
	}
	switch c.Authority {
	case "here":
	case "elsewhere":
		return c.askForAuthority(p, std)
	default:
		if p.authority, err = p.takeAuthority(c.Authority); err != nil {
			return err
		}
	}
	if err := p.write(std.clock()()); err != nil {
		return err
	}
	if err := c.share(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "node %s is ready to run\n", p.node)
	fmt.Fprintf(std.out, "  configuration  %s\n", p.layout.config)
	fmt.Fprintf(std.out, "  operator       %s\n", p.operatorBundle())
	sudo := ""
	if os.Getenv("SUDO_UID") != "" { // what was made is root's
		sudo = "sudo "
	}
	fmt.Fprintf(std.out, "next: %s%s\n", sudo, c.next())
	fmt.Fprintf(std.out, "then: %spinseal pub --bundle %s -t %s -m 1\n", sudo, shellWord(p.operatorBundle()), shellWord(p.topic))
	return nil
}

// next is how the node is started: by systemd where its user says that it is installed as a service.
func (c *initCmd) next() string {
	if _, installed := serviceOwner(); installed && c.Dir == "" {
		return "systemctl start pinseal"
	}
	return c.command("run")
}

func (c *initCmd) plan() (*plan, error) {
	names, err := pki.LocalNames()
	if err != nil {
		return nil, err
	}
	p := &plan{
		layout: c.layout(), node: c.Node, chip: c.Chip, line: c.Line, output: c.Output, topic: c.Topic,
		listen: c.Listen, enrol: enrolAddress(c.Enrol, c.Listen), names: append(names, c.Host...), operator: c.Operator,
	}
	if p.node == "" {
		if p.node, err = nodeName(); err != nil {
			return nil, err
		}
	}
	hostName, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("reading the host name: %w", err)
	}
	return p, p.check(hostName)
}

// enrolPort is where certificates are renewed, 0 if nowhere.
func (p *plan) enrolPort() uint16 {
	port, _ := enrolConfig{Address: listenAddress(p.enrol)}.port() // without an address there is none
	return port
}

// enrolAddress is where devices join: by default wherever they can reach the broker.
func enrolAddress(given, listen string) string {
	if given == "off" || given == "" && listenAddress(listen).local() {
		return ""
	}
	return orDefault(given, defaultEnrol)
}

// check refuses what cannot be, and decides under which name clients will reach the node, hostName being its machine's.
func (p *plan) check(hostName string) error {
	for what, given := range map[string]string{"node": p.node, "output": p.output, "operator": p.operator} {
		if !pki.ValidName(given) {
			return usagef("%q cannot name the %s: letters, digits, _ and -, at most 64", given, what)
		}
	}
	if p.node == p.operator {
		return usagef("the node and its operator cannot both be named %q", p.node)
	}
	if !signing.ValidTopic(p.topic) || strings.HasPrefix(p.topic, "pinseal/") {
		return usagef("%q cannot be the output's topic", p.topic)
	}
	return p.setAddress(hostName)
}

// setAddress splits --listen and decides under which name clients will reach it.
func (p *plan) setAddress(hostName string) error {
	if err := listenAddress(p.listen).check(); err != nil {
		return usageError(err)
	}
	host, portText, err := net.SplitHostPort(p.listen)
	if err != nil {
		return usageError(err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return usagef("--listen needs a port that clients can be told, not %q", portText)
	}
	p.port = uint16(port)
	p.host = host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		p.host = localName(hostName)
	} else {
		p.names = append(p.names, host)
	}
	return nil
}

// nodeName makes a node's name of the host's.
func nodeName() (string, error) {
	hostName, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("reading the host name: %w", err)
	}
	first, _, _ := strings.Cut(hostName, ".")
	cleaned := regexp.MustCompile(`[^A-Za-z0-9_-]+`).ReplaceAllString(first, "-")
	if !pki.ValidName(cleaned) {
		return "", withHint(fmt.Errorf("the host name %q cannot name a node", hostName), "give one with --node NAME")
	}
	return cleaned, nil
}

func (p *plan) operatorBundle() string { return p.layout.bundle(p.operator) }

// write makes every file or none: the configuration last, because its presence says that the node is complete.
func (p *plan) write(now time.Time) error {
	operator, node, err := p.files(p.operatorBundle(), now)
	if err != nil {
		return err
	}
	return append(operator, node...).create()
}

// files makes all keys and gives the operator's bundle in the folder bundle, and the node's own files.
func (p *plan) files(bundle string, now time.Time) (operator, node fileSet, err error) {
	authority := p.authority
	if authority == nil {
		if authority, err = pki.CreateAuthority(authorityOf(p.node), now); err != nil {
			return nil, nil, err
		}
	}
	signKey, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		return nil, nil, err
	}
	node, broker, err := p.nodeFiles(authority, signKey, now)
	if err != nil {
		return nil, nil, err
	}
	client := clientConfig{Node: name(p.node), Name: name(p.operator), Host: p.host, Port: p.port, EnrolPort: p.enrolPort(), Topics: p.commandTopics()}
	made, err := makeClient(bundle, client, authority, signKey.Public(), "init", 0, now)
	if err != nil {
		return nil, nil, err
	}
	journal, err := pki.NewJournal(broker, made.entry)
	if err != nil {
		return nil, nil, err
	}
	text, err := p.configText()
	if err != nil {
		return nil, nil, err
	}
	openKey, err := encryption.GenerateKey()
	if err != nil {
		return nil, nil, err
	}
	recipients := p.layout.encryption()
	operator = append(made.files, made.issued, newFile{clientFiles(bundle).publicKey(p.node), openKey.Public().PEM(), 0o644})
	return operator, append(node,
		newFile{p.layout.decryptKey(), openKey.PEM(), 0o600},
		newFile{recipients.publicKey(p.node), openKey.Public().PEM(), 0o644},
		newFile{recipients.publicKey(p.operator), made.openKey.PEM(), 0o644},
		newFile{p.layout.signer(p.operator), made.signKey.PEM(), 0o644},
		newFile{p.layout.journal(), journal, 0o600},
		newFile{p.layout.config, text, 0o644},
	), nil
}

func (p *plan) commandTopics() []topicName {
	return []topicName{topicName(p.topic), topicName(agent.SetTopic(p.node, p.output))}
}

// nodeFiles are the node's own keys and certificates, broker the journal's entry about the broker's.
func (p *plan) nodeFiles(authority *pki.Authority, signKey *signing.PrivateKey, now time.Time) (files fileSet, broker pki.Entry, err error) {
	authorityKey, err := authority.KeyPEM()
	if err != nil {
		return nil, broker, err
	}
	brokerKey, err := pki.GenerateKey()
	if err != nil {
		return nil, broker, err
	}
	brokerKeyPEM, err := pki.MarshalKey(brokerKey)
	if err != nil {
		return nil, broker, err
	}
	brokerCert, err := authority.IssueServer(p.node, p.names, brokerKey.Public(), now)
	if err != nil {
		return nil, broker, err
	}
	if broker, err = issuedEntry(brokerCert, "server", "init", now); err != nil {
		return nil, broker, err
	}
	files = fileSet{
		{p.layout.caCert(), authority.CertificatePEM(), 0o644},
		{p.layout.brokerCert(), append(brokerCert, pki.EncodeCertificates(authority.Chain()...)...), 0o644},
		{p.layout.brokerKey(), brokerKeyPEM, 0o600},
		{p.layout.signKey(), signKey.PEM(), 0o600},
	}
	if p.authority == nil { // otherwise it is there already
		files = append(files, newFile{p.layout.caKey(), authorityKey, 0o600})
	}
	return files, broker, nil
}

//go:embed pinseal.toml.tmpl
var configTemplate string

// configText is the commented configuration of a new node.
func (p *plan) configText() ([]byte, error) {
	trust := "auto"
	if p.chip == "sim" || p.trustClock {
		trust = "always" // no board, no clock to doubt
	}
	// Not text/template, which would make the program 300 kB larger.
	comment := ""
	if p.enrol == "" {
		comment = "# "
	}
	text := []byte(strings.NewReplacer(
		"<<.EnrolOff>>", comment, "<<.Enrol>>", orDefault(p.enrol, defaultEnrol),
		"<<.Node>>", p.node, "<<.Chip>>", p.chip, "<<.Trust>>", trust, "<<.Listen>>", p.listen, "<<.Output>>", p.output,
		"<<.Line>>", p.line, "<<.Topic>>", p.topic, "<<.Set>>", agent.SetTopic(p.node, p.output), "<<.Operator>>", p.operator,
	).Replace(configTemplate))
	// A value that breaks the file, such as a quote in --line, must show now and not at the first start.
	if _, err := parseConfig(text); err != nil {
		return nil, usageError(fmt.Errorf("the configuration would be wrong: %w", err))
	}
	return text, nil
}
