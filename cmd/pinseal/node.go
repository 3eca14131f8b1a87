package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pinseal/agent"
	"pinseal/agent/outbox"
	"pinseal/broker"
	"pinseal/gpio"
	"pinseal/internal/clock"
	"pinseal/internal/filewatch"
	"pinseal/pki"
	"pinseal/signing"
	"pinseal/signing/replay"
	"pinseal/signing/sequence"
	"pinseal/systemd"

	"golang.org/x/sync/errgroup"
)

// node is everything that `pinseal run` holds: it is built once, run once, and closed by its Run.
type node struct {
	layout  layout
	config  *config
	opened  authorityCache
	log     *slog.Logger
	now     func() time.Time // the machine's clock
	clock   *clock.Clock     // what to think of it
	chip    gpio.Chip
	outputs []*nodeOutput
	inputs  []*input
	outbox  *outbox.Box // nil unless telemetry is for another node
	replay  *replay.Store
	numbers *sequence.Counter
	servers []*pki.Server
	sockets []net.Listener
	logins  *logins
	control *controlServer
	files   *filewatch.Watcher
	monitor *monitor // nil unless configured
	started time.Time
	broker  *broker.Broker // nil with a broker elsewhere
	agent   *agent.Agent
	// enrolment is nil where devices cannot join
	enrolment *enrolment
	heard     chan struct{} // closed when the agent listens behind the broker
	ready     chan struct{}
	expiring  atomic.Int64           // devices whose certificates expire soon
	reloaded  chan struct{}          // has room for one: the authority may be another
	signers   atomic.Int64           // how many there are
	current   atomic.Pointer[config] // as last loaded
	loading   sync.Mutex             // one change at a time of what is read from files
	policy    *agent.Policy          // the agent's, as last read; under loading
	rules     *broker.Policy         // the broker's, likewise
}

// newNode opens everything a node needs, in the order of its dependencies: a node that cannot be
// complete is none, and what was opened is closed again. now is the machine's clock.
func newNode(l layout, cfg *config, log *slog.Logger, now func() time.Time) (*node, error) {
	l = cfg.place(l)
	n := &node{layout: l, config: cfg, log: log, now: now, heard: make(chan struct{}), reloaded: make(chan struct{}, 1), ready: make(chan struct{}), files: filewatch.New(cfg.files(l))}
	steps := []func() error{n.openControl, n.openDenials, n.openClock, n.openOutputs, n.openInputs, n.openReplay, n.openLogins, n.settleCertificate, n.openListeners, n.openBroker, n.openOutbox, n.openAgent, n.openEnrolment, n.openMonitor}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	return n, nil
}

// openControl comes first: it is also what keeps a second node away from the same files.
func (n *node) openControl() (err error) {
	n.control, err = listenControl(n.layout.control(), n.handleControl)
	return err
}

func (n *node) openClock() (err error) {
	n.clock, err = clock.New(clock.Config{
		Trust:        clock.Trust(n.config.Clock.Trust),
		FloorPath:    n.layout.clockFloor(),
		BuildTime:    buildTime(),
		Synchronized: systemd.ClockSynchronized,
		Now:          n.now,
	})
	if err == nil {
		n.started = n.clock.Now()
	}
	return err
}

func openChip(which string, l layout) (gpio.Chip, error) {
	if which == "sim" {
		return gpio.OpenSim(l.lines())
	}
	chip, err := gpio.OpenChip(which)
	if errors.Is(err, gpio.ErrNoChip) {
		err = withHint(err, `chip under [gpio] in pinseal.toml, or --chip where a command has it, names one; "sim" simulates one`)
	}
	return chip, err
}

// defaultTelemetryFlush is how long the numbers of accepted telemetry stay in memory. At one message a second, every 5 s
// would write 240 MB a day to the card. A crash forgets them: who has recorded telemetry of these minutes could have it
// accepted once more.
const defaultTelemetryFlush = 2 * time.Minute

