package renewal_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/pki/renewal"
	"pinseal/signing"
)

const (
	day      = 24 * time.Hour
	grace    = 30 * day
	nodeName = "raspiflow"
)

// world is a node whose machine changes its address and whose authority is replaced, and the time.
type world struct {
	t   *testing.T
	dir string
	now atomic.Int64

	authority *pki.Authority
	enrols    atomic.Pointer[enrol.Authority]
	cross     []*x509.Certificate
	address   string // the present one
	names     []string
	broker    *renewal.Holder
	server    *pki.Server
	enrolment string // where certificates are renewed
	issuedBy  map[string]*x509.Certificate
}

func (w *world) time() time.Time { return time.Unix(w.now.Load(), 0) }

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("day %d: %v", w.day(), err)
	}
}

var begin = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

func (w *world) day() int { return int(w.time().Sub(begin) / day) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), address: "192.0.2.1", names: []string{"localhost", "192.0.2.1"}, issuedBy: map[string]*x509.Certificate{}}
	w.now.Store(begin.Unix())
	var err error
	w.authority, err = pki.CreateAuthority("the authority", begin)
	w.check(err)
	w.trust(w.authority)
	files := pki.Files{Certificate: w.path("broker.crt"), Key: w.path("broker.key")}
	w.broker = &renewal.Holder{Files: files, Obtain: w.certifyBroker, Try: w.tryBroker, Now: w.time}
	w.issue(files, func(key crypto.Signer) (renewal.Obtained, error) { return w.certifyBroker(t.Context(), key) })
	files.CA = w.path("ca.crt")
	w.server, err = pki.LoadServer(files, 0, w.time)
	w.check(err)
	w.serveEnrolment()
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// trust makes these the anchors, the first of them the one that issues.
func (w *world) trust(all ...*pki.Authority) {
	var certs []*x509.Certificate
	for _, a := range all {
		certs = append(certs, a.Certificate())
	}
	w.check(atomicfile.Write(w.path("ca.crt"), pki.EncodeCertificates(certs...), 0o644))
	w.enrols.Store(&enrol.Authority{Authority: all[0], Anchors: certs})
}

// issue writes a first key and certificate.
func (w *world) issue(files pki.Files, certify func(crypto.Signer) (renewal.Obtained, error)) {
	key, err := pki.GenerateKey()
	w.check(err)
	text, err := pki.MarshalKey(key)
	w.check(err)
	got, err := certify(key)
	w.check(err)
	w.check(os.WriteFile(files.Key, text, 0o600))
	w.check(os.WriteFile(files.Certificate, pki.EncodeCertificates(got.Chain...), 0o644))
}

func (w *world) certifyBroker(_ context.Context, key crypto.Signer) (renewal.Obtained, error) {
	cert, err := w.authority.RenewServer(nodeName, w.names, key.Public(), 90*day, w.time())
	return renewal.Obtained{Chain: append([]*x509.Certificate{cert}, w.cross...)}, err
}

func (w *world) tryBroker(_ context.Context, staged pki.Files) error {
	staged.CA = w.path("ca.crt")
	_, err := pki.LoadServer(staged, 0, w.time)
	return err
}

func (w *world) serveEnrolment() {
	key, err := signing.GenerateKey(signing.ES256)
	w.check(err)
	codes, err := enrol.OpenCodes(w.path("codes"))
	w.check(err)
	server, err := enrol.NewServer(enrol.Config{
		Node: nodeName, NodeKey: key.Public(), Authority: func() enrol.Authority { return *w.enrols.Load() },
		Profile: pki.Profile{Name: "device"}, Journal: pki.OpenJournal(w.path("journal")), Codes: codes, Signers: nobody{},
		Operator: func(string) (string, error) { return "", errors.New("nobody") },
		Permit:   func(string, bool) error { return nil },
		Topics:   func(string) []string { return nil },
		Welcome: func(string, *signing.PublicKey, []byte) ([]byte, func() error, error) {
			return nil, nil, errors.New("no")
		},
		CheckPeer: func(cs tls.ConnectionState) error { return w.server.CheckRenewal(cs, grace) },
		Limits:    enrol.Limits{MaxRequests: 1 << 30},
		Now:       w.time, Log: slog.New(slog.DiscardHandler),
	})
	w.check(err)
	listener, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	w.check(err)
	w.enrolment = listener.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, listener, w.server.RenewalConfig(grace)) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

type nobody struct{}

func (nobody) Check(string, *signing.PublicKey) error { return errors.New("no") }
func (nobody) Add(string, *signing.PublicKey) error   { return errors.New("no") }

// care is what the node does every day.
func (w *world) care() {
	current, err := w.broker.Current()
	w.check(err)
	if w.time().Before(renewal.Due(current)) && current.VerifyHostname(w.address) == nil && current.CheckSignatureFrom(w.authority.Certificate()) == nil {
		return
	}
	w.check(w.broker.Renew(w.t.Context()))
	w.check(w.server.Reload())
}

// move gives the machine another address.
func (w *world) move(random *rand.Rand) {
	w.address = fmt.Sprintf("192.0.2.%d", 1+random.IntN(250))
	w.names = []string{"localhost", w.address}
}

// rotate replaces the authority, as pinseal ca rotate does.
func (w *world) rotate() {
	old := w.authority
	made, err := pki.CreateAuthority(fmt.Sprintf("the authority since day %d", w.day()), w.time())
	w.check(err)
	cross, err := old.Cross(made, w.time())
	w.check(err)
	w.trust(made, old)
	w.authority, w.cross = made, []*x509.Certificate{cross}
	w.check(w.server.Reload())
}

