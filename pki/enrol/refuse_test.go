package enrol_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"
)

// requests are those that are refused, for what reason. The right one is "good".
func requests(t *testing.T) map[string]struct {
	csr  string
	want enrol.Reason
} {
	t.Helper()
	key := newKey(t)
	encode := base64.StdEncoding.EncodeToString
	der := must(pki.CreateRequest("sensor-7", key))(t)
	broken := append([]byte(nil), der...)
	broken[len(broken)-1] ^= 1
	weak := must(rsa.GenerateKey(rand.Reader, 1024))(t)
	made := func(template *x509.CertificateRequest, key any) string {
		return encode(must(x509.CreateCertificateRequest(rand.Reader, template, key))(t))
	}
	subject := pkix.Name{CommonName: "sensor-7"}
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	// SHA-1 is what Go does not sign with any more: openssl made it.
	sha1, _ := pem.Decode(must(os.ReadFile(filepath.Join("testdata", "sha1.csr")))(t))
	return map[string]struct {
		csr  string
		want enrol.Reason
	}{
		"other name":        {csr(t, "operator", key), pki.ReasonOtherName},
		"no name":           {made(&x509.CertificateRequest{}, key), pki.ReasonOtherName},
		"broken signature":  {encode(broken), pki.ReasonBadSignature},
		"RSA 1024":          {made(&x509.CertificateRequest{Subject: subject}, weak), pki.ReasonWeakKey},
		"P-384":             {made(&x509.CertificateRequest{Subject: subject}, p384), pki.ReasonWeakKey},
		"SHA-1":             {encode(sha1.Bytes), pki.ReasonWeakHash},
		"oversized request": {encode(make([]byte, pki.MaxRequestBytes+1)), pki.ReasonOversized},
		"oversized body":    {strings.Repeat("A", 40_000), pki.ReasonOversized},
		"no base64":         {"?", pki.ReasonMalformed},
		"no request":        {encode([]byte("hello")), pki.ReasonMalformed},
		"nothing":           {"", pki.ReasonMalformed},
		"alternative name":  {made(&x509.CertificateRequest{Subject: subject, DNSNames: []string{"raspiflow"}}, key), pki.ReasonOutsideProfile},
	}
}

// Whatever is wrong with a request is refused for that reason, changes nothing, and leaves the code good.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Profile.Strict = true })
	code, stranger := n.code("sensor-7"), n.client(nil)
	own := n.client(n.certificate(n.authority, "sensor-7"))
	n.tokens["T"] = "cloud"
	for name, tt := range requests(t) {
		ways := map[string]answer{
			"simpleenroll":   n.post(stranger, est+"simpleenroll", pkcs10, tt.csr, basic("sensor-7", code)),
			"simplereenroll": n.post(own, est+"simplereenroll", pkcs10, tt.csr, nil),
			"by code":        n.post(stranger, sensor7, asJSON, body(t, map[string]string{"csr": tt.csr, "secret": code}), nil),
			"by token":       n.post(stranger, sensor7, asJSON, body(t, map[string]string{"csr": tt.csr}), bearer()),
			"by certificate": n.post(own, sensor7, asJSON, body(t, map[string]string{"csr": tt.csr}), nil),
		}
		// An empty one is none, and what it asks for beside a name is nobody's business: no certificate comes of it.
		if tt.csr != "" && tt.want != pki.ReasonOutsideProfile {
			ways["signing key"] = n.post(stranger, sensor7, asJSON,
				body(t, map[string]string{"csr": csr(t, "sensor-7", newKey(t)), "signing_csr": tt.csr, "secret": code}), nil)
		}
		for way, got := range ways {
			if got.reason() != tt.want || got.status < 400 || got.status >= 500 {
				t.Errorf("%s, %s: %d %s, want %s", name, way, got.status, got.body, tt.want)
			}
		}
	}
	if n.issued() != 0 || n.signers.count() != 0 {
		t.Errorf("certificates: %d, signing keys: %d", n.issued(), n.signers.count())
	}
	// The code was looked at often and is still good, once.
	good := func() answer {
		return n.post(stranger, est+"simpleenroll", pkcs10, csr(t, "sensor-7", newKey(t)), basic("sensor-7", code))
	}
	if got := good(); got.status != http.StatusOK {
		t.Errorf("the right one: %d %s", got.status, got.body)
	}
	if got := good(); got.reason() != enrol.ReasonUsedCode || n.issued() != 1 {
		t.Errorf("once more: %d %s", got.status, got.body)
	}
	if strings.Contains(strings.ToUpper(n.logged()), code) {
		t.Error("the code is in the log")
	}
}

