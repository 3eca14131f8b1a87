package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"pinseal/agent"
	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"
)

// enrolment is the part of a node that lets devices join.
type enrolment struct {
	codes     *enrol.Codes
	authority atomic.Pointer[enrol.Authority]
	server    *enrol.Server
	socket    net.Listener
	tls       *tls.Config
}

// openEnrolment is the last step: it needs the broker's certificate and the node's key. Where something is wrong with the
// authority or the codes, devices cannot join, and everything else goes on.
func (n *node) openEnrolment() error {
	if !n.config.enrols() {
		return nil
	}
	e := &enrolment{}
	codes, err := enrol.OpenCodes(n.layout.codes())
	if err := errors.Join(n.readEnrolAuthority(e), checkJoinable(n.layout, n.config), err); err != nil {
		n.log.Error("devices cannot join", "error", err)
		return nil
	}
	e.codes = codes
	server, err := n.loadServer(tls.VersionTLS13)
	if err != nil {
		return err
	}
	n.servers = append(n.servers, server)
	e.tls = server.RenewalConfig(time.Duration(n.config.Enrol.Grace))
	if e.server, err = n.newEnrolServer(e, server); err != nil {
		return err
	}
	if e.socket, err = net.Listen("tcp", string(n.config.Enrol.Address)); err != nil { //nolint:noctx // binding does not block
		return withHint(fmt.Errorf("listening on %s for devices that join: %w", n.config.Enrol.Address, err), "another program has the port (ss -ltnp shows it): choose another in [enrol], or remove the block")
	}
	n.enrolment = e
	n.log.Info("devices can join", "address", e.socket.Addr())
	return nil
}

func (n *node) newEnrolServer(e *enrolment, server *pki.Server) (*enrol.Server, error) {
	key, err := readSignKey(credential(signCredential, n.signKeyPath()))
	if err != nil {
		return nil, err
	}
	return enrol.NewServer(enrol.Config{
		Node: string(n.config.Node), NodeKey: key.Public(), MQTTPort: n.mqttPort(), Topics: n.commandTopics, Welcome: n.welcome,
		Authority: func() enrol.Authority { return *e.authority.Load() },
		Profile:   n.config.Enrol.profile(), Renewed: n.renewedProfile, Journal: pki.OpenJournal(n.layout.journal()), Codes: e.codes,
		Signers: joiningSigners{n}, Operator: n.operatorOf, Permit: n.mayBeCertified, CheckPeer: func(cs tls.ConnectionState) error {
			return server.CheckRenewal(cs, time.Duration(n.config.Enrol.Grace))
		},
		RevocationList: n.revocationList,
		Limits:         n.config.Enrol.limits(), Now: n.clock.FloorNow, Log: n.log.With("part", "enrol"),
	})
}

// renewedProfile lets what was issued by hand keep its length: an operator who gives a command twice a year was certified for
// longer than a device that is always on, and must not find that out after the first renewal.
func (n *node) renewedProfile(former *x509.Certificate) pki.Profile {
	profile := n.config.Enrol.profile()
	history, err := pki.ReadJournal(n.layout.journal())
	if err != nil {
		return profile // nothing is issued behind a damaged journal anyway
	}
	serial := pki.SerialText(former)
	for _, e := range history.Entries {
		if e.Event == pki.EventIssued && e.Profile == clientProfile && e.Serial == serial {
			profile.Name, profile.Lifetime = clientProfile, max(profile.Lifetime, pki.Lifetime(former))
		}
	}
	return profile
}

// readEnrolAuthority reads the authority again, which may have been replaced.
func (n *node) readEnrolAuthority(e *enrolment) error {
	anchors, err := readAnchors(n.layout)
	if err != nil {
		return err
	}
	authority, err := n.authority()
	if err != nil {
		return err
	}
	crosses, err := n.layout.crosses()
	if err != nil {
		return err
	}
	e.authority.Store(&enrol.Authority{Authority: authority, Anchors: anchors, Crosses: crosses})
	return nil
}

// reloadEnrolment goes with the reload of everything else. That the authority cannot be read must not keep a signer's
// revocation from taking effect.
func (n *node) reloadEnrolment() {
	if n.enrolment == nil {
		return
	}
	if err := n.readEnrolAuthority(n.enrolment); err != nil {
		n.log.Error("devices join under the authority as it was", "error", err)
	}
}

func (e *enrolment) run(ctx context.Context) error { return e.server.Run(ctx, e.socket, e.tls) }

// mqttPort is that of the first listener that devices could use.
func (n *node) mqttPort() uint16 {
	for i, l := range n.config.Listeners {
		if bound, ok := n.sockets[i].Addr().(*net.TCPAddr); ok && l.requiresCertificate() && !l.WebSocket {
			return uint16(bound.Port) //nolint:gosec // a port
		}
	}
	return 0
}

