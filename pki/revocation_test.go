package pki_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
)

// signCRL signs what an authority of ours would not.
func signCRL(t *testing.T, a *pki.Authority, template *x509.RevocationList) []byte {
	t.Helper()
	text, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.Certificate(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func serialOf(t *testing.T, f pki.Files) *big.Int {
	t.Helper()
	return parseOne(t, read(t, f.Certificate)).SerialNumber
}

func stateOf(t *testing.T, f pki.Files) tls.ConnectionState {
	t.Helper()
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{parseOne(t, read(t, f.Certificate))}}
}

func TestDenyListRefuses(t *testing.T) {
	t.Parallel()
	authority, dir := newAuthority(t), t.TempDir()
	lost := issueClient(t, authority, dir, "sensor-1", now)
	lostState, lostSerial := stateOf(t, lost), serialOf(t, lost)
	lostTLS := raw(t, lost)
	files := issueServer(t, authority, dir, now)
	files.Denied = filepath.Join(dir, "denied")
	server := loadServer(t, files, now)
	if err := server.Check(lostState); err != nil {
		t.Fatal(err)
	}

	var list pki.DenyList
	list.Deny("sensor-1", []*big.Int{lostSerial}, now)
	write(t, dir, "denied", list.Text())
	if err := server.ReloadRevocations(); err != nil {
		t.Fatal(err)
	}
	wantError(t, server.Check(lostState), "certificate of sensor-1: revoked")
	got, err := connect(t, server.Config(), lostTLS)
	wantError(t, got.err, "certificate of sensor-1: revoked")
	if problem, hint := pki.Explain(err); problem == "" || !strings.Contains(hint, "revoked") {
		t.Errorf("Explain(%v) = %q, %q", err, problem, hint)
	}
	wantError(t, loadServer(t, files, now).Check(lostState), "revoked") // after a restart

	// A new certificate does not help as long as the name is denied, the old one never again.
	found := issueClient(t, authority, t.TempDir(), "sensor-1", now)
	wantError(t, server.Check(stateOf(t, found)), "revoked")
	list.Admit("sensor-1")
	write(t, dir, "denied", list.Text())
	if err := server.ReloadRevocations(); err != nil {
		t.Fatal(err)
	}
	if err := server.Check(stateOf(t, found)); err != nil {
		t.Error(err)
	}
	wantError(t, server.Check(lostState), "revoked")

	// A damaged list changes nothing in a running server, and starts none.
	write(t, dir, "denied", []byte("name sensor-2\n"))
	wantFileError(t, server.ReloadRevocations(), files.Denied, "line 1: neither")
	wantFileError(t, server.Reload(), files.Denied, "line 1: neither")
	wantError(t, server.Check(lostState), "revoked")
	_, err = pki.LoadServer(files, 0, at(now))
	wantFileError(t, err, files.Denied, "line 1: neither")
}

// A ticket from before the revocation lets nobody in.
func TestRevokedSessionIsNotResumed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.server.Denied = filepath.Join(f.dir, "denied")
	server := loadServer(t, f.server, now)
	tickets := server.Config()
	client := clientConfig(t, f.client, now)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		got, err := connect(t, tickets, client)
		if err != nil || got.err != nil || got.state.DidResume != resumed {
			t.Fatalf("client %v, server %v, resumed %v, want %v", err, got.err, got.state.DidResume, resumed)
		}
	}
	var list pki.DenyList
	list.Deny("sensor-1", nil, now)
	write(t, f.dir, "denied", list.Text())
	if err := server.ReloadRevocations(); err != nil {
		t.Fatal(err)
	}
	got, _ := connect(t, tickets, client)
	wantError(t, got.err, "sensor-1", "revoked")

	// Who is let in again shows a certificate first.
	list.Admit("sensor-1")
	write(t, f.dir, "denied", list.Text())
	if err := server.ReloadRevocations(); err != nil {
		t.Fatal(err)
	}
	got, err := connect(t, tickets, client)
	if err != nil || got.err != nil || got.state.DidResume {
		t.Errorf("client %v, server %v, resumed %v", err, got.err, got.state.DidResume)
	}
}

