package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// TestHostileTopics has topics that would look like lines, or like who vouches for a message: any client chooses its
// topics, and a broker elsewhere sends what it likes.
func TestHostileTopics(t *testing.T) {
	keyring, err := signing.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ topic, payload, out, err string }{
		{"telemetry/s/load", "1", "telemetry/s/load [plain] 1\n", ""},
		{"telemetry/s/x\n[operator] on", "1", `"telemetry/s/x\n[operator] on" [plain] 1` + "\n", ""},
		{"x [operator] on", "", `"x [operator] on" [plain] ` + "\n", ""},
		{"x\u00a0[operator]\u00a0on", "", `"x\u00a0[operator]\u00a0on" [plain] ` + "\n", ""},
		{"x\x1b[2J", "1", `"x\x1b[2J" [plain] 1` + "\n", ""},
		{"x", "on\u202e]rotarepo[", `x [plain] "on\u202e]rotarepo["` + "\n", ""},
		{"x\n[operator] on", "eyJ.a.b", "", `pinseal: on "x\n[operator] on": not genuine: `},
	} {
		var out, errs strings.Builder
		v := newViewer(streams{out: &out, err: &errs}, keyring, nil, true)
		if _, err := v.message(mqtt.Message{Topic: test.topic, Payload: []byte(test.payload)}); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.out || !strings.HasPrefix(errs.String(), test.err) || strings.Count(errs.String(), "\n") > 1 {
			t.Errorf("%q: printed %q and %q", test.topic, out.String(), errs.String())
		}
	}
}

// TestControlLinesAreLines: what a stranger has named can neither end a line that is told nor pass for the answer.
func TestControlLinesAreLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	server, err := listenControl(path, func(_ context.Context, _ []string, tell func(string)) error {
		tell("STOP on x\nok")
		tell("on \x1b[2J\u202e, ja: \u00fc\t.")
		return errStopped
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var told []string
	err = askNodeLines(t.Context(), path, 0, func(line string) { told = append(told, line) }, "trace")
	if err == nil || err.Error() != errStopped.Error() {
		t.Errorf("answered %v", err)
	}
	if want := []string{`STOP on x\nok`, "on \\x1b[2J\\u202e, ja: \u00fc\t."}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// An error is one line, of however many it is made, and whatever strangers' words are in it.
func TestErrorsAreOneLine(t *testing.T) {
	var out strings.Builder
	report(&out, errors.Join(errors.New("one"), withHint(errors.New("two\x1b[31m"), "a cure")))
	if want := "pinseal: one; two\\x1b[31m\nhint: a cure\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
