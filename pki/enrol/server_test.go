package enrol_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"
)

// openssl reads what EST answered.
func openssl(t *testing.T, text string, args ...string) string {
	t.Helper()
	der := must(base64.StdEncoding.DecodeString(text))(t)
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Stdin = strings.NewReader(string(der))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestEST(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	client := n.client(nil)
	got := n.post(client, est+"cacerts", "", "", nil)
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/pkcs7-mime" || got.header.Get("Content-Transfer-Encoding") != "base64" {
		t.Errorf("%d %v", got.status, got.header)
	}
	if text := openssl(t, got.body, "pkcs7", "-inform", "DER", "-print_certs"); !strings.Contains(text, string(n.authority.CertificatePEM())) {
		t.Errorf("cacerts: %s", text)
	}
	got = n.post(client, est+"csrattrs", "", "", nil)
	if text := openssl(t, got.body, "asn1parse", "-inform", "DER"); got.header.Get("Content-Type") != "application/csrattrs" || !strings.Contains(text, "prime256v1") {
		t.Errorf("csrattrs: %s", text)
	}
	key := newKey(t)
	got = n.post(client, est+"simpleenroll", pkcs10+"; charset=x", csr(t, "sensor-7", key), basic("sensor-7", strings.ToLower(n.code("sensor-7"))))
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/pkcs7-mime; smime-type=certs-only" {
		t.Fatalf("%d %s", got.status, got.body)
	}
	certs := must(pki.ParseCertificates([]byte(openssl(t, got.body, "pkcs7", "-inform", "DER", "-print_certs"))))(t)
	if len(certs) != 1 || certs[0].Subject.CommonName != "sensor-7" || !certs[0].NotAfter.Equal(start.Add(pki.DefaultLifetime)) {
		t.Errorf("%d certificates, %+v", len(certs), certs[0].Subject)
	}
	// With it comes another one, for another key; the journal knows of both.
	own := &tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key}
	if got := n.post(n.client(own), est+"simplereenroll", pkcs10, csr(t, "sensor-7", newKey(t)), nil); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
	history := must(pki.ReadJournal(n.journalPath()))(t)
	if len(history.Entries) != 2 || history.Entries[0].By != "code" || history.Entries[1].By != "renewal of "+pki.SerialText(certs[0]) || history.Entries[0].Profile != "device" {
		t.Errorf("%+v", history.Entries)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.tokens["T"] = "cloud" })
	stranger, request := n.client(nil), csr(t, "sensor-7", newKey(t))
	for by, got := range map[string]answer{
		"code":                 n.post(stranger, sensor7, asJSON, body(t, map[string]string{"csr": request, "secret": n.code("sensor-7")}), nil),
		"operator cloud":       n.post(stranger, sensor7, asJSON, body(t, map[string]string{"csr": request}), bearer()),
		"code by way of cloud": n.post(stranger, sensor7, asJSON, body(t, map[string]string{"csr": request, "secret": n.code("sensor-7")}), bearer()),
		"renewal of ":          n.post(n.client(n.certificate(n.authority, "sensor-7")), sensor7, asJSON, body(t, map[string]string{"csr": request}), nil),
	} {
		var told struct {
			Certificate, Authorities, Serial, Node string
			NotAfter                               time.Time `json:"not_after"`
		}
		if err := json.Unmarshal([]byte(got.body), &told); err != nil || got.status != http.StatusOK {
			t.Errorf("%s: %d %s", by, got.status, got.body)
			continue
		}
		cert := must(pki.ParseCertificates([]byte(told.Certificate)))(t)[0]
		if told.Serial != pki.SerialText(cert) || told.Node != "raspiflow" || told.Authorities != string(n.authority.CertificatePEM()) || !told.NotAfter.Equal(cert.NotAfter) {
			t.Errorf("%s: %+v", by, told)
		}
		found := false
		for _, e := range must(pki.ReadJournal(n.journalPath()))(t).Entries {
			found = found || e.Serial == told.Serial && strings.HasPrefix(e.By, by)
		}
		if !found {
			t.Errorf("%s is not in the journal", by)
		}
	}
	// A certificate renews its own name only.
	other := n.post(n.client(n.certificate(n.authority, "sensor-8")), sensor7, asJSON, body(t, map[string]string{"csr": csr(t, "sensor-8", newKey(t))}), nil)
	if other.reason() != pki.ReasonOtherName {
		t.Errorf("%d %s", other.status, other.body)
	}
}

