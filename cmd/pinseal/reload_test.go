package main

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"pinseal/pki"
)

// What is refused is refused whole: encrypted commands for an output that the running node takes plain ones for must not bring
// another certificate with them.
func TestRefusedReloadChangesNothing(t *testing.T) {
	t.Parallel()
	dir := makeNode(t)
	l := layoutUnder(dir)
	config, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Replace(config, []byte("topic = \"ledStatus\""), []byte("topic = \"ledStatus\"\nplain_topic = \"plain/led\""), 1)
	if err := os.WriteFile(l.config, plain, 0o600); err != nil {
		t.Fatal(err)
	}
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
	config = append(config, "\n[[encrypt]]\ntopics = [\"ledStatus\"]\nto = [\"raspiflow\"]\n"...)
	// The configuration comes first: the node watches its files, and would be right to take the certificate alone.
	for _, file := range []struct {
		path string
		text []byte
	}{{l.config, config}, {l.brokerCert(), pki.EncodeCertificates(another)}} {
		if err := os.WriteFile(file.path, file.text, 0o600); err != nil {
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
