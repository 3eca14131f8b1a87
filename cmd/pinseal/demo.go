package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/pki"
)

// demoCmd is the main job on throw-away keys: one node, an operator, and a neighbour whose
// certificate is perfectly valid and who tries everything a thief of messages can.
type demoCmd struct {
	Chip string `help:"GPIO chip: sim, auto, a label or a device." default:"sim"`
	Line string `help:"Line of the LED." default:"GPIO17"`
	Once bool   `help:"End after the scenes, with exit code 0 only if each went as it should."`
}

// Names of the demo's parties.
const (
	demoNode      = "raspiflow"
	demoOperator  = "operator"
	demoNeighbour = "neighbour"
	demoOutput    = "led"
	demoTopic     = "ledStatus"
)

// demoNeighbourACL lets the neighbour publish commands and read them: only the signature stands in its way.
const demoNeighbourACL = `
[[acl]]
identity = "neighbour"
publish = ["ledStatus", "pinseal/raspiflow/+/set"]
subscribe = ["ledStatus"]
`

// Run shows the scenes, then stays up until Ctrl-C.
func (c *demoCmd) Run(ctx context.Context, std streams) (err error) {
	ctx, stop := untilSignal(ctx, syscall.SIGPIPE)
	defer stop()
	dir, err := os.MkdirTemp("", "pinseal-demo-")
	if err != nil {
		return fmt.Errorf("making a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{std: std, layout: layoutUnder(dir), screen: newScreen(std.out), logLevel: new(slog.LevelVar)}
	d.logLevel.Set(slog.LevelError + 1)
	if err := d.prepare(c, time.Now()); err != nil {
		return err
	}
	return d.run(ctx, c.Once)
}

// demo is one performance.
type demo struct {
	std      streams
	layout   layout
	port     uint16
	screen   *screen
	logLevel *slog.LevelVar
	node     *node

	operator  *commander
	neighbour *mqtt.Client
	told      chan agent.Verdict // what the node tells the operator about messages it did not wait for
	captured  chan []byte        // what the neighbour overhears on the LED's topic
}

// prepare makes authority, keys and configuration in the demo's folder and opens the node.
func (d *demo) prepare(c *demoCmd, now time.Time) error {
	port, err := d.choosePort()
	if err != nil {
		return err
	}
	d.port = port
	names, err := pki.LocalNames() // as init does, or the node would soon renew its certificate
	if err != nil {
		return err
	}
	p := &plan{
		layout: d.layout, node: demoNode, chip: c.Chip, line: c.Line, output: demoOutput, topic: demoTopic,
		host: "127.0.0.1", listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), port: port,
		names: names, operator: demoOperator, trustClock: true,
	}
	if err := p.write(now); err != nil {
		return err
	}
	if err := d.addNeighbour(now); err != nil {
		return err
	}
	cfg, err := readConfig(d.layout.config)
	if err != nil {
		return err
	}
	d.node, err = newNode(d.layout, cfg, slog.New(slog.NewTextHandler(d.std.err, &slog.HandlerOptions{Level: d.logLevel})), d.std.clock())
	return err
}

// choosePort takes MQTT's own port if it is free.
func (d *demo) choosePort() (uint16, error) {
	socket, err := net.Listen("tcp", "127.0.0.1:8883") //nolint:noctx // binding does not block
	if err != nil {
		if socket, err = net.Listen("tcp", "127.0.0.1:0"); err != nil { //nolint:noctx // binding does not block
			return 0, fmt.Errorf("looking for a free port: %w", err)
		}
		fmt.Fprintf(d.std.out, "port 8883 is taken, the demo uses another\n")
	}
	_, port, err := net.SplitHostPort(socket.Addr().String())
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return uint16(number), errors.Join(err, socket.Close())
}

// addNeighbour gives the neighbour a certificate of the same authority, but trusts no key of it.
func (d *demo) addNeighbour(now time.Time) error {
	authority, err := readAuthority(d.layout)
	if err != nil {
		return err
	}
	nodeKey, err := readSignKey(d.layout.signKey())
	if err != nil {
		return err
	}
	settings := clientConfig{Node: demoNode, Name: demoNeighbour, Host: "127.0.0.1", Port: d.port}
	made, err := makeClient(d.layout.bundle(demoNeighbour), settings, authority, nodeKey.Public(), "demo", 0, now)
	if err != nil {
		return err
	}
	if err := made.create(pki.OpenJournal(d.layout.journal())); err != nil {
		return err
	}
	config, err := os.OpenFile(d.layout.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = config.WriteString(demoNeighbourACL)
	return errors.Join(err, config.Close())
}

// run serves the node and shows the scenes against it.
func (d *demo) run(ctx context.Context, once bool) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, d.node, d.std.out) }()
	select {
	case <-d.node.Ready():
	case err := <-served:
		return err
	}
	err := d.show(ctx)
	if err == nil && !once {
		err = d.stay(ctx)
	}
	stop()
	return errors.Join(err, <-served)
}

