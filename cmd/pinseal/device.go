package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pinseal/pki"
)

type deviceCmd struct {
	Add    deviceAddCmd    `cmd:"" help:"Let a device join: print the line that it joins with, or make its keys here (--out)."`
	Join   deviceJoinCmd   `cmd:"" help:"On the device: make its keys and join the node that the line is of."`
	List   deviceListCmd   `cmd:"" help:"List the devices that have had a certificate, and whether it is good."`
	Renew  deviceRenewCmd  `cmd:"" help:"On a device: renew its certificate now. It happens by itself before the certificate expires."`
	Revoke deviceRevokeCmd `cmd:"" help:"Let a device in no longer, now and for good: a lost or a stolen one."`
	Token  deviceTokenCmd  `cmd:"" help:"Print a token with which a platform signs for its devices."`
}

type deviceAddCmd struct {
	dirFlag
	Name     string        `arg:"" help:"Name of the device: its certificate's common name and its signer."`
	Out      string        `help:"Make the device's keys here and write them to this folder, instead of letting it join." type:"path" placeholder:"FOLDER"`
	Lifetime time.Duration `help:"With --out: how long its certificate is good; default: 825 days, because nobody may be there to renew it." placeholder:"2160h"`
	Output   []string      `help:"Let it command this output; may be repeated." placeholder:"OUTPUT"`
	Host     string        `help:"Host under which the device reaches the node; default: as the operator does." placeholder:"HOST"`

	HomeAssistant bool `help:"It is Home Assistant: let it see the node, and command the outputs that have a plain_topic."`
}

// Run lets the device join, or makes its keys for it.
func (c *deviceAddCmd) Run(std streams) error {
	if !pki.ValidName(c.Name) {
		return usagef("%q is not a name: letters, digits, _ and -, at most 64", c.Name)
	}
	l := c.layout()
	cfg, err := readConfig(l.config)
	if err != nil {
		return err
	}
	if err := c.check(l, cfg); err != nil {
		return err
	}
	if c.Lifetime != 0 && (c.Out == "" || c.Lifetime < minLeafLifetime || c.Lifetime > maxLeafLifetime) {
		return usagef("--lifetime goes with --out and is from %s to %s; [enrol] lifetime is that of devices that join", minLeafLifetime, maxLeafLifetime)
	}
	if c.Out == "" {
		return c.invite(std, l, cfg)
	}
	return c.make(std, l, cfg)
}

// make issues the device's certificate here, for machines that cannot make their own keys or reach the node's enrolment.
func (c *deviceAddCmd) make(std streams, l layout, cfg *config) error {
	if err := denyFormer(l, c.Name, std.clock()()); err != nil {
		return err
	}
	device, err := c.device(l, cfg, std.clock()())
	if err != nil {
		return err
	}
	isNew := !exists(c.Out)
	if err := device.create(pki.OpenJournal(l.journal())); err != nil {
		return err
	}
	if isNew && !strings.HasPrefix(c.Out, l.bundles()+"/") { // those stay root's
		if err := giveToCaller(c.Out); err != nil {
			return err
		}
	}
	if err := admit(l, c.Name); err != nil {
		return err
	}
	if err := c.addRecipient(l, device.openKey); err != nil {
		return err
	}
	if err := c.share(); err != nil {
		return err
	}
	if err := c.permit(l, cfg); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s may connect and publish under telemetry/%s/\n", c.Name, c.Name)
	certificate, err := readCertificate(bundle{dir: c.Out}.clientCert())
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "its bundle: %s; its certificate is good until %s\n", c.Out, certificate.NotAfter.Format(time.DateOnly))
	if err := tellNode(std, l, c.dirFlag); err != nil {
		return err
	}
	if c.HomeAssistant {
		return c.tellHomeAssistant(std, l, cfg)
	}
	fmt.Fprintf(std.out, "next: copy the folder to the device, then there: pinseal pub --bundle %s -t telemetry/%s/test -m 1\n", shellWord(filepath.Base(c.Out)), c.Name)
	return nil
}