// openReplay opens what was accepted before. Where that is lost although this node has run before,
// whatever may have been accepted then is refused: commands sealed until now.
func (n *node) openReplay() (err error) {
	signKey := n.signKeyPath()
	options := replay.Options{FlushEvery: cmp.Or(time.Duration(n.config.Agent.Flush), defaultTelemetryFlush)}
	if exists(n.layout.stateDB()) || exists(n.layout.stateLog()) || exists(sequenceFile(signKey)) {
		options.Since = n.clock.FloorNow().Add(agent.MaxAhead)
	}
	if n.replay, err = replay.Open(n.layout.stateDB(), options); err != nil {
		return withHint(err, "if it is damaged, move the file away: the node starts without it and refuses every command sealed before then")
	}
	if n.replay.Since().After(n.clock.FloorNow()) {
		n.log.Warn("replay state is missing, commands sealed before now are refused", "path", n.layout.stateDB())
	}
	n.numbers, err = openNumbers(signKey)
	return err
}

func (n *node) signKeyPath() string { return orDefault(n.config.Agent.SignKey, n.layout.signKey()) }

func (n *node) openListeners() error {
	if err := n.bindListeners(); err != nil {
		return err
	}
	for _, l := range n.config.Listeners {
		if !l.tls() {
			n.servers = append(n.servers, nil)
			continue
		}
		server, err := n.loadServer(uint16(l.MinTLS))
		if err != nil {
			return err
		}
		n.servers = append(n.servers, server)
	}
	return nil
}

// loadServer reads the broker's certificate and what clients are judged by.
func (n *node) loadServer(minVersion uint16) (*pki.Server, error) {
	server, err := pki.LoadServer(n.config.tlsFiles(n.layout), minVersion, n.clock.FloorNow)
	return server, explainTLS(err)
}

// tlsFiles are those of the broker's listeners.
func (c *config) tlsFiles(l layout) pki.Files {
	return pki.Files{
		Certificate: orDefault(c.TLS.Certificate, l.brokerCert()),
		Key:         credential(brokerCredential, orDefault(c.TLS.Key, l.brokerKey())),
		CA:          orDefault(c.TLS.CA, l.caCert()),
		CRL:         c.TLS.CRL,
		Denied:      l.denied(),
	}
}

func (n *node) openBroker() (err error) {
	if n.config.Agent.Broker != "" {
		return nil
	}
	var listeners []broker.Listener
	for i, l := range n.config.Listeners {
		listener := broker.Listener{
			Name: string(l.Address), Net: n.sockets[i], Plain: !l.tls(), MaxConnections: int(l.MaxConnections), ClientIDIsIdentity: l.ClientIDIsIdentity,
			IgnoreCertificateName: !l.certificateIsName(), AllowAnonymous: l.AllowAnonymous,
			WebSocket: l.WebSocket, Origins: strs(l.Origins),
		}
		switch {
		case l.requiresCertificate():
			listener.TLS = n.servers[i].Config()
		case l.tls():
			listener.TLS = n.servers[i].OptionalConfig()
		}
		if !l.requiresCertificate() || !l.certificateIsName() { // there may be passwords or tokens later
			listener.Authenticate = n.logins.authenticate
		}
		listeners = append(listeners, listener)
	}
	policy, err := n.config.brokerPolicy()
	if err != nil {
		return err
	}
	n.rules = policy
	version, _ := buildVersion()
	n.broker, err = broker.New(broker.Config{
		Node: string(n.config.Node), Listeners: listeners, Policy: policy,
		Version: "pinseal version " + version, Limits: n.config.Limits.limits(),
		Persistence: n.config.Persistence.persistence(n.layout.brokerDB()), Hold: n.heard, Log: n.log.With("part", "broker"),
	})
	return err
}

func (n *node) openAgent() error {
	key, err := readSignKey(credential(signCredential, n.signKeyPath()))
	if err != nil {
		return err
	}
	policy, err := n.config.agentPolicy(n.layout)
	if err != nil {
		return err
	}
	dial, err := n.dialer()
	if err != nil {
		return err
	}
	discovery, err := n.discovery()
	if err != nil {
		return err
	}
	n.policy = policy
	n.signers.Store(int64(len(policy.Keyring.Signers())))
	n.agent, err = agent.New(agent.Config{
		Discovery: discovery,
		Node:      string(n.config.Node), Key: key, Sequence: n.numbers, Dial: dial, ClientID: n.config.clientID(),
		OwnBroker: n.broker != nil, Outputs: n.agentOutputs(), OnBroker: n.tellBroker, Policy: policy, Replay: n.replay, Clock: n.clock, QueueLength: int(n.config.Agent.Queue),
		ServeTime: n.config.Clock.Serve, TimeFrom: string(n.config.Clock.From), TellTime: n.clock,
		Receiver: string(n.config.Outbox.Node), Outbox: n.outbox, Log: n.log.With("part", "agent"),
	})
	return err
}

