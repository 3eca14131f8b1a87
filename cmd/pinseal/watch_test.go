package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func testBoard(t *testing.T, keys ...signing.Signer) *board {
	t.Helper()
	keyring, err := signing.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := newCryptor(encryptionFiles{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newBoard("raspiflow", keyring, secrets)
}

func TestBoardLines(t *testing.T) {
	b := testBoard(t)
	for _, test := range []struct{ topic, payload, want string }{
		{"pinseal/raspiflow/availability", "online", "node raspiflow online"},
		{"pinseal/raspiflow/led/status", `{"state":"ON","brightness":9}`, ""}, // not known yet
		{"pinseal/raspiflow/led/state", "ON", "output led ON"},
		{"pinseal/raspiflow/led/status", `{"state":"ON","effect":"off"}`, ""},
		{"pinseal/raspiflow/led/status", `{"state":"ON","brightness":128,"effect":"sos","rule":"max_on"}`, "output led brightness 128, sos, by max_on"},
		{"pinseal/raspiflow/led/status", `{`, ""},
		{"pinseal/other/led/state", "ON", ""},
		{"pinseal/raspiflow/verdict/operator", "eyJ", ""},
		{"verified/raspiflow/door", `{"state":"ON","count":17,"per_minute":3,"time":1.5}`, "input door ON, count 17, 3 a minute"},
		{"verified/raspiflow/cpu", `{"value":48.5,"unit":"Cel"}`, "measure raspiflow/cpu 48.5 Cel"},
		{"verified/sensor-1/door", `{"state":"ON","count":17}`, `measure sensor-1/door {"state":"ON","count":17}`},
		{"verified/sensor-1/load", "0.75", "measure sensor-1/load 0.75"},
		{"verified/sensor-1/\u0085", "\x1b[2J", `measure "sensor-1/\u0085" "\x1b[2J"`},
		{"telemetry/sensor-1/load", "no seal", ""},
		{"elsewhere", "1", ""},
	} {
		if got := b.take(mqtt.Message{Topic: test.topic, Payload: []byte(test.payload)}, noon); got != test.want {
			t.Errorf("%s %q: %q, want %q", test.topic, test.payload, got, test.want)
		}
	}
}

// TestBoardBelievesTheNodeAlone: a verdict of any other key, even a trusted one, is none.
func TestBoardBelievesTheNodeAlone(t *testing.T) {
	keys := map[string]*signing.PrivateKey{}
	var signers []signing.Signer
	for _, name := range []string{"raspiflow", "sensor-1"} {
		key, err := signing.GenerateKey(signing.ES256)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
		signers = append(signers, signing.Signer{Name: name, Key: key.Public()})
	}
	b := testBoard(t, signers...)
	topic := agent.VerdictTopic("raspiflow", "operator")
	for name, want := range map[string]string{"raspiflow": "rejected operator ledStatus: stale: old", "sensor-1": ""} {
		raw, err := signing.Seal(keys[name], signing.Claims{
			Topic: topic, IssuedAt: noon, Message: []byte(`{"topic":"ledStatus","kid":"k","reason":"stale","detail":"old","time":"2026-01-02T12:00:00Z"}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it is a repetition
			if got := b.take(mqtt.Message{Topic: topic, Payload: raw}, noon); got != want {
				t.Errorf("of %s: %q, want %q", name, got, want)
			}
			want = ""
		}
	}
	if b.rejected != 1 {
		t.Errorf("%d rejected", b.rejected)
	}
}

// TestRender: whatever there is to show and however small the window, it fits.
func TestRender(t *testing.T) {
	b := testBoard(t)
	for i := range maxWatched + 10 {
		topic := fmt.Sprintf("verified/sensor-%d/%s", i, strings.Repeat("ü", i%60))
		b.take(mqtt.Message{Topic: topic, Payload: []byte(strings.Repeat("x", i))}, noon)
	}
	b.take(mqtt.Message{Topic: agent.StateTopic("raspiflow", "led"), Payload: []byte("ON")}, noon)
	for range 3 {
		b.verdicts = append(b.verdicts, ruling{"operator", agent.Verdict{Topic: "ledStatus", Reason: signing.ReasonStale, Detail: strings.Repeat("y", 200)}})
	}
	if len(b.measures) != maxWatched || b.left != 11 {
		t.Errorf("keeps %d, leaves %d", len(b.measures), b.left)
	}
	for width := 1; width < 200; width += 7 {
		for height := 1; height < 2*maxWatched; height += 97 {
			lines := b.render(width, height, noon)
			if len(lines) > height {
				t.Fatalf("%d lines in a window of %d", len(lines), height)
			}
			for _, line := range lines {
				text := strings.NewReplacer(bold, "", normal, "").Replace(line)
				if utf8.RuneCountInString(text) > width || strings.ContainsFunc(text, unicode.IsControl) {
					t.Fatalf("a window of %d columns has %q", width, text)
				}
			}
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 25 * time.Hour: "25 h"} {
		if got := age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// TestBoardNotice: what is to be said of our own certificate stands below the headline, in the window's width.
func TestBoardNotice(t *testing.T) {
	b := testBoard(t)
	b.notice = strings.Repeat("expires ", 20)
	if got := b.render(40, 10, noon); len(got) != 2 || got[1] != b.notice[:39]+"…" {
		t.Errorf("%q", got)
	}
}