// Who was let in before may be revoked since: the connection alone is no reason to renew.
func TestRevokedInAnOldConnection(t *testing.T) {
	t.Parallel()
	revoked := false
	n := newNode(t, func(n *node) {
		check := n.config.CheckPeer
		n.config.CheckPeer = func(cs tls.ConnectionState) error {
			if revoked {
				return errors.New("revoked")
			}
			return check(cs)
		}
	})
	client, request := n.client(n.certificate(n.authority, "sensor-7")), csr(t, "sensor-7", newKey(t))
	if got := n.post(client, est+"simplereenroll", pkcs10, request, nil); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	revoked = true
	for path, text := range map[string]string{est + "simplereenroll": request, sensor7: body(t, map[string]string{"csr": request})} {
		got := n.post(client, path, map[bool]string{true: asJSON, false: pkcs10}[path == sensor7], text, nil)
		if got.reason() != enrol.ReasonNotPermitted {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	for what, limits := range map[string]enrol.Limits{
		"in all": {MaxConnections: 2}, "for one address": {MaxConnectionsPerAddress: 2},
	} {
		n := newNode(t, func(n *node) { n.config.Limits = limits })
		var held []net.Conn
		for range 2 {
			held = append(held, must((&net.Dialer{}).DialContext(t.Context(), "tcp", n.address))(t))
		}
		// The third is closed at once; it was accepted after the others.
		third := must((&net.Dialer{}).DialContext(t.Context(), "tcp", n.address))(t)
		if _, err := third.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
			t.Errorf("%s: %v", what, err)
		}
		for _, conn := range append(held, third) {
			_ = conn.Close()
		}
		// Then there is room again; the server notices when it reads.
		waitFor(t, func() bool {
			request := must(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+n.address+est+"cacerts", nil))(t)
			response, err := n.client(nil).Do(request)
			if err == nil {
				_ = response.Body.Close()
			}
			return err == nil
		})
	}
}

func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "reset") }

// waitFor polls: that a server has noticed the end of a connection tells no event.
func waitFor(t *testing.T, seen func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !seen() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not within 10 s")
		}
	}
}