// dialer is the one difference between the embedded broker and another: how to reach it.
func (n *node) dialer() (func(context.Context) (net.Conn, error), error) {
	if n.broker != nil {
		return n.broker.Dial, nil
	}
	if _, err := n.agentTLS(); err != nil { // say so before anything is tried
		return nil, err
	}
	_, address := n.config.Agent.Broker.host()
	return func(ctx context.Context) (net.Conn, error) {
		config, err := n.agentTLS() // anew: the certificate may have been renewed
		if err != nil {
			return nil, err
		}
		return dialTLS(address, config)(ctx)
	}, nil
}

// agentTLS is who the node is at a broker elsewhere.
func (n *node) agentTLS() (*tls.Config, error) {
	host, _ := n.config.Agent.Broker.host()
	config, err := pki.ClientConfig(pki.Files{
		Certificate: n.config.Agent.Certificate, Key: credential(agentCredential, n.config.Agent.Key),
		CA: orDefault(n.config.Agent.CA, n.layout.caCert()),
	}, host, n.clock.FloorNow)
	if err != nil {
		return nil, explainTLS(err)
	}
	pki.DoubtClock(config, func() bool { return !n.clock.Trusted() })
	return config, nil
}

// URL is where clients reach the node's broker.
func (n *node) URL() string {
	if n.broker == nil {
		return string(n.config.Agent.Broker)
	}
	return n.config.Listeners[0].scheme() + n.sockets[0].Addr().String()
}

// Ready is closed once the lines are held, the listener accepts and the agent listens behind it.
// With a broker elsewhere, which may be away for days, the node does not wait for it.
func (n *node) Ready() <-chan struct{} { return n.ready }

// Run serves until ctx ends or a part fails, and closes the node. It stops in the reverse order of
// starting: the agent says goodbye, the outputs go to their exit level, then the broker ends.
func (n *node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.close()) }()
	brokerCtx, stopBroker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBroker()

	group, ctx := errgroup.WithContext(ctx)
	if n.broker != nil {
		group.Go(func() error { return n.broker.Run(brokerCtx) })
		group.Go(func() error { n.logins.tokens.Run(ctx); return nil })
	}
	group.Go(func() error {
		defer stopBroker()
		return errors.Join(n.agent.Run(ctx), n.closeOutputs())
	})
	group.Go(func() error { return n.runSensing(ctx) })
	group.Go(func() error { return n.clock.Run(ctx) })
	group.Go(func() error { n.keepCertified(ctx); return nil })
	group.Go(func() error { n.keepBundle(ctx); return nil })
	group.Go(func() error { n.restoreOutputs(ctx); return nil })
	group.Go(func() error { return n.control.Run(ctx) })
	if n.monitor != nil {
		group.Go(func() error { return n.monitor.Run(ctx) })
	}
	if n.enrolment != nil {
		group.Go(func() error { return n.enrolment.run(ctx) })
	}
	group.Go(func() error { n.awaitReady(ctx); return nil })
	return group.Wait()
}

// awaitReady lets clients in once the agent hears what they say.
func (n *node) awaitReady(ctx context.Context) {
	if n.broker != nil {
		select {
		case <-n.agent.Ready():
			close(n.heard)
		case <-ctx.Done():
			return
		}
	}
	close(n.ready)
}