// show plays the scenes.
func (d *demo) show(ctx context.Context) (err error) {
	if err := d.connect(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.neighbour.Close(), d.operator.Close()) }()
	failed := 0
	for _, s := range d.scenes() {
		if !d.play(ctx, s) {
			failed++
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if failed > 0 {
		return fmt.Errorf("%d scenes did not go as they should", failed)
	}
	fmt.Fprintln(d.std.out, "every scene went as it should")
	return nil
}

// connect makes the two clients, each with its own certificate over its own TLS connection.
func (d *demo) connect(ctx context.Context) error {
	d.told, d.captured = make(chan agent.Verdict, 16), make(chan []byte, 16)
	operator, err := connectFlags{Bundle: d.layout.bundle(demoOperator)}.client(d.std)
	if err != nil {
		return err
	}
	if d.operator, err = newCommander(ctx, operator, func(v agent.Verdict, _ bool) { d.told <- v }); err != nil {
		return err
	}
	neighbour, err := connectFlags{Bundle: d.layout.bundle(demoNeighbour)}.client(d.std)
	if err != nil {
		return errors.Join(err, d.operator.Close())
	}
	d.neighbour, err = neighbour.connect(ctx, mqtt.Config{
		CleanSession:  true,
		Subscriptions: []mqtt.Subscription{{Filter: demoTopic, QoS: 1}},
		OnMessage: func(m mqtt.Message, ack func()) {
			ack()
			select {
			case d.captured <- m.Payload:
			default: // it has heard enough
			}
		},
	})
	if err != nil {
		return errors.Join(err, d.operator.Close())
	}
	return nil
}

// stay tells how to go on by hand and shows the LED until Ctrl-C.
func (d *demo) stay(ctx context.Context) error {
	dir, program := d.layout.bundle(demoOperator), ownName()
	b := bundle{dir: dir}
	fmt.Fprintf(d.std.out, "\nThe node stays up. In a second terminal:\n\n")
	fmt.Fprintf(d.std.out, "  %s pub --bundle %s -t %s -m toggle\n\n", program, dir, demoTopic)
	fmt.Fprintf(d.std.out, "  %s sub --bundle %s -v -t %s -t 'pinseal/%s/#'\n\n", program, dir, demoTopic, demoNode)
	fmt.Fprintf(d.std.out, "  mosquitto_pub -h 127.0.0.1 -p %d --cafile %s --cert %s --key %s -t %s -m \"$(%s seal --bundle %s -t %s on)\"\n\n",
		d.port, b.caCert(), b.clientCert(), b.clientKey(), demoTopic, program, dir, demoTopic)
	fmt.Fprintf(d.std.out, "Ctrl-C ends it and removes its keys.\n\n")
	d.logLevel.Set(slog.LevelInfo)

	settings, err := connectFlags{Bundle: dir}.client(d.std)
	if err != nil {
		return err
	}
	watcher, err := settings.connect(ctx, mqtt.Config{
		CleanSession:  true,
		Subscriptions: []mqtt.Subscription{{Filter: agent.StateTopic(demoNode, demoOutput), QoS: 1}},
		OnMessage: func(m mqtt.Message, ack func()) {
			ack()
			d.screen.led(string(m.Payload) == agent.On, "")
		},
	})
	if errors.Is(err, context.Canceled) {
		return nil // as it has told how to end it
	}
	if err != nil {
		return err
	}
	<-ctx.Done()
	return watcher.Close()
}

// ownName is what a person types to run this program again.
func ownName() string {
	program, err := os.Executable()
	if err != nil {
		return "pinseal"
	}
	if found, err := exec.LookPath("pinseal"); err == nil && sameFile(found, program) {
		return "pinseal"
	}
	return program
}

func sameFile(a, b string) bool {
	realA, errA := filepath.EvalSymlinks(a)
	realB, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && realA == realB
}

// screen draws the LED: in colour on a terminal, in words in a pipe.
type screen struct {
	out    io.Writer
	colour bool
}

func newScreen(out io.Writer) *screen {
	_, ok := terminal(out)
	return &screen{out, ok && os.Getenv("NO_COLOR") == ""}
}

// led draws the LED and what led to it.
func (s *screen) led(on bool, text string) {
	lamp := "LED off"
	switch {
	case s.colour && on:
		lamp = "\x1b[1;91m●\x1b[0m"
	case s.colour:
		lamp = "\x1b[2m○\x1b[0m"
	case on:
		lamp = "LED on "
	}
	fmt.Fprintf(s.out, "%s  %s\n", lamp, text)
}
