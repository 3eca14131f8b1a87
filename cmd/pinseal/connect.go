package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"pinseal/internal/mqtt"
	"pinseal/pki"
	"pinseal/pki/renewal"
	"pinseal/signing"
	"pinseal/systemd"
)

// connectFlags say which broker to reach and who one is; a bundle answers all of it.
// The short ones are those of mosquitto_pub and mosquitto_sub.
type connectFlags struct {
	Bundle   string `help:"Folder with everything a client needs." env:"PINSEAL_BUNDLE" placeholder:"FOLDER"`
	Host     string `short:"h" help:"Host of the broker." placeholder:"HOST"`
	Port     uint16 `short:"p" help:"Port of the broker." placeholder:"PORT"`
	ID       string `short:"i" help:"MQTT client id; default: a random one." placeholder:"ID"`
	Username string `short:"u" help:"MQTT user name." placeholder:"NAME"`
	Password string `short:"P" name:"pw" help:"MQTT password." placeholder:"WORD"`
	CAFile   string `name:"cafile" help:"Certificates of the authority that the broker's must come from." type:"existingfile" placeholder:"FILE"`
	Cert     string `help:"This client's certificate." type:"existingfile" placeholder:"FILE"`
	Key      string `help:"The certificate's private key." type:"existingfile" placeholder:"FILE"`
	Insecure bool   `help:"Do not compare the broker's certificate with the host's name."`
	Debug    bool   `short:"d" help:"Tell what happens on standard error."`
	Node     string `help:"Name of the node." placeholder:"NAME"`
	Name     string `help:"Name under which the node knows this client; default: the certificate's." placeholder:"NAME"`
	SignKey  string `help:"Private signing key." type:"existingfile" placeholder:"FILE"`

	DecryptKey string `help:"Private key or keys for what is encrypted." type:"existingfile" placeholder:"FILE"`

	Signers string `help:"Folder of public signing keys to verify with, the node's among them." type:"existingdir" placeholder:"FOLDER"`
}

// client is what a command knows about itself once flags and bundle are put together.
type client struct {
	connectFlags
	renewal *renewal.Holder // nil: by hand
	files   pki.Files
	topics  []topicName
	secrets encryptionFiles

	encryptTo []string // whatever the bundle says
	encrypt   []encryptRule
	log       *slog.Logger
	now       func() time.Time
	warn      func(text string) // tells whoever gave the command
}

// defaultBundle is where init leaves the first operator's on the node itself.
func defaultBundle() string { return layoutUnder("").bundle("operator") }

// localBundle is the first operator's on the node itself; "" elsewhere.
func localBundle() string {
	if exists(defaultBundle()) {
		return defaultBundle()
	}
	return ""
}

// noBundle says that neither a bundle nor the flag tells what is needed.
func noBundle(flag string) error {
	err := fmt.Errorf("no bundle and no %s: which node, and with whose keys?", flag)
	if _, stat := os.Lstat(defaultBundle()); errors.Is(stat, os.ErrPermission) {
		return usageError(withHint(err, "on this node the operator's keys are root's: sudo pinseal …, or --bundle with a copy of %s", defaultBundle()))
	}
	return usageError(withHint(err, "--bundle FOLDER or PINSEAL_BUNDLE=FOLDER; pinseal init and pinseal device add make such folders"))
}

// client puts the flags and the bundle together; a flag wins.
func (f connectFlags) client(std streams) (*client, error) {
	if f.Bundle == "" && f.CAFile == "" {
		f.Bundle = localBundle()
	}
	c := &client{log: slog.New(slog.DiscardHandler), now: std.clock(), warn: func(text string) {
		fmt.Fprintf(std.err, "pinseal: %s\n", text)
	}}
	if f.Debug {
		c.log = slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if f.Bundle != "" {
		b, err := readBundle(f.Bundle)
		if err != nil {
			return nil, err
		}
		if f.Cert == "" && f.Key == "" {
			c.renewal = b.newRenewal(c.now)
		}
		if c.renewal != nil {
			if err := c.renewal.Settle(); err != nil {
				return nil, err
			}
		}
		f.fillIn(b)
		c.topics, c.encrypt, c.secrets = b.client.Topics, b.client.Encrypt, b.encryption()
	}
	c.connectFlags = f
	c.secrets.own = orDefault(f.DecryptKey, c.secrets.own)
	c.files = pki.Files{Certificate: f.Cert, Key: f.Key, CA: f.CAFile}
	return c, nil
}

func (f *connectFlags) fillIn(b bundle) {
	f.Host = orDefault(f.Host, b.client.Host)
	if f.Port == 0 {
		f.Port = b.client.Port
	}
	f.Node = orDefault(f.Node, string(b.client.Node))
	f.Name = orDefault(f.Name, string(b.client.Name))
	f.CAFile = orDefault(f.CAFile, b.caCert())
	f.Cert = orDefault(f.Cert, b.clientCert())
	f.Key = orDefault(f.Key, b.clientKey())
	f.SignKey = orDefault(f.SignKey, b.signKey())
	f.Signers = orDefault(f.Signers, b.signers())
}

// defaultName takes the name from the client's certificate if none was given.
func (c *client) defaultName() error {
	if c.Name != "" {
		return nil
	}
	if c.Cert == "" {
		return usageError(withHint(errors.New("known to the node by which name?"), "--bundle FOLDER or the certificate (--cert FILE) says it, or --name NAME"))
	}
	certificate, err := readCertificate(c.Cert)
	if err != nil {
		return err
	}
	if c.Name, err = pki.Identity(certificate); err != nil {
		return withHint(fmt.Errorf("%s: %w", c.Cert, err), "--name NAME says under which name the node trusts your signing key")
	}
	return nil
}

// readCertificate reads the first certificate of a file, which is the owner's.
func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	chain, err := pki.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return chain[0], nil
}