// retire trusts the old authority no longer, once nobody depends on it, as pinseal ca retire does.
func (w *world) retire(devices []*device) bool {
	for _, d := range devices {
		current, err := d.holder.Current()
		w.check(err)
		if current.CheckSignatureFrom(w.authority.Certificate()) != nil {
			return false
		}
	}
	w.cross = nil
	w.trust(w.authority)
	w.check(w.server.Reload())
	return true
}

// device is one that is switched off now and then.
type device struct {
	*world
	name    string
	holder  *renewal.Holder
	until   time.Time // it is away
	renewed int
	expired int
}

func (w *world) newDevice(number int) *device {
	d := &device{world: w, name: fmt.Sprintf("sensor-%d", number)}
	dir := w.path(d.name)
	w.check(os.Mkdir(dir, 0o700))
	files := pki.Files{Certificate: filepath.Join(dir, "client.crt"), Key: filepath.Join(dir, "client.key"), CA: filepath.Join(dir, "ca.crt")}
	w.issue(files, func(key crypto.Signer) (renewal.Obtained, error) {
		csr, err := pki.CreateRequest(d.name, key)
		w.check(err)
		request, err := pki.ParseRequest(csr)
		w.check(err)
		cert, err := w.authority.Sign(request, d.name, pki.Profile{}, w.time())
		return renewal.Obtained{Chain: []*x509.Certificate{cert}}, err
	})
	w.check(os.WriteFile(files.CA, w.authority.CertificatePEM(), 0o644))
	d.holder = &renewal.Holder{Files: files, Obtain: d.obtain, Try: d.connect, Now: w.time}
	return d
}

func (d *device) obtain(ctx context.Context, key crypto.Signer) (renewal.Obtained, error) {
	config, err := pki.RenewalConfig(d.holder.Files, d.address, d.time)
	if err != nil {
		return renewal.Obtained{}, err
	}
	chain, anchors, err := enrol.Renew(ctx, d.enrolment, d.name, key, config, nil)
	return renewal.Obtained{Chain: chain, Anchors: anchors}, err
}

// connect is a handshake with the broker, each side judging the other.
func (d *device) connect(ctx context.Context, files pki.Files) error {
	config, err := pki.ClientConfig(files, d.address, d.time)
	if err != nil {
		return err
	}
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // a pipe
	defer far.Close()  //nolint:errcheck // a pipe
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(far, d.server.Config())
		err := conn.HandshakeContext(ctx)
		if err == nil {
			_, err = conn.Write([]byte("welcome"))
		}
		_ = far.Close()
		served <- err
	}()
	_, err = io.ReadFull(tls.Client(near, config), make([]byte, len("welcome")))
	_ = near.Close()
	return errors.Join(err, <-served)
}

// live is what a device does when it is on. It must be able to connect, whatever happened while it was off.
func (d *device) live(random *rand.Rand) {
	ctx := d.t.Context()
	d.check(d.holder.Settle())
	current, err := d.holder.Current()
	d.check(err)
	if !d.time().Before(renewal.Due(current)) {
		if d.time().After(current.NotAfter) {
			d.expired++
		} else if random.IntN(3) == 0 {
			return // the network was down
		}
		d.check(d.holder.Renew(ctx))
		d.renewed++
	}
	if random.IntN(4) == 0 || d.time().Sub(d.until) < day { // and always on its first day back
		if err := d.connect(ctx, d.holder.Files); err != nil {
			d.t.Fatalf("day %d: %s is locked out: %v", d.day(), d.name, err)
		}
	}
	if random.IntN(30) == 0 { // off for up to seven weeks
		d.until = d.time().Add(time.Duration(random.IntN(50)) * day)
	}
}

// Devices are off for weeks, the node's address changes, its authority is replaced twice: nobody is locked out, and no hand
// is moved. PINSEAL_RENEWAL_DAYS is for how long; 400 days are tried anyway.
func TestNobodyIsLockedOut(t *testing.T) {
	t.Parallel()
	days := 400
	if text := os.Getenv("PINSEAL_RENEWAL_DAYS"); text != "" {
		if _, err := fmt.Sscan(text, &days); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(1, uint64(days)))
	w := newWorld(t)
	var devices []*device
	for i := range 8 {
		devices = append(devices, w.newDevice(i))
	}
	rotations, retired, rotating := 0, 0, false
	for range days {
		w.now.Add(int64(day / time.Second))
		if random.IntN(20) == 0 {
			w.move(random)
		}
		switch {
		case rotating:
			if w.retire(devices) {
				rotating = false
				retired++
			}
		case w.day() > 30*(1+4*rotations):
			w.rotate()
			rotating = true
			rotations++
		}
		w.care()
		for _, d := range devices {
			if !d.time().Before(d.until) {
				d.live(random)
			}
		}
	}
	renewed, expired := 0, 0
	for _, d := range devices {
		renewed += d.renewed
		expired += d.expired
	}
	t.Logf("%d days: %d renewals, %d of them after the end, %d rotations, %d completed", days, renewed, expired, rotations, retired)
	if days >= 400 && (renewed < 4*len(devices) || expired == 0 || rotations < 2 || retired < 1) {
		t.Error("not enough has happened")
	}
}
