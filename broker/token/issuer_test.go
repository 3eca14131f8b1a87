package token_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pinseal/broker/token"

	"github.com/go-jose/go-jose/v4"
)

// fakeIssuer answers without a network, so that its time is that of the bubble.
type fakeIssuer struct {
	mu      sync.Mutex
	keys    []byte // nil: it is away
	active  string // the answer to introspection, "": it is away
	fetches int
	asked   int
}

func (f *fakeIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body := string(f.keys)
	if r.Method == http.MethodPost {
		f.asked++
		body = f.active
	} else {
		f.fetches++
	}
	if body == "" {
		return nil, errors.New("nobody answers")
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (f *fakeIssuer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeIssuer) counts() (fetches, asked int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fetches, f.asked
}

// bubble is a verifier that runs with a fake issuer in fake time.
type bubble struct {
	*fakeIssuer
	*token.Verifier
	t       *testing.T // of the bubble
	config  token.Config
	changed int
	log     logBuffer
}

func inBubble(t *testing.T, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{fakeIssuer: &fakeIssuer{}, t: t}
		b.config = token.Config{
			Issuer: issuer, Audience: audience, KeysURL: "https://id.example/jwks", Refresh: 15 * time.Minute, Keep: 24 * time.Hour, Transport: b.fakeIssuer,
		}
		b.Verifier = token.New(token.Options{
			Now:     func() (time.Time, bool) { return time.Now(), true },
			Changed: func() { b.set(func() { b.changed++ }) },
			Log:     slog.New(slog.NewTextHandler(&b.log, nil)),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { b.Run(ctx) })
		defer running.Wait()
		defer cancel()
		test(b)
	})
}

// lasting makes a token that is good for days.
func lasting(t *testing.T, k key) string {
	t.Helper()
	return k.sign(t, good(map[string]any{"exp": time.Now().Add(240 * time.Hour).Unix(), "iat": nil}), nil)
}

func (b *bubble) check(t *testing.T, text string) error {
	t.Helper()
	_, err := b.Check(t.Context(), "", text)
	return err
}

func TestKeysRotate(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		first, second, third := newKey(t, jose.ES256, "first"), newKey(t, jose.ES256, "second"), newKey(t, jose.ES256, "third")
		b.set(func() { b.keys = document(t, first) })
		b.Set(&b.config)
		synctest.Wait()
		old, err := b.Check(t.Context(), "", lasting(t, first))
		if err != nil {
			t.Fatal(err)
		}
		// A new key is found at once, because a token names it.
		time.Sleep(time.Minute)
		b.set(func() { b.keys = document(t, first, second) })
		if err := b.check(t, lasting(t, second)); err != nil {
			t.Errorf("a key that is new: %v", err)
		}
		if fetches, _ := b.counts(); fetches != 2 || old.Valid() != nil {
			t.Errorf("%d fetches, the old token: %v", fetches, old.Valid())
		}
		// Names of keys that nobody has lead to one fetch in ten seconds.
		for range 1000 {
			time.Sleep(20 * time.Millisecond)
			if b.check(t, lasting(t, third)) == nil {
				t.Fatal("a key that nobody has")
			}
		}
		if fetches, _ := b.counts(); fetches != 4 {
			t.Errorf("%d fetches after 20 s of unknown keys, want 4", fetches)
		}
		// A key that is withdrawn ends what it signed, with the next refresh.
		b.set(func() { b.keys = document(t, second); b.changed = 0 })
		time.Sleep(16 * time.Minute)
		if old.Valid() == nil || b.check(t, lasting(t, first)) == nil {
			t.Error("a withdrawn key still counts")
		}
		b.set(func() {
			if b.changed != 1 {
				t.Errorf("told of %d changes, want 1", b.changed)
			}
		})
	})
}