// Without the right code not even the request is looked at.
func TestRefusedCodes(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Limits.MaxWrongCodes = 1000 })
	client := n.client(nil)
	other := n.code("sensor-8")
	expired := n.code("sensor-9")
	replaced := n.code("sensor-7")
	n.advance(enrol.DefaultCodeLifetime + time.Second)
	code := n.code("sensor-7")
	tests := []struct {
		what, name, code string
		want             enrol.Reason
	}{
		{"none", "sensor-7", "", enrol.ReasonWrongCode},
		{"another device's", "sensor-7", other, enrol.ReasonWrongCode},
		{"for another name", "sensor-8", code, enrol.ReasonWrongCode},
		{"for a name without", "sensor-1", code, enrol.ReasonWrongCode},
		{"no name", "", code, enrol.ReasonWrongCode},
		{"guessed", "sensor-7", enrol.NewCode(), enrol.ReasonWrongCode},
		{"one letter wrong", "sensor-7", code[:25] + flip(code[25:]), enrol.ReasonWrongCode},
		{"one letter missing", "sensor-7", code[:25], enrol.ReasonWrongCode},
		{"its hash", "sensor-7", enrol.HashCode(code), enrol.ReasonWrongCode},
		{"replaced by another", "sensor-7", replaced, enrol.ReasonWrongCode},
		{"expired", "sensor-9", expired, enrol.ReasonExpiredCode},
	}
	for _, tt := range tests {
		for request, text := range map[string]string{"good": csr(t, orName(tt.name), newKey(t)), "bad": "?"} {
			got := n.post(client, est+"simpleenroll", pkcs10, text, basic(tt.name, tt.code))
			if got.reason() != tt.want || got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s, %s request: %d %s", tt.what, request, got.status, got.body)
			}
			if tt.name == "" || tt.code == "" {
				continue // another path, and no code at all
			}
			got = n.post(client, "/sign/"+tt.name+"/pkcs10", asJSON, body(t, map[string]string{"csr": text, "secret": tt.code}), nil)
			if got.reason() != tt.want || got.status != http.StatusUnauthorized {
				t.Errorf("%s, %s request, JSON: %d %s", tt.what, request, got.status, got.body)
			}
		}
	}
	for what, got := range map[string]answer{
		"simpleenroll without a code":          n.post(client, est+"simpleenroll", pkcs10, csr(t, "sensor-7", newKey(t)), nil),
		"simplereenroll without a certificate": n.post(client, est+"simplereenroll", pkcs10, csr(t, "sensor-7", newKey(t)), nil),
		"JSON without anything":                n.post(client, sensor7, asJSON, body(t, map[string]string{"csr": csr(t, "sensor-7", newKey(t))}), nil),
	} {
		if got.reason() != enrol.ReasonNoCode {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	// No node without tokens knows one.
	request := body(t, map[string]string{"csr": csr(t, "sensor-7", newKey(t)), "secret": code})
	for what, got := range map[string]answer{
		"token":        n.post(client, sensor7, asJSON, request, bearer()),
		"basic scheme": n.post(client, sensor7, asJSON, request, basic("sensor-7", code)),
	} {
		if got.reason() != enrol.ReasonWrongToken || got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	if n.issued() != 0 {
		t.Errorf("%d certificates", n.issued())
	}
}

func orName(name string) string {
	if name == "" {
		return "sensor-7"
	}
	return name
}

func flip(letter string) string {
	if letter == "A" {
		return "B"
	}
	return "A"
}

// Who guesses is not even told when the guess was right, for a minute.
func TestGuessing(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	client, code, right := n.client(nil), n.code("sensor-7"), csr(t, "sensor-7", newKey(t))
	try := func(code string) answer {
		return n.post(client, est+"simpleenroll", pkcs10, right, basic("sensor-7", code))
	}
	for range enrol.DefaultLimits().MaxWrongCodes {
		if got := try(enrol.NewCode()); got.reason() != enrol.ReasonWrongCode {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	for _, guess := range []string{enrol.NewCode(), code} {
		if got := try(guess); got.reason() != enrol.ReasonRateLimited || got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	// Nor is a token looked at.
	n.tokens["T"] = "cloud"
	if got := n.post(client, sensor7, asJSON, body(t, map[string]string{"csr": right}), bearer()); got.reason() != enrol.ReasonRateLimited {
		t.Errorf("%d %s", got.status, got.body)
	}
	n.advance(time.Minute)
	if got := try(code); got.status != http.StatusOK {
		t.Errorf("a minute later: %d %s", got.status, got.body)
	}
}

// Guesses that come at the same time are counted as others are.
func TestGuessingAtTheSameTime(t *testing.T) {
	t.Parallel()
	var looked atomic.Int32
	n := newNode(t, func(n *node) {
		n.config.Limits.MaxConnections, n.config.Limits.MaxConnectionsPerAddress = 64, 64
		n.config.Operator = func(string) (string, error) {
			looked.Add(1)
			time.Sleep(time.Millisecond) // as one reads a file
			return "", &pki.RefusedError{Reason: enrol.ReasonWrongToken, Err: errors.New("unknown")}
		}
	})
	client, text := n.client(nil), body(t, map[string]string{"csr": csr(t, "sensor-7", newKey(t))})
	var asked sync.WaitGroup
	for range 32 {
		asked.Go(func() { n.post(client, sensor7, asJSON, text, bearer()) })
	}
	asked.Wait()
	if got := int(looked.Load()); got != enrol.DefaultLimits().MaxWrongCodes {
		t.Errorf("%d wrong tokens were looked at", got)
	}
}

// Strangers choose what is asked for, and not how much of it is in the log.
func TestLogOfLongPaths(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	got := n.post(n.client(nil), "/sign/"+strings.Repeat("x", 4000)+"/pkcs10", asJSON, "{}", nil)
	if got.reason() != pki.ReasonMalformed || len(n.logged()) > 500 {
		t.Errorf("%d, %d bytes in the log", got.status, len(n.logged()))
	}
}

func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Limits.MaxRequests = 3 })
	client := n.client(nil)
	for i := range 5 {
		got := n.post(client, est+"cacerts", "", "", nil)
		if want := i < 3; (got.status == http.StatusOK) != want {
			t.Errorf("request %d: %d", i+1, got.status)
		}
	}
	n.advance(time.Minute)
	if got := n.post(client, est+"cacerts", "", "", nil); got.status != http.StatusOK {
		t.Errorf("a minute later: %d", got.status)
	}
}

// Whatever is asked for counts, and who goes on asking has to connect anew, which is counted as well.
func TestRequestsForNothingAreLimited(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Limits.MaxRequests = 3 })
	conn := must((&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", n.address))(t)
	defer conn.Close() //nolint:errcheck // only looked at
	if _, err := io.WriteString(conn, strings.Repeat("GET /nothing HTTP/1.1\r\nHost: node\r\n\r\n", 6)); err != nil {
		t.Fatal(err)
	}
	answers := must(io.ReadAll(conn))(t)
	for status, want := range map[string]int{"404 Not Found": 3, "429 Too Many Requests": 1} {
		if got := strings.Count(string(answers), "HTTP/1.1 "+status); got != want {
			t.Errorf("%s: %d times, want %d", status, got, want)
		}
	}
}

// Who has a certificate cannot fill the journal with others, by whatever way it asks. Others, and a day later, go on.
func TestTooManyRenewals(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Limits.MaxRenewals = 3 })
	renew := func(name string, way int) answer {
		client, request := n.client(n.certificate(n.authority, name)), csr(t, name, newKey(t))
		if way%2 == 0 {
			return n.post(client, est+"simplereenroll", pkcs10, request, nil)
		}
		return n.post(client, "/sign/"+name+"/pkcs10", asJSON, body(t, map[string]string{"csr": request}), nil)
	}
	for i := range 6 {
		got := renew("sensor-7", i)
		if i < 3 && got.status != http.StatusOK || i >= 3 && got.reason() != enrol.ReasonRateLimited {
			t.Errorf("renewal %d: %d %s", i+1, got.status, got.body)
		}
	}
	if n.issued() != 3 {
		t.Errorf("%d certificates in the journal", n.issued())
	}
	if got := renew("sensor-8", 0); got.status != http.StatusOK {
		t.Errorf("another name: %d %s", got.status, got.body)
	}
	n.advance(24 * time.Hour)
	if got := renew("sensor-7", 0); got.status != http.StatusOK {
		t.Errorf("a day later: %d %s", got.status, got.body)
	}
}