// close gives back whatever was opened; closing an output twice does nothing.
func (n *node) close() error {
	errs := []error{n.closeOutputs()}
	for _, in := range n.inputs {
		errs = append(errs, in.gpio.Close())
	}
	sockets := n.sockets
	if n.monitor != nil {
		sockets = append(sockets, n.monitor.listener)
	}
	for _, s := range sockets {
		if err := s.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.chip != nil {
		errs = append(errs, n.chip.Close())
	}
	if n.outbox != nil {
		errs = append(errs, n.outbox.Close())
	}
	if n.replay != nil {
		errs = append(errs, n.replay.Close())
	}
	if n.numbers != nil {
		errs = append(errs, n.numbers.Close())
	}
	if n.enrolment != nil {
		if err := n.enrolment.socket.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.control != nil {
		if err := n.control.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Reload reads signers, certificates and policy again. Sessions that are still allowed go on; on
// error everything stays as it was.
func (n *node) Reload() error {
	n.loading.Lock()
	defer n.loading.Unlock()
	n.files.See()
	wanted, err := readConfig(n.layout.config)
	if err != nil {
		return err
	}
	cfg := n.untilRestart(wanted)
	n.files.Set(cfg.files(n.layout))
	if cfg.denied, err = readDenied(n.layout); err != nil {
		return err
	}
	policy, err := cfg.agentPolicy(n.layout)
	if err != nil {
		return err
	}
	brokerPolicy, err := cfg.brokerPolicy()
	if err != nil {
		return err
	}
	newLogins, err := cfg.readLogins()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(n.servers, func(s *pki.Server) bool { return s != nil }) {
		if _, err := n.loadServer(tls.VersionTLS13); err != nil { // before anything takes effect
			return err
		}
	}
	if err := n.setPolicy(policy); err != nil {
		return err
	}
	if n.broker != nil {
		if err := n.setRules(brokerPolicy); err != nil {
			return err
		}
		n.broker.SetLimits(cfg.Limits.limits())
		n.logins.set(newLogins) // before the sessions are judged by them
	}
	if err := n.useCertificates(); err != nil {
		return err
	}
	if n.broker != nil {
		n.broker.Recheck(n.checkCertificate)
	}
	n.current.Store(cfg)
	n.reloadEnrolment()
	n.log.Info("reloaded", "signers", len(policy.Keyring.Signers()))
	n.warnOfRestart(wanted)
	n.tellCaretaker()
	return nil
}

// useCertificates has all listeners read their files again.
func (n *node) useCertificates() error {
	for _, s := range n.servers {
		if s == nil {
			continue
		}
		if err := s.Use(n.config.tlsFiles(n.layout)); err != nil { // renewed, they may lie elsewhere
			return explainTLS(err)
		}
	}
	return nil
}

// checkCertificate judges by the certificates as they are now; all listeners have the same.
func (n *node) checkCertificate(state tls.ConnectionState) error {
	for _, s := range n.servers {
		if s != nil {
			return s.Check(state)
		}
	}
	return nil
}

// handleControl does what the command line on this machine asks for.
func (n *node) handleControl(ctx context.Context, words []string, tell func(string)) error {
	switch {
	case len(words) > 0 && words[0] == "trace":
		return n.Trace(ctx, words[1:], tell)
	case len(words) == 1 && words[0] == "reload":
		return n.Reload()
	case len(words) == 1 && words[0] == "deny":
		return n.Deny()
	case len(words) == 3 && words[0] == "code":
		return n.addCode(words[1], words[2])
	case len(words) == 2 && words[0] == "reset":
		return n.replay.Reset(words[1])
	default:
		return errors.New("unknown request")
	}
}

func readSignKey(path string) (*signing.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the signing key: %w", err), "pinseal init and pinseal device add make one; a bundle is copied with all that is in it, and its owner must be the user that runs this")
	}
	key, err := signing.ParsePrivateKey(data)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", path, err), "a P-256 or secp256k1 private key in PEM, such as openssl ecparam -genkey writes")
	}
	return key, nil
}

func orDefault(given, otherwise string) string {
	if given != "" {
		return given
	}
	return otherwise
}

// explainTLS words an error of certificates for a person.
func explainTLS(err error) error {
	if err == nil {
		return nil
	}
	problem, hint := pki.Explain(err)
	if hint == "" {
		return err
	}
	return withHint(errors.New(problem), "%s", hint)
}

// dialTimeout is how long a connection to a broker may take to come about.
const dialTimeout = 10 * time.Second

// refusals counts what agent and broker refused, by the agent's reasons.
func (n *node) refusals() map[signing.Reason]uint64 {
	counts := n.agent.Counters()
	delete(counts, signing.ReasonApplied)
	counts[signing.ReasonRetained] += n.broker.Stats().ByReason[broker.ReasonRetained]
	return counts
}