// Who says nothing, or stops in the middle, is closed.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Limits.Timeout = 200 * time.Millisecond })
	secured := func() net.Conn {
		roots := x509.NewCertPool()
		roots.AddCert(n.authority.Certificate())
		config := &tls.Config{RootCAs: roots, Time: n.clock, ServerName: "127.0.0.1"}
		return must((&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", n.address))(t)
	}
	for what, say := range map[string]func() net.Conn{
		"silence before TLS": func() net.Conn { return must((&net.Dialer{}).DialContext(t.Context(), "tcp", n.address))(t) },
		"silence after TLS":  secured,
		"half a header": func() net.Conn {
			conn := secured()
			_, _ = io.WriteString(conn, "POST "+sensor7+" HTTP/1.1\r\nHost: x\r\n")
			return conn
		},
		"half a body": func() net.Conn {
			conn := secured()
			_, _ = io.WriteString(conn, "POST "+sensor7+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
			return conn
		},
	} {
		conn := say()
		patience := time.AfterFunc(10*time.Second, func() { _ = conn.Close() })
		// An answer may come first; however it ends, it ends.
		_, _ = io.Copy(io.Discard, conn)
		if !patience.Stop() {
			t.Errorf("%s: still open", what)
		}
		_ = conn.Close()
	}
	if n.issued() != 0 {
		t.Error("something was issued")
	}
}

func TestNewServerRefuses(t *testing.T) {
	t.Parallel()
	full := newNode(t, nil).config
	for what, change := range map[string]func(*enrol.Config){
		"nothing": func(c *enrol.Config) { *c = enrol.Config{} }, "no journal": func(c *enrol.Config) { c.Journal = nil },
		"no codes": func(c *enrol.Config) { c.Codes = nil }, "no check of peers": func(c *enrol.Config) { c.CheckPeer = nil },
		"no permits": func(c *enrol.Config) { c.Permit = nil },
	} {
		config := full
		change(&config)
		if _, err := enrol.NewServer(config); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestCodesSurviveARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "codes")
	codes := must(enrol.OpenCodes(path))(t)
	first, second := enrol.NewCode(), enrol.NewCode()
	for name, code := range map[string]string{"sensor-1": first, "sensor-2": second} {
		if err := codes.Add(name, enrol.HashCode(code), start.Add(time.Minute), start); err != nil {
			t.Fatal(err)
		}
	}
	if err := codes.Use("sensor-1", first, start); err != nil {
		t.Fatal(err)
	}
	again := must(enrol.OpenCodes(path))(t)
	if err := again.Check("sensor-1", first, start); !isReason(err, enrol.ReasonUsedCode) {
		t.Errorf("used before the restart: %v", err)
	}
	if err := again.Use("sensor-2", second, start.Add(time.Minute)); err != nil {
		t.Errorf("to the last second: %v", err)
	}
	text := must(os.ReadFile(path))(t)
	if info := must(os.Stat(path))(t); info.Mode().Perm() != 0o600 || strings.Contains(string(text), first) || strings.Contains(string(text), second) {
		t.Errorf("%v: %s", info.Mode(), text)
	}
	// A day after it expired nothing of a code is left.
	if err := again.Add("sensor-3", enrol.HashCode(enrol.NewCode()), start.Add(26*time.Hour), start.Add(25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if text := must(os.ReadFile(path))(t); strings.Contains(string(text), "sensor-1") {
		t.Errorf("%s", text)
	}
}

func isReason(err error, reason enrol.Reason) bool {
	refused, ok := errors.AsType[*pki.RefusedError](err)
	return ok && refused.Reason == reason
}

func TestCodesRefuse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	codes := must(enrol.OpenCodes(filepath.Join(dir, "codes")))(t)
	for _, given := range [][2]string{{"sensor-7", ""}, {"sensor-7", "abc"}, {"sensor-7", strings.Repeat("g", 64)}, {"no good", enrol.HashCode("x")}} {
		if err := codes.Add(given[0], given[1], start, start); err == nil {
			t.Errorf("%q: no error", given)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "damaged"), []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := enrol.OpenCodes(filepath.Join(dir, "damaged")); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
	if code := enrol.NewCode(); len(code) != 26 || code == enrol.NewCode() {
		t.Errorf("%s", code)
	}
}

// Whatever is posted: an answer with a status and, unless it is a certificate, a reason; and a certificate is for the name that the code is of.
func FuzzSign(f *testing.F) {
	authority, err := pki.CreateAuthority("test authority", start)
	if err != nil {
		f.Fatal(err)
	}
	key, err := signing.GenerateKey(signing.ES256)
	if err != nil {
		f.Fatal(err)
	}
	const code = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	dir := f.TempDir()
	codes, err := enrol.OpenCodes(filepath.Join(dir, "codes"))
	if err != nil {
		f.Fatal(err)
	}
	server, err := enrol.NewServer(enrol.Config{
		Node: "raspiflow", NodeKey: key.Public(), Authority: func() enrol.Authority { return enrol.Authority{Authority: authority} },
		Journal: pki.OpenJournal(filepath.Join(dir, "journal")), Codes: codes, Signers: &fakeSigners{keys: map[string]*signing.PublicKey{}},
		Operator: func(string) (string, error) { return "", nil }, Permit: func(string, bool) error { return nil }, Topics: func(string) []string { return nil },
		Welcome:   func(string, *signing.PublicKey, []byte) ([]byte, func() error, error) { return nil, nil, nil },
		CheckPeer: func(tls.ConnectionState) error { return nil }, Limits: enrol.Limits{MaxRequests: math.MaxInt},
		Now: func() time.Time { return start }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for path, contentType := range map[string]string{sensor7: asJSON, est + "simpleenroll": pkcs10} {
			if codes.Check("sensor-7", code, start) != nil { // the last one got a certificate
				if err := codes.Add("sensor-7", enrol.HashCode(code), start, start); err != nil {
					t.Fatal(err)
				}
			}
			recorder := httptest.NewRecorder()
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(text)))
			request.Header.Set("Content-Type", contentType)
			if contentType == pkcs10 {
				request.SetBasicAuth("sensor-7", code)
			}
			server.Handler().ServeHTTP(recorder, request)
			got := answer{recorder.Code, recorder.Header(), recorder.Body.String()}
			if got.status != http.StatusOK && (got.reason() == "" || got.reason() == enrol.ReasonFailed) {
				t.Fatalf("%d %s", got.status, got.body)
			}
		}
		history, err := pki.ReadJournal(filepath.Join(dir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range history.Entries {
			if e.Name != "sensor-7" {
				t.Fatalf("a certificate for %q", e.Name)
			}
		}
	})
}