// A handshake costs more than an answer: connections are counted too.
func TestTooManyNewConnections(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Limits.MaxRequests = 3 })
	connect := func() error {
		conn := must((&net.Dialer{}).DialContext(t.Context(), "tcp", n.address))(t)
		defer conn.Close() //nolint:errcheck // only looked at
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context())
	}
	for i := range 5 {
		if err := connect(); (err == nil) != (i < 3) {
			t.Errorf("connection %d: %v", i+1, err)
		}
	}
	n.advance(time.Minute)
	if err := connect(); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

// A code is good for one certificate, however many ask at the same time.
func TestOnceAtTheSameTime(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.config.Limits.MaxWrongCodes = 1000 })
	client, code := n.client(nil), n.code("sensor-7")
	answers := make(chan answer)
	const many = 12
	for range many {
		request := csr(t, "sensor-7", newKey(t))
		go func() { answers <- n.post(client, est+"simpleenroll", pkcs10, request, basic("sensor-7", code)) }()
	}
	given := 0
	for range many {
		switch got := <-answers; {
		case got.status == http.StatusOK:
			given++
		case got.reason() != enrol.ReasonUsedCode:
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if given != 1 || n.issued() != 1 {
		t.Errorf("%d certificates given, %d in the journal", given, n.issued())
	}
}

func TestRefusedSigningKeys(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	client, code, key := n.client(nil), n.code("sensor-7"), newKey(t)
	n.tokens["T"] = "cloud"
	known := newKey(t)
	ask := func(signing string, change func(*http.Request), members map[string]string) answer {
		all := map[string]string{"csr": csr(t, "sensor-7", key), "signing_csr": signing}
		maps.Copy(all, members)
		return n.post(client, sensor7, asJSON, body(t, all), change)
	}
	withCode := map[string]string{"secret": code}
	n.signers.keys["sensor-1"] = publicKey(t, known)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	own := n.certificate(n.authority, "sensor-7")
	renewing := n.post(n.client(own), sensor7, asJSON, body(t, map[string]string{"csr": csr(t, "sensor-7", key), "signing_csr": csr(t, "sensor-7", newKey(t))}), nil)
	for what, tt := range map[string]struct {
		got  answer
		want enrol.Reason
	}{
		"the TLS key":                   {ask(csr(t, "sensor-7", key), nil, withCode), enrol.ReasonKnownKey},
		"another signer's":              {ask(csr(t, "sensor-7", known), nil, withCode), enrol.ReasonKnownKey},
		"RSA":                           {ask(csr(t, "sensor-7", rsaKey), nil, withCode), pki.ReasonWeakKey},
		"of another name":               {ask(csr(t, "sensor-8", newKey(t)), nil, withCode), pki.ReasonOtherName},
		"with a token alone":            {ask(csr(t, "sensor-7", newKey(t)), bearer(), nil), enrol.ReasonNoCode},
		"with a stolen TLS certificate": {renewing, enrol.ReasonNoCode},
	} {
		if tt.got.reason() != tt.want {
			t.Errorf("%s: %d %s, want %s", what, tt.got.status, tt.got.body, tt.want)
		}
	}
	if n.issued() != 0 || n.signers.count() != 1 {
		t.Errorf("certificates: %d, signing keys: %d", n.issued(), n.signers.count())
	}
	if got := ask(csr(t, "sensor-7", newKey(t)), bearer(), withCode); got.status != http.StatusOK || n.signers.count() != 2 {
		t.Errorf("token and code: %d %s", got.status, got.body)
	}
}

func publicKey(t *testing.T, key crypto.Signer) *signing.PublicKey {
	t.Helper()
	private := must(signing.ParsePrivateKey(must(pki.MarshalKey(key))(t)))(t)
	return private.Public()
}

// What the node's policy forbids is forbidden in every way, and an error of its own is not told to strangers.
func TestNotPermitted(t *testing.T) {
	t.Parallel()
	forbidden := &pki.RefusedError{Reason: enrol.ReasonNotPermitted, Err: errors.New("revoked")}
	n := newNode(t, func(n *node) {
		n.tokens["T"] = "cloud"
		n.config.Permit = func(name string, byToken bool) error {
			if name == "sensor-7" || byToken && name == "operator" {
				return forbidden
			}
			return nil
		}
	})
	stranger, own := n.client(nil), n.client(n.certificate(n.authority, "sensor-7"))
	request := csr(t, "sensor-7", newKey(t))
	for what, got := range map[string]answer{
		"code":        n.post(stranger, est+"simpleenroll", pkcs10, request, basic("sensor-7", n.code("sensor-7"))),
		"certificate": n.post(own, est+"simplereenroll", pkcs10, request, nil),
		"token":       n.post(stranger, sensor7, asJSON, body(t, map[string]string{"csr": request}), bearer()),
		"token for a signer": n.post(stranger, "/sign/operator/pkcs10", asJSON,
			body(t, map[string]string{"csr": csr(t, "operator", newKey(t))}), bearer()),
		"the node's name": n.post(stranger, "/sign/raspiflow/pkcs10", asJSON,
			body(t, map[string]string{"csr": csr(t, "raspiflow", newKey(t))}), bearer()),
		"the node's name by code": n.post(stranger, est+"simpleenroll", pkcs10, csr(t, "raspiflow", newKey(t)), basic("raspiflow", n.code("raspiflow"))),
	} {
		if got.reason() != enrol.ReasonNotPermitted || got.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	if n.issued() != 0 {
		t.Errorf("%d certificates", n.issued())
	}
}

// A certificate that the broker may take all the same, because it trusts that authority, is no reason to give one of ours.
func TestOtherAuthoritysCertificate(t *testing.T) {
	t.Parallel()
	foreign := must(pki.CreateAuthority("raspiflow authority", start))(t)
	n := newNode(t, func(n *node) {
		both := append(n.authority.CertificatePEM(), foreign.CertificatePEM()...)
		if err := os.WriteFile(n.files.CA, both, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	client := n.client(n.certificate(foreign, "operator"))
	request := csr(t, "operator", newKey(t))
	for what, got := range map[string]answer{
		"EST":  n.post(client, est+"simplereenroll", pkcs10, request, nil),
		"JSON": n.post(client, "/sign/operator/pkcs10", asJSON, body(t, map[string]string{"csr": request}), nil),
	} {
		if got.reason() != enrol.ReasonNotPermitted || n.issued() != 0 {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
}

// What fails on the node's side leaves no certificate behind, and tells strangers nothing.
func TestOwnFailures(t *testing.T) {
	t.Parallel()
	t.Run("journal", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, nil)
		if err := os.WriteFile(n.journalPath(), []byte("damaged\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got := n.post(n.client(nil), est+"simpleenroll", pkcs10, csr(t, "sensor-7", newKey(t)), basic("sensor-7", n.code("sensor-7")))
		wantFailure(t, n, got, "journal")
	})
	t.Run("codes", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, nil)
		code := n.code("sensor-7")
		// The spent code cannot be written down: it is not accepted either.
		if err := errors.Join(os.Remove(filepath.Join(n.dir, "codes")), os.Mkdir(filepath.Join(n.dir, "codes"), 0o700), os.Mkdir(filepath.Join(n.dir, "codes", "x"), 0o700)); err != nil {
			t.Fatal(err)
		}
		got := n.post(n.client(nil), est+"simpleenroll", pkcs10, csr(t, "sensor-7", newKey(t)), basic("sensor-7", code))
		wantFailure(t, n, got, "join codes")
		if n.issued() != 0 {
			t.Error("a certificate was issued")
		}
	})
	t.Run("signers", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, func(n *node) { n.signers.fail = errors.New("disk full") })
		got := n.post(n.client(nil), sensor7, asJSON, body(t, map[string]string{
			"csr": csr(t, "sensor-7", newKey(t)), "signing_csr": csr(t, "sensor-7", newKey(t)), "secret": n.code("sensor-7"),
		}), nil)
		wantFailure(t, n, got, "disk full")
	})
}

func wantFailure(t *testing.T, n *node, got answer, logged string) {
	t.Helper()
	if got.status != http.StatusInternalServerError || got.reason() != enrol.ReasonFailed || strings.Contains(got.body, logged) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if !strings.Contains(n.logged(), logged) {
		t.Errorf("not in the log: %s", n.logged())
	}
}

func TestMalformedBodies(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	client, code, request := n.client(nil), n.code("sensor-7"), csr(t, "sensor-7", newKey(t))
	good := body(t, map[string]string{"csr": request, "secret": code})
	for what, text := range map[string]string{
		"nothing": "", "no object": `"x"`, "cut": good[:len(good)-1], "two": good + good, "text behind": good + "x", "null": "null",
		"unknown member": strings.Replace(good, `{`, `{"x":1,`, 1), "member twice": strings.Replace(good, `{`, `{"secret":"x",`, 1),
		"number": `{"csr":1}`, "array": `[]`, "no UTF-8": strings.Replace(good, code, "\xff", 1),
	} {
		got := n.post(client, sensor7, asJSON, text, nil)
		if got.status < 400 || got.status >= 500 || got.reason() != pki.ReasonMalformed && what != "null" {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	for _, name := range []string{"a%20b", "a%2Fb", strings.Repeat("a", 65), "%00"} {
		if got := n.post(client, "/sign/"+name+"/pkcs10", asJSON, good, nil); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := n.post(client, est+"simpleenroll", "text/plain", request, basic("sensor-7", code)); got.reason() != pki.ReasonMalformed {
		t.Errorf("content type: %d %s", got.status, got.body)
	}
	for path, want := range map[string]int{"/": 404, "/.well-known/est/fullcmc": 404, est + "serverkeygen": 404, "/sign": 404} {
		if got := n.post(client, path, asJSON, good, nil); got.status != want {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if got := n.post(client, sensor7, "", "", nil); got.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", got.status)
	}
	if n.issued() != 0 {
		t.Errorf("%d certificates", n.issued())
	}
}
