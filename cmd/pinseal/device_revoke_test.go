package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pinseal/pki"
)

// lostDevice is a node that has a device named lost.
func lostDevice(t *testing.T) layout {
	t.Helper()
	dir := makeNode(t)
	var out strings.Builder
	std := streams{in: strings.NewReader(""), out: &out, err: &out}
	if code := run(t.Context(), []string{"device", "add", "lost", "--dir", dir, "--out", filepath.Join(t.TempDir(), "lost")}, std); code != exitDone {
		t.Fatalf("%d: %s", code, out.String())
	}
	return layoutUnder(dir)
}

func revokeLost(t *testing.T, l layout) (code int, said string) {
	t.Helper()
	var out strings.Builder
	code = run(t.Context(), []string{"device", "revoke", "lost", "--dir", l.state}, streams{in: strings.NewReader(""), out: &out, err: &out})
	return code, out.String()
}

// A node that issues another certificate at this very moment learns of the revocation too late: others are told of that one, too.
func TestRevokedWhileItRenews(t *testing.T) {
	t.Parallel()
	l := lostDevice(t)
	authority, err := readAuthority(l)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := authority.IssueClient("lost", key.Public(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	late, err := pki.ParseCertificates(text)
	if err != nil {
		t.Fatal(err)
	}
	control, err := listenControl(l.control(), func(context.Context, []string, func(string)) error {
		return pki.OpenJournal(l.journal()).Append(pki.Issued(late[0], deviceProfile, "renewal", time.Now()))
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- control.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	if code, said := revokeLost(t, l); code != exitDone {
		t.Fatalf("%d: %s", code, said)
	}
	list, err := l.publishedList()
	if err != nil || list == nil {
		t.Fatal(err)
	}
	for _, entry := range list.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(late[0].SerialNumber) == 0 {
			return
		}
	}
	t.Errorf("of %d certificates on the list, none is the last that it was given", len(list.RevokedCertificateEntries))
}

// A lost device is kept out whatever has become of the journal.
func TestRevokeWithADamagedJournal(t *testing.T) {
	t.Parallel()
	l := lostDevice(t)
	if err := os.WriteFile(l.journal(), []byte("no line of ours\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, said := revokeLost(t, l)
	if code != exitFailed || !strings.Contains(said, "journal:1: ") {
		t.Errorf("%d: %s", code, said)
	}
	denied, err := readDenied(l)
	if err != nil {
		t.Fatal(err)
	}
	if _, is := denied.Since("lost"); !is || exists(l.signer("lost")) {
		t.Errorf("it is let in: %s", said)
	}
}