func TestIssuerAway(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		k := newKey(t, jose.ES256, "k")
		b.Set(&b.config)
		synctest.Wait()
		if err := b.check(t, lasting(t, k)); err == nil || !strings.Contains(err.Error(), "keys are not known") {
			t.Errorf("before the issuer has answered: %v", err)
		}
		b.set(func() { b.keys = document(t, k) })
		time.Sleep(61 * time.Second) // without a login: it is asked again within a minute
		grant, err := b.Check(t.Context(), "", lasting(t, k))
		if err != nil {
			t.Fatal(err)
		}
		// It goes away: the keys are kept for as long as is said, and not longer.
		b.set(func() { b.keys = nil })
		time.Sleep(23 * time.Hour)
		b.Set(&b.config) // a reload does not change that
		if err := b.check(t, lasting(t, k)); err != nil || grant.Valid() != nil {
			t.Errorf("after 23 hours: %v, %v", err, grant.Valid())
		}
		b.set(func() { b.changed = 0 })
		time.Sleep(time.Hour + time.Second)
		if b.check(t, lasting(t, k)) == nil || grant.Valid() == nil {
			t.Error("let in by keys of yesterday")
		}
		b.set(func() {
			if b.changed != 1 {
				t.Errorf("told of %d changes, want 1", b.changed)
			}
		})
		if !strings.Contains(b.log.String(), "keys are too old") {
			t.Errorf("the log does not tell:\n%s", b.log.String())
		}
		// It comes back.
		b.set(func() { b.keys = document(t, k) })
		time.Sleep(61 * time.Second)
		if err := b.check(t, lasting(t, k)); err != nil {
			t.Error(err)
		}
		// Another URL is another issuer, whose keys are not known yet.
		other := b.config
		other.KeysURL += "2"
		b.set(func() { b.keys = nil })
		b.Set(&other)
		if b.check(t, lasting(t, k)) == nil {
			t.Error("let in by the keys of another URL")
		}
	})
}

func TestIntrospection(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		k := newKey(t, jose.ES256, "k")
		b.config.Introspection = &token.Introspection{URL: "https://id.example/introspect", ClientID: "node", Secret: "s", Interval: time.Minute}
		b.set(func() { b.keys = document(t, k) })
		b.Set(&b.config)
		text := lasting(t, k)
		for _, tc := range []struct {
			name, answer string
			good         bool
		}{
			{"away", "", false},
			{"not JSON", "active", false},
			{"nothing said", "{}", false},
			{"a word", `{"active":"true"}`, false},
			{"another case", `{"Active":true}`, false},
			{"twice", `{"active":true,"active":false}`, false},
			{"inactive", `{"active":false}`, false},
			{"active", `{"active":true,"sub":"alice"}`, true},
		} {
			b.set(func() { b.active = tc.answer })
			if err := b.check(t, text); (err == nil) != tc.good {
				t.Errorf("%s: %v, want good %v", tc.name, err, tc.good)
			}
		}
		// The issuer is not asked about what it has not signed.
		_, before := b.counts()
		_ = b.check(t, newKey(t, jose.ES256, "k").sign(t, good(nil), nil)) // a stranger's: refused above
		if _, after := b.counts(); after != before {
			t.Error("the issuer was asked about a token that it has not signed")
		}
		soon := time.Now().Add(time.Minute).Truncate(time.Second)
		b.set(func() { b.active = fmt.Sprintf(`{"active":true,"exp":%d}`, soon.Unix()) })
		if grant, err := b.Check(t.Context(), "", text); err != nil || !grant.Expires.Equal(soon) {
			t.Errorf("the issuer says %v: %+v, %v", soon, grant, err)
		}
	})
}