func TestRevocationLists(t *testing.T) {
	t.Parallel()
	authority, foreign, dir := newAuthority(t), newAuthority(t), t.TempDir()
	client := issueClient(t, authority, dir, "sensor-1", now)
	good := issueClient(t, authority, dir, "sensor-2", now)
	template := func(serials ...*big.Int) *x509.RevocationList {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(7 * day)}
		for _, serial := range serials {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now})
		}
		return list
	}
	delta := template(serialOf(t, client))
	delta.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
	older := template()
	older.ThisUpdate = now.Add(-day)
	revoking := signCRL(t, authority, template(serialOf(t, client)))
	block, _ := pem.Decode(revoking)
	tests := []struct {
		name          string
		crl           []byte
		clock         time.Duration
		load          string // error of loading
		lost, another string // what Check says of each
	}{
		{name: "revoked", crl: revoking, lost: "revoked"},
		{name: "DER", crl: block.Bytes, lost: "revoked"},
		{name: "nobody revoked", crl: signCRL(t, authority, template())},
		{name: "last second", crl: revoking, clock: 7 * day, lost: "revoked"},
		{name: "over", crl: revoking, clock: 7*day + time.Second, lost: "revoked", another: "was good until 2031-05-13"},
		{name: "from the future", crl: revoking, clock: -day, lost: "revoked"},
		{name: "two, the newer counts", crl: append(signCRL(t, authority, older), revoking...), lost: "revoked"},
		{name: "two, the older comes last", crl: append(append([]byte{}, revoking...), signCRL(t, authority, older)...), lost: "revoked"},
		{name: "foreign", crl: signCRL(t, foreign, template(serialOf(t, client))), load: "signed by none of the trusted authorities"},
		{name: "part of a list", crl: signCRL(t, authority, delta), load: "critical extension 2.5.29.27"},
		{name: "cut", crl: block.Bytes[:len(block.Bytes)-1], load: "parsing revocation list"},
		{name: "a certificate", crl: authority.CertificatePEM(), load: "no X509 CRL block, only CERTIFICATE"},
		{name: "empty", crl: nil, load: "parsing revocation list"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := issueServer(t, authority, t.TempDir(), now)
			files.CRL = write(t, t.TempDir(), "crl.pem", tt.crl)
			server, err := pki.LoadServer(files, 0, at(now.Add(tt.clock)))
			if tt.load != "" {
				wantFileError(t, err, files.CRL, tt.load)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for f, want := range map[pki.Files]string{client: tt.lost, good: tt.another} {
				err := server.Check(stateOf(t, f))
				if want == "" && err != nil {
					t.Error(err)
				} else if want != "" {
					wantError(t, err, want)
				}
			}
		})
	}
	files := issueServer(t, authority, t.TempDir(), now)
	files.CRL = filepath.Join(dir, "missing")
	_, err := pki.LoadServer(files, 0, at(now))
	wantFileError(t, err, files.CRL, "no such file")
}

// OpenSSL understands our list, and its numbers rise.
func TestRevocationListForOthers(t *testing.T) {
	t.Parallel()
	authority, dir := newAuthority(t), t.TempDir()
	lost, good := issueClient(t, authority, dir, "sensor-1", now), issueClient(t, authority, dir, "sensor-2", now)
	var denied pki.DenyList
	var previous []byte
	for i := range 3 {
		list, err := authority.RevocationList(&denied, previous, now)
		if err != nil {
			t.Fatal(err)
		}
		lists, err := pki.ParseRevocationLists(list)
		if err != nil {
			t.Fatal(err)
		}
		if old, err := pki.ParseRevocationLists(previous); err == nil && old[0].Number.Cmp(lists[0].Number) >= 0 {
			t.Errorf("list %d has number %v, the one before %v", i, lists[0].Number, old[0].Number)
		}
		previous = list
		denied.Deny("sensor-1", []*big.Int{serialOf(t, lost)}, now)
	}
	write(t, dir, "crl.pem", previous)
	write(t, dir, "ca.pem", authority.CertificatePEM())
	verify := []string{"verify", "-attime", big.NewInt(now.Unix()).String(), "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "crl.pem"}
	openssl(t, dir, append(verify, good.Certificate)...)
	if out, err := tryOpenSSL(t, dir, append(verify, lost.Certificate)...); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl says %v: %s", err, out)
	}
}

func TestDenyListText(t *testing.T) {
	t.Parallel()
	var list pki.DenyList
	list.Deny("sensor-1", []*big.Int{big.NewInt(0xc0ffee), big.NewInt(1)}, now)
	list.Deny("sensor-2", nil, now)
	list.Deny("sensor-2", nil, now.Add(day)) // the first time counts
	again, err := pki.ParseDenyList(list.Text())
	if err != nil {
		t.Fatal(err)
	}
	if string(again.Text()) != string(list.Text()) {
		t.Errorf("read again:\n%swant\n%s", again.Text(), list.Text())
	}
	if since, ok := again.Since("sensor-2"); !ok || !since.Equal(now) {
		t.Errorf("denied since %v, %v", since, ok)
	}
	for _, line := range []string{
		"name", "name sensor-1", "name sensor-1 yesterday", "name ../x 2026-11-22T08:00:00Z", "serial 1 2026-11-22T08:00:00Z",
		"serial 0 sensor-1 2026-11-22T08:00:00Z", "serial -1 sensor-1 2026-11-22T08:00:00Z", "serial xyz sensor-1 2026-11-22T08:00:00Z",
		"allow sensor-1 2026-11-22T08:00:00Z", "name sensor-1 2026-11-22T08:00:00Z and more",
	} {
		if _, err := pki.ParseDenyList([]byte("# one\n" + line)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", line, err)
		}
	}
}
