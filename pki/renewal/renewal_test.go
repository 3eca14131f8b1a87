package renewal_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/pki"
	"pinseal/pki/renewal"
)

// bench is a holder whose authority and broker do as they are told.
type bench struct {
	*renewal.Holder
	t         *testing.T
	authority *pki.Authority
	now       time.Time
	obtain    error // what the authority says
	try       error // what the broker says
	obtained  int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	authority, err := pki.CreateAuthority("authority", begin)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, authority: authority, now: begin}
	dir := t.TempDir()
	b.Holder = &renewal.Holder{
		Files:  pki.Files{Certificate: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca")},
		Obtain: b.certify, Try: func(_ context.Context, f pki.Files) error { return errors.Join(b.try, b.usable(f)) },
		Now: func() time.Time { return b.now },
	}
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.certify(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := pki.MarshalKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{b.Files.Key: text, b.Files.Certificate: pki.EncodeCertificates(got.Chain...), b.Files.CA: authority.CertificatePEM()} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.obtained = 0
	return b
}

func (b *bench) certify(_ context.Context, key crypto.Signer) (renewal.Obtained, error) {
	if b.obtain != nil {
		return renewal.Obtained{}, b.obtain
	}
	b.obtained++
	cert, err := b.authority.RenewServer("x", []string{"x"}, key.Public(), 90*day, b.now)
	return renewal.Obtained{Chain: []*x509.Certificate{cert}, Anchors: []*x509.Certificate{b.authority.Certificate()}}, err
}

// usable wants files that can serve.
func (b *bench) usable(f pki.Files) error {
	_, err := pki.LoadServer(f, 0, func() time.Time { return b.now })
	return err
}

func (b *bench) serial() string {
	b.t.Helper()
	cert, err := b.Current()
	if err != nil {
		b.t.Fatal(err)
	}
	return pki.SerialText(cert)
}

// leftovers are the files that are not in force.
func (b *bench) leftovers() []string {
	b.t.Helper()
	found, err := filepath.Glob(b.Files.Key + "/../*.next")
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

// Whatever fails, what is in force stays in force, and the next attempt goes on from there.
func TestOldStaysUntilNewHasConnected(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.serial()
	b.obtain = errors.New("the node is away")
	for range 3 {
		if err := b.Renew(t.Context()); !errors.Is(err, b.obtain) {
			t.Fatal(err)
		}
	}
	staged, err := os.ReadFile(b.Attempted())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(b.Attempted()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the staged key has mode %v, %v", info.Mode(), err)
	}
	b.obtain, b.try = nil, errors.New("refused")
	for range 3 {
		if err := b.Renew(t.Context()); !errors.Is(err, b.try) {
			t.Fatal(err)
		}
	}
	if b.obtained != 1 {
		t.Errorf("%d certificates for one key", b.obtained)
	}
	if b.serial() != before || b.usable(b.Files) != nil {
		t.Error("what is in force has changed")
	}
	b.try = nil
	if err := b.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if key, err := os.ReadFile(b.Files.Key); err != nil || string(key) != string(staged) || b.serial() == before {
		t.Error("the tried pair is not in force")
	}
	if err := b.usable(b.Files); err != nil {
		t.Error(err)
	}
	if left := b.leftovers(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// A staged certificate that has grown old meanwhile is not put into force.
func TestStaleStagedCertificateIsObtainedAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.try = errors.New("refused")
	if err := b.Renew(t.Context()); err == nil {
		t.Fatal("renewed")
	}
	b.try, b.now = nil, begin.Add(80*day)
	if err := b.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if cert, err := b.Current(); err != nil || b.obtained != 2 || !b.now.Before(renewal.Due(cert)) {
		t.Errorf("%d obtained, %v", b.obtained, err)
	}
}

// The power is cut after each step of the exchange: afterwards a pair that belongs together is in force.
func TestPowerCutDuringTheExchange(t *testing.T) {
	t.Parallel()
	for step := range 4 {
		b := newBench(t)
		b.try = errors.New("not yet")
		if err := b.Renew(t.Context()); err == nil {
			t.Fatal("renewed")
		}
		moves := [][2]string{{b.Files.CA + ".next", b.Files.CA}, {b.Files.Certificate + ".next", b.Files.Certificate}, {b.Files.Key + ".next", b.Files.Key}}
		for _, move := range moves[:step] {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Settle(); err != nil {
			t.Fatal(err)
		}
		if err := b.usable(b.Files); err != nil {
			t.Errorf("after step %d: %v", step, err)
		}
		b.try = nil
		if err := b.Renew(t.Context()); err != nil || b.usable(b.Files) != nil {
			t.Errorf("after step %d it cannot be renewed: %v", step, err)
		}
	}
}

// Of a staged key that is damaged nothing depends but the time of another attempt.
func TestDamagedStagedKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := os.WriteFile(b.Attempted(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Settle(); err != nil {
		t.Errorf("settling: %v", err)
	}
	before := b.serial()
	if err := b.Renew(t.Context()); err != nil || b.usable(b.Files) != nil || b.serial() == before {
		t.Errorf("renewing: %v", err)
	}
}

// Root, who gives a command with somebody's bundle on the day that it is due, locks nobody out. As any other user the owner is the same anyway.
func TestFilesStayTheirOwners(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	uid := os.Getuid()
	files := []string{b.Files.Key, b.Files.Certificate, b.Files.CA}
	for _, path := range files {
		if uid != 0 {
			break
		}
		if err := os.Chown(path, 12345, 12346); err != nil {
			t.Fatal(err)
		}
	}
	if uid == 0 {
		uid = 12345
	}
	other, err := pki.CreateAuthority("other", begin)
	if err != nil {
		t.Fatal(err)
	}
	b.Obtain = func(ctx context.Context, key crypto.Signer) (renewal.Obtained, error) {
		got, err := b.certify(ctx, key)
		got.Anchors = append(got.Anchors, other.Certificate())
		return got, err
	}
	for _, fails := range []error{errors.New("not yet"), nil} {
		b.try = fails
		if err := b.Renew(t.Context()); (err == nil) != (fails == nil) {
			t.Fatal(err)
		}
		for _, path := range append(files, b.leftovers()...) {
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != uid {
				t.Errorf("%s belongs to %d, not to %d", path, stat.Uid, uid)
			}
		}
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Obtain = func(ctx context.Context, _ crypto.Signer) (renewal.Obtained, error) {
		other, err := pki.GenerateKey()
		if err != nil {
			return renewal.Obtained{}, err
		}
		return b.certify(ctx, other)
	}
	if err := b.Renew(t.Context()); err == nil || b.usable(b.Files) != nil {
		t.Errorf("renewed with another key: %v", err)
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	authority, err := pki.CreateAuthority("authority", begin)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[time.Time]bool{}
	for range 50 {
		cert, err := authority.RenewServer("x", []string{"x"}, key.Public(), 89*day, begin)
		if err != nil {
			t.Fatal(err)
		}
		due := renewal.Due(cert)
		if after := due.Sub(cert.NotBefore); after < 60*day || after > 60*day+90*day/20 || !renewal.Due(cert).Equal(due) {
			t.Errorf("due after %v", after)
		}
		seen[due] = true
	}
	if len(seen) < 45 {
		t.Errorf("%d different times of 50", len(seen))
	}
}

// For weeks the node is away; as soon as it is back, the certificate is renewed, without anybody doing anything.
func TestRunGoesOnForWeeks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		start := time.Now() //nolint:forbidigo // the bubble's
		b.Now = func() time.Time { return begin.Add(60 * day).Add(time.Since(start)) }
		var back atomic.Bool
		b.Obtain = func(ctx context.Context, key crypto.Signer) (renewal.Obtained, error) {
			if !back.Load() {
				return renewal.Obtained{}, errors.New("the node is away")
			}
			cert, err := b.authority.RenewServer("x", []string{"x"}, key.Public(), 90*day, b.Now())
			return renewal.Obtained{Chain: []*x509.Certificate{cert}}, err
		}
		b.Try = func(context.Context, pki.Files) error { return nil }
		ctx, stop := context.WithCancel(t.Context())
		var failures, renewals atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.Run(ctx, func() { renewals.Add(1) }, func(error, time.Time) { failures.Add(1) })
		}()
		time.Sleep(25 * day)
		synctest.Wait()
		if n := failures.Load(); n < 24*19 || n > 24*25+10 || renewals.Load() != 0 {
			t.Errorf("%d failures, %d renewals in 25 days", n, renewals.Load())
		}
		back.Store(true)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := renewals.Load(); n != 1 {
			t.Errorf("%d renewals within an hour after the node came back", n)
		}
		stop()
		<-ended
	})
}