// commandTopics are those on which a name may command something.
func (n *node) commandTopics(signer string) []string {
	cfg := n.current.Load()
	var topics []string
	for _, p := range cfg.Permits {
		if string(p.Signer) != signer {
			continue
		}
		if o, ok := cfg.output(string(p.Output)); ok {
			topics = append(topics, strs(o.commandTopics(cfg.Node))...)
		}
	}
	return topics
}

// commandTopics are the topics on which an output takes sealed commands.
func (o outputConfig) commandTopics(node name) []topicName {
	var topics []topicName
	if o.Topic != "" {
		topics = append(topics, o.Topic)
	}
	return append(topics, topicName(agent.SetTopic(string(node), string(o.Name))))
}

// mayBeCertified refuses names that were revoked, and to tokens those of signers: who signs for devices is not to pass for
// the operator. A certificate of a node that does not know the time yet could be over when it does.
func (n *node) mayBeCertified(wanted string, byToken bool) error {
	switch {
	case n.config.Clock.Trust == "auto" && !n.clock.Trusted():
		return &pki.RefusedError{Reason: enrol.ReasonClock, Err: errors.New("the node does not know the time yet")}
	case n.current.Load().denies(wanted):
		return notPermitted("%q was revoked", wanted)
	case byToken && exists(n.layout.signer(wanted)):
		return notPermitted("%q is a signer, whom a token cannot certify", wanted)
	}
	return nil
}

func notPermitted(format string, args ...any) error {
	return &pki.RefusedError{Reason: enrol.ReasonNotPermitted, Err: fmt.Errorf(format, args...)}
}

// operatorOf reads the tokens anew each time, so that a revoked one is of no use at once.
func (n *node) operatorOf(token string) (string, error) {
	tokens, err := readTokens(n.layout)
	if err != nil {
		return "", err
	}
	return tokens.owner(token)
}

// addCode lets a device join with a code whose hash the command line gives us; the code itself never gets here before it is used.
func (n *node) addCode(device, hash string) error {
	if n.enrolment == nil {
		if n.config.enrols() {
			return errors.New("it lets no devices join, its log says why; pinseal doctor knows the cure")
		}
		return errors.New("it was started without [enrol] in its configuration")
	}
	now := n.clock.FloorNow()
	return n.enrolment.codes.Add(device, hash, now.Add(time.Duration(n.config.Enrol.CodeLifetime)), now)
}

// joiningSigners are the node's signers as devices that join see them.
type joiningSigners struct{ *node }

// Check wants a name and a key that are nobody's yet.
func (n joiningSigners) Check(device string, key *signing.PublicKey) error {
	if exists(n.layout.signer(device)) {
		return notPermitted("a signer is named %q already", device)
	}
	keyring, err := readKeyring(n.layout)
	if err != nil {
		return err
	}
	known := &pki.RefusedError{Reason: enrol.ReasonKnownKey, Err: errors.New("this signing key is trusted already, or was revoked, or is for encryption: make another")}
	encrypting, err := n.layout.encryption().publicIDs()
	if err != nil {
		return err
	}
	if slices.Contains(encrypting, key.ID()) {
		return known
	}
	if _, trusted := keyring.Lookup(key.ID()); trusted {
		return known
	}
	if _, err := os.Lstat(revokedKey(n.layout, key.ID())); err == nil {
		return known
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finding out whether the key was revoked: %w", err)
	}
	return nil
}

// Add puts the key beside those of the other devices that joined, and has the agent trust it.
func (n joiningSigners) Add(device string, key *signing.PublicKey) error {
	if _, err := makeFolder(n.layout.joined()); err != nil {
		return err
	}
	if err := atomicfile.Create(filepath.Join(n.layout.joined(), device+".pem"), key.PEM(), 0o644); err != nil {
		return err
	}
	n.loading.Lock()
	defer n.loading.Unlock()
	return n.denySigners(n.current.Load())
}

// enrolAddress is where devices reach a node's enrolment: its host as the operator reaches it.
func (c *deviceAddCmd) enrolAddress(l layout, cfg *config) (host string, port uint16, err error) {
	if !cfg.enrols() {
		return "", 0, withHint(errors.New("this node lets no devices join: its configuration has no [enrol]"),
			"write [enrol] with address = %s into %s and restart the node; or --out FOLDER makes the device's keys here", strconv.Quote(defaultEnrol), l.config)
	}
	if port, err = cfg.Enrol.port(); err != nil { // was checked when it was read
		return "", 0, err
	}
	client, err := c.clientConfig(l, cfg)
	return client.Host, port, err
}
