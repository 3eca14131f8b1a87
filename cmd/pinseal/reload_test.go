package main

import (
	"crypto/tls"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"pinseal/pki"
)

// What is refused is refused whole: a permit for an output that the running node has not must not bring another certificate with it.
func TestRefusedReloadChangesNothing(t *testing.T) {
	t.Parallel()
	dir := makeNode(t)
	b, err := readBundle(runNode(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(b.client.Port))))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // only looked at
		secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := secured.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return pki.SerialText(secured.ConnectionState().PeerCertificates[0])
	}
	before := shown()
	l := layoutUnder(dir)
	authority, err := readAuthority(l)
	if err != nil {
		t.Fatal(err)
	}
	current, err := readCertificate(l.brokerCert())
	if err != nil {
		t.Fatal(err)
	}
	another, err := authority.RenewServer("raspiflow", []string{"127.0.0.1"}, current.PublicKey, 90*24*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	config = append(config, "\n[[output]]\nname = \"fan\"\nline = \"GPIO18\"\n[[permit]]\nsigner = \"operator\"\noutput = \"fan\"\nactions = [\"on\"]\n"...)
	for path, text := range map[string][]byte{l.brokerCert(): pki.EncodeCertificates(another), l.config: config} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := askNode(l.control(), "reload"); err == nil {
		t.Fatal("the reload was not refused")
	}
	if shown() != before {
		t.Error("another certificate is in force")
	}
}
