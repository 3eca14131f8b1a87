package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"
)

// minFetchGap is how soon the issuer may be asked for its keys again because a token named one that it did not have:
// anybody can make such tokens.
const minFetchGap = 10 * time.Second

// remote are keys that come from a URL.
type remote struct {
	url           string
	refresh, keep time.Duration
	client        *http.Client
	turn          chan struct{} // held by who fetches

	mu      sync.Mutex
	keys    *KeySet
	fetched time.Time // when keys came
	asked   time.Time // when they were last asked for
}

func tlsConfig(roots *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}

func (r *remote) inherit(old *remote) {
	old.mu.Lock()
	defer old.mu.Unlock()
	r.keys, r.fetched, r.asked = old.keys, old.fetched, old.asked
}

// get returns the keys while they are good.
func (r *remote) get() *KeySet {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil || time.Since(r.fetched) > r.keep {
		return nil
	}
	return r.keys
}

// wantedFor reports whether the keys are worth another fetch, for a token that names this one.
func (r *remote) wantedFor(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.keys.knows(id) && (r.asked.IsZero() || time.Since(r.asked) >= minFetchGap)
}

// fetchFor fetches the keys if they do not have this one, or waits for whoever does so already.
func (v *Verifier) fetchFor(ctx context.Context, r *remote, id string) {
	if !r.wantedFor(id) {
		return
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return
	}
	if r.wantedFor(id) { // nobody else was faster
		v.fetch(ctx, r)
	}
}

// fetch replaces the keys if it can; who calls it holds the turn.
func (v *Verifier) fetch(ctx context.Context, r *remote) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout) // others may wait for the same
	defer cancel()
	keys, err := r.read(ctx)
	r.mu.Lock()
	r.asked = time.Now()
	before := r.keys
	if err == nil {
		r.keys, r.fetched = keys, r.asked
	}
	r.mu.Unlock()
	switch {
	case err != nil:
		v.options.Log.Warn("fetching the token issuer's keys", "error", err)
	case !reflect.DeepEqual(before, keys):
		v.options.Log.LogAttrs(ctx, slog.LevelInfo, "the token issuer has other keys", slog.Int("keys", len(keys.keys)))
		if before != nil && v.options.Changed != nil {
			v.options.Changed()
		}
	}
}

func (r *remote) read(ctx context.Context) (*KeySet, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	text, err := ask(r.client, request)
	if err != nil {
		return nil, err
	}
	keys, err := ParseKeySet(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.url, err)
	}
	return keys, nil
}

// next is how long to wait before the next fetch. Failures are tried again soon, and not too soon.
func (r *remote) next() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.asked.IsZero():
		return 0
	case r.fetched.Equal(r.asked):
		return max(0, r.refresh-time.Since(r.fetched))
	}
	return max(0, min(r.refresh, time.Minute)-time.Since(r.asked))
}

// expire tells once that keys have become too old.
func (r *remote) expire() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil || time.Since(r.fetched) <= r.keep {
		return false
	}
	r.keys = nil
	return true
}

// untilExpiry is how long the keys are still good; for ever if there are none.
func (r *remote) untilExpiry() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		return time.Hour
	}
	return max(0, r.keep-time.Since(r.fetched)) + time.Millisecond
}

// Run keeps the keys fresh that come from a URL, until ctx ends.
func (v *Verifier) Run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := time.Hour
		var r *remote
		if s := v.current.Load(); s != nil && s.remote != nil {
			r = s.remote
			if r.expire() {
				v.options.Log.Warn("the token issuer's keys are too old, tokens are refused until it answers again")
				if v.options.Changed != nil {
					v.options.Changed()
				}
			}
			wait = min(r.next(), r.untilExpiry())
		}
		select {
		case <-ctx.Done():
			return
		case <-v.renewed:
			continue
		case <-time.After(wait):
		}
		if r != nil && r.next() == 0 {
			v.refetch(ctx, r)
		}
	}
}

func (v *Verifier) refetch(ctx context.Context, r *remote) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return
	}
	if r.next() == 0 { // nobody else was faster
		v.fetch(ctx, r)
	}
}