// connect reaches the broker; the caller gives what handles messages and connections, and the subscriptions, in cfg.
func (c *client) connect(ctx context.Context, cfg mqtt.Config) (*mqtt.Client, error) {
	c.renewExpired(ctx)
	dial, err := c.dialer()
	if err != nil {
		return nil, err
	}
	cfg.Dial, cfg.ClientID, cfg.Username, cfg.Password, cfg.Log = dial, c.ID, c.Username, c.Password, c.log
	cfg.KeepAlive = 30 * time.Second
	up, down := cfg.OnUp, cfg.OnDown
	cfg.OnUp = func() {
		c.log.Info("connected and subscribed", "host", c.Host)
		if up != nil {
			up()
		}
	}
	cfg.OnDown = func(err error) {
		c.log.Info("connection lost", "host", c.Host, "error", err)
		if down != nil {
			down(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	connection, err := mqtt.Connect(ctx, cfg)
	if err != nil {
		return nil, c.explain(err)
	}
	return connection, nil
}

func (c *client) dialer() (func(context.Context) (net.Conn, error), error) {
	if c.CAFile == "" {
		return nil, noBundle("--cafile")
	}
	host, port := orDefault(c.Host, "localhost"), c.Port
	if port == 0 {
		port = 8883
	}
	if _, err := c.tlsConfig(host); err != nil { // say so before anything is tried
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) {
		config, err := c.tlsConfig(host) // anew: the certificate may have been renewed
		if err != nil {
			return nil, err
		}
		return dialTLS(net.JoinHostPort(host, strconv.Itoa(int(port))), config)(ctx)
	}, nil
}

func (c *client) tlsConfig(host string) (*tls.Config, error) {
	config, err := pki.ClientConfig(c.files, host, c.now)
	if err != nil {
		return nil, explainTLS(err)
	}
	if c.Insecure {
		ignoreHostName(config)
	} else {
		pki.DoubtClock(config, func() bool { return !systemd.ClockSynchronized() })
	}
	return config, nil
}

// ignoreHostName keeps the check of the chain and drops that of the name, as mosquitto's --insecure does.
func ignoreHostName(cfg *tls.Config) {
	roots, now := cfg.RootCAs, cfg.Time
	cfg.InsecureSkipVerify = true // asked for; the chain is verified all the same
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now()}
		for _, certificate := range cs.PeerCertificates[1:] {
			options.Intermediates.AddCert(certificate)
		}
		_, err := cs.PeerCertificates[0].Verify(options)
		return err
	}
}

// dialTLS gives what connects to address over TLS.
func dialTLS(address string, cfg *tls.Config) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := dialTCP(ctx, address)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secured, nil
	}
}

// explain words a failed connection for a person.
func (c *client) explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return withCode(exitNoAnswer, withHint(fmt.Errorf("no answer from %s: %w", c.Host, err), "is the node running, and is the port open? pinseal run prints its address"))
	}
	if errors.Is(err, mqtt.ErrSubscriptionRefused) {
		return withHint(err, "the [[acl]] blocks in the node's pinseal.toml say who may subscribe to what")
	}
	if problem, hint := pki.Explain(err); hint != "" {
		return withHint(fmt.Errorf("connecting to %s: %s", c.Host, problem), "%s", hint)
	}
	err = fmt.Errorf("connecting to %s: %w", c.Host, err)
	if _, unknown := errors.AsType[*net.DNSError](err); unknown {
		return withHint(err, "give the node's address: -h ADDRESS; names ending in .local need avahi and libnss-mdns")
	}
	if errors.Is(err, mqtt.ErrNotAuthorised) {
		return withHint(err, "%s", c.refusalHint())
	}
	return withHint(err, "is the node running, and is that its port? pinseal run prints its address when it is ready")
}

// refusalHint is the likely cure where the broker does not want this client.
func (c *client) refusalHint() string {
	switch {
	case c.Username != "" && c.Cert != "":
		return "the certificate says who you are: leave -u and -P out"
	case c.Username != "":
		return "user name or password are wrong; on the node, pinseal passwd sets them"
	}
	return "the node's log says why; whoever was revoked has to join again"
}

// readSigners gives the keys that signatures are verified with.
func (c *client) readSigners() (*signing.Keyring, error) {
	if c.Signers == "" {
		return nil, usageError(withHint(errors.New("no public keys to verify with"), "--bundle FOLDER, or --signers FOLDER with the node's public key in NODE.pem"))
	}
	keys, err := signing.ReadKeyring(c.Signers)
	if errors.Is(err, os.ErrNotExist) {
		return nil, withHint(err, "a bundle is copied with all that is in it, the folder signers too")
	}
	return keys, err
}