func TestWatch(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer string
		within time.Duration // until the token is given up; 0: never
	}{
		{"active", `{"active":true}`, 0},
		{"revoked", `{"active":false}`, time.Minute},
		{"away for good", "", 2*time.Minute + 15*time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				t := b.t
				k := newKey(t, jose.ES256, "k")
				b.config.Introspection = &token.Introspection{URL: "https://id.example/introspect", ClientID: "node", Secret: "s", Interval: time.Minute}
				b.set(func() { b.keys, b.active = document(t, k), `{"active":true}` })
				b.Set(&b.config)
				grant, err := b.Check(t.Context(), "", lasting(t, k))
				if err != nil || !grant.Watched() || grant.Valid() != nil {
					t.Fatal(grant, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				b.set(func() { b.active = tc.answer })
				err = grant.Watch(ctx)
				took := time.Since(start)
				if tc.within == 0 && err != nil || tc.within > 0 && (err == nil || took > tc.within) {
					t.Errorf("%v after %v, want within %v", err, took, tc.within)
				}
			})
		})
	}
}

// An issuer that is away for a moment costs no session.
func TestWatchForgives(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		k := newKey(t, jose.ES256, "k")
		b.config.Introspection = &token.Introspection{URL: "https://id.example/introspect", ClientID: "node", Secret: "s", Interval: time.Minute}
		b.set(func() { b.keys, b.active = document(t, k), `{"active":true}` })
		b.Set(&b.config)
		grant, err := b.Check(t.Context(), "", lasting(t, k))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		b.set(func() { b.active = "" })
		time.AfterFunc(90*time.Second, func() { b.set(func() { b.active = `{"active":true}` }) })
		if err := grant.Watch(ctx); err != nil {
			t.Error(err)
		}
	})
}

// A real server on the loopback: TLS, its authority, who asks, and what it must not answer.
func TestHTTPS(t *testing.T) {
	k := newKey(t, jose.ES256, "k")
	keys := document(t, k)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) })
	mux.HandleFunc("GET /elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/jwks", http.StatusFound) })
	mux.HandleFunc("GET /huge", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(string(keys) + strings.Repeat(" ", 256<<10)))
	})
	mux.HandleFunc("GET /error", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write(keys)
	})
	text := k.sign(t, good(nil), nil)
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
		if id != "no:de" || secret != "s%c r:t" || r.FormValue("token") != text {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"active":true}`))
	})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for _, tc := range []struct {
		name, path, secret string
		roots              *x509.CertPool
		want               string
	}{
		{"keys", "/jwks", "", roots, ""},
		{"an authority nobody knows", "/jwks", "", nil, "certificate"},
		{"another authority", "/jwks", "", x509.NewCertPool(), "certificate"},
		{"elsewhere", "/elsewhere", "", roots, "sends us elsewhere"},
		{"huge", "/huge", "", roots, "more than 262144 bytes"},
		{"error", "/error", "", roots, "500 Internal Server Error"},
		{"nothing there", "/nothing", "", roots, "404"},
		{"introspection", "/jwks", "s%c r:t", roots, ""},
		{"introspection with another secret", "/jwks", "x", roots, "401"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := &logBuffer{}
			v := token.New(token.Options{Now: func() (time.Time, bool) { return now, true }, Log: slog.New(slog.NewTextHandler(log, nil))})
			c := &token.Config{Issuer: issuer, Audience: audience, KeysURL: server.URL + tc.path, Refresh: time.Hour, Keep: time.Hour, Roots: tc.roots}
			if tc.secret != "" {
				c.Introspection = &token.Introspection{URL: server.URL + "/introspect", ClientID: "no:de", Secret: tc.secret, Interval: time.Hour}
			}
			v.Set(c)
			_, err := v.Check(t.Context(), "", text)
			told := log.String()
			if err != nil {
				told += err.Error()
			}
			if (tc.want == "") != (err == nil) || !strings.Contains(told, tc.want) {
				t.Errorf("%v, want %q; the log:\n%s", err, tc.want, log)
			}
			if strings.Contains(told, text) || tc.secret != "" && strings.Contains(told, tc.secret+"@") {
				t.Errorf("a secret in the log:\n%s", told)
			}
		})
	}
}