func (c *deviceAddCmd) check(l layout, cfg *config) error {
	if net.ParseIP(c.Host) == nil && strings.ContainsAny(c.Host, " /:[]") {
		return usagef("%q is no host: a name or an address, without a port", c.Host)
	}
	if c.Name == string(cfg.Node) {
		return usagef("%q is the node itself", c.Name)
	}
	if exists(l.signer(c.Name)) {
		return withHint(fmt.Errorf("a signer is named %s already", c.Name), "choose another name, or revoke it first: %s", c.command("signer revoke "+c.Name))
	}
	if exists(l.encryption().sharedKey(c.Name)) { // whatever is encrypted to that name would be to both, and so to nobody
		return withHint(fmt.Errorf("a shared key is named %s", c.Name), "choose another name; %s shows them", c.command("recipient list"))
	}
	if c.HomeAssistant && c.Out == "" {
		return usagef("Home Assistant cannot join by itself: --out FOLDER is for its certificate and key")
	}
	if c.HomeAssistant && !cfg.HomeAssistant.Enable {
		return withHint(errors.New("nothing is announced to Home Assistant yet"), "write [homeassistant] and enable = true into %s, and restart the node", l.config)
	}
	for _, wanted := range c.Output {
		if _, ok := cfg.output(wanted); !ok {
			return withHint(fmt.Errorf("no output is named %q", wanted), "the [[output]] blocks of %s name them", l.config)
		}
	}
	return nil
}

func (c *config) output(wanted string) (outputConfig, bool) {
	for _, o := range c.Outputs {
		if string(o.Name) == wanted {
			return o, true
		}
	}
	return outputConfig{}, false
}

func (c *deviceAddCmd) device(l layout, cfg *config, now time.Time) (device newClient, err error) {
	authority, err := readAuthority(l)
	if err != nil {
		return device, err
	}
	nodeKey, err := readSignKey(keyForCommands(signCredential, orDefault(cfg.Agent.SignKey, l.signKey())))
	if err != nil {
		return device, err
	}
	client, err := c.clientConfig(l, cfg)
	if err != nil {
		return device, err
	}
	shared, err := c.encryption(l, cfg, &client)
	if err != nil {
		return device, err
	}
	device, err = makeClient(c.Out, client, authority, nodeKey.Public(), "device add", c.Lifetime, now)
	if err != nil {
		return device, err
	}
	device.files = append(append(device.files, shared...), newFile{l.signer(c.Name), device.signKey.PEM(), 0o644})
	return device, nil
}

// clientConfig takes host and port from the operator's bundle, which knows how the node is reached.
func (c *deviceAddCmd) clientConfig(l layout, cfg *config) (clientConfig, error) {
	client := clientConfig{Node: cfg.Node, Name: name(c.Name), EnrolPort: cfg.enrolPort()}
	for _, o := range c.Output {
		output, _ := cfg.output(o) // checked before
		client.Topics = append(client.Topics, output.commandTopics(cfg.Node)...)
	}
	if _, err := os.ReadDir(l.bundles()); errors.Is(err, os.ErrPermission) { // which Glob does not tell
		return client, fmt.Errorf("reading the bundles: %w", err)
	}
	known, err := filesIn(l.bundles(), "*/client.toml")
	if err != nil || len(known) == 0 {
		return client, withHint(fmt.Errorf("no bundle in %s tells how this node is reached", l.bundles()), "run pinseal init, or keep one bundle there")
	}
	example, err := readBundle(filepath.Dir(known[0]))
	if err != nil {
		return client, err
	}
	client.Host, client.Port = orDefault(c.Host, example.client.Host), example.client.Port
	return client, nil
}

// permit appends the device's rights to the configuration, which keeps its comments that way.
func (c *deviceAddCmd) permit(l layout, cfg *config) error {
	if len(c.Output) == 0 && !c.HomeAssistant {
		return nil
	}
	var added strings.Builder
	if c.HomeAssistant {
		added.WriteString(c.homeAssistantRule(cfg))
	}
	var topics []string
	for _, o := range c.Output {
		output, _ := cfg.output(o)   // checked before
		if !cfg.permits(c.Name, o) { // of a name that comes back; somebody may have narrowed it
			fmt.Fprintf(&added, "\n[[permit]]\nsigner = %q\noutput = %q\nactions = [\"on\", \"off\", \"toggle\"]\n", c.Name, o)
		}
		for _, topic := range output.commandTopics(cfg.Node) {
			topics = append(topics, fmt.Sprintf("%q", topic))
		}
	}
	if len(topics) > 0 {
		fmt.Fprintf(&added, "\n[[acl]]\nidentity = %q\npublish = [%s]\n", c.Name, strings.Join(topics, ", "))
	}
	return alone(filepath.Dir(l.config), func() error {
		text, err := os.ReadFile(l.config)
		if err != nil {
			return fmt.Errorf("reading the configuration: %w", err)
		}
		text = append(bytes.TrimRight(text, "\n"), '\n')
		text = append(text, added.String()...)
		if _, err := parseConfig(text); err != nil {
			return fmt.Errorf("the configuration with the new rights would be wrong: %w", err)
		}
		return rewrite(l.config, text)
	})
}

// permits says whether a block gives a signer rights to an output.
func (c *config) permits(signer, output string) bool {
	return slices.ContainsFunc(c.Permits, func(p permitConfig) bool { return string(p.Signer) == signer && string(p.Output) == output })
}
