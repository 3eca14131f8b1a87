package pki_test

import (
	"testing"
	"time"

	"pinseal/pki"
)

// A client whose clock is behind takes a certificate from its future, and nothing else that it would not have taken.
func TestDoubtClock(t *testing.T) {
	t.Parallel()
	authority, stranger := newAuthority(t), newAuthority(t)
	tests := []struct {
		name     string
		issuer   *pki.Authority
		issued   time.Duration // of the server's, from the client's clock
		doubtful bool
		host     string
		want     string // "" = connected
	}{
		{name: "in the future, in doubt", issuer: authority, issued: 100 * day, doubtful: true},
		{name: "in the future, sure", issuer: authority, issued: 100 * day, want: "not yet valid"},
		{name: "valid now", issuer: authority, doubtful: true},
		{name: "expired", issuer: authority, issued: -900 * day, doubtful: true, want: "expired"},
		{name: "of a stranger, in the future", issuer: stranger, issued: 100 * day, doubtful: true, want: "unknown authority"},
		{name: "for another host", issuer: authority, issued: 100 * day, doubtful: true, host: "elsewhere", want: "not elsewhere"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			issued := now.Add(tt.issued)
			files := issueServer(t, tt.issuer, t.TempDir(), issued)
			files.CA = issueClient(t, authority, t.TempDir(), "x", now).CA
			config := clientConfig(t, issueClient(t, authority, t.TempDir(), "sensor-1", now), now)
			if tt.host != "" {
				config.ServerName = tt.host
			}
			pki.DoubtClock(config, func() bool { return tt.doubtful })
			got, err := connect(t, loadServer(t, files, issued).Config(), config)
			if tt.want != "" {
				wantError(t, err, tt.want)
				if _, hint := pki.Explain(err); hint == "" {
					t.Errorf("no explanation of %v", err)
				}
			} else if got.err != nil || err != nil {
				t.Errorf("server %v, client %v", got.err, err)
			}
		})
	}
}
