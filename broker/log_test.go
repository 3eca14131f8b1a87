package broker_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"pinseal/broker"
)

// line is one of the log.
type line struct {
	Msg, Reason, Detail, Topic, Session string
	Seconds                             *float64
	Suppressed                          uint64
	Client                              struct{ Identity, Listener, Address, ID, Protocol string }
}

// lines reads what the log holds with this message.
func (l *logBuffer) lines(tb testing.TB, msg string) []line {
	tb.Helper()
	var found []line
	for text := range strings.Lines(l.String()) {
		var one line
		if err := json.Unmarshal([]byte(text), &one); err != nil {
			tb.Fatalf("%q: %v", text, err)
		}
		if one.Msg == msg {
			found = append(found, one)
		}
	}
	return found
}

func logged(t *testing.T, change func(*broker.Config)) *site {
	t.Helper()
	log := &logBuffer{}
	s := start(t, func(c *broker.Config) {
		c.Log = slog.New(slog.NewJSONHandler(log, nil))
		if change != nil {
			change(c)
		}
	})
	s.log = log
	return s
}

// Every connection that is let in has a line at its beginning and one at its end, which says why.
func TestLogOfConnections(t *testing.T) {
	s := logged(t, func(c *broker.Config) { c.Limits.MaxPacketBytes = 2000 })
	evil := "x\"}\u2028{\"msg\":\"forged\"}" // control characters do not get this far
	for _, tc := range []struct {
		name  string
		hello []byte
		end   func(c raw)
		want  line
	}{
		{"goodbye", connect311("one"), func(c raw) { c.send(t, []byte{0xe0, 0}) }, line{Reason: "goodbye", Session: "goodbye:one"}},
		{"lost", connect5("two"), func(c raw) { _ = c.NetConn().Close() }, line{Reason: "lost", Session: "lost:two"}},
		{"too-large", connect5("three"), func(c raw) { c.send(t, packet(0x30, make([]byte, 3000))) }, line{Reason: "packet-too-large", Session: "too-large:three"}},
		{"taken-over", connect311(evil), func(raw) {
			c := s.dialRaw(t, "taken-over")
			c.send(t, connect311(evil))
			c.read(t)
		}, line{Reason: "taken-over", Session: "taken-over:" + evil}},
	} {
		c := s.dialRaw(t, tc.name)
		c.send(t, tc.hello)
		c.read(t)
		tc.end(c)
		tc.want.Client.Identity, tc.want.Client.Listener, tc.want.Client.Address = tc.name, "test", c.LocalAddr().String()
		_, tc.want.Client.ID, _ = strings.Cut(tc.want.Session, ":")
		tc.want.Client.Protocol = "3.1.1"
		if tc.hello[8] == 5 {
			tc.want.Client.Protocol = "5.0"
		}
		find := func(msg string) (found *line) {
			for _, l := range s.log.lines(t, msg) {
				if l.Client.Identity == tc.name && l.Client.Address == c.LocalAddr().String() {
					found = &l
				}
			}
			return found
		}
		eventually(t, tc.name, func() bool { return find("client disconnected") != nil })
		end, begin := find("client disconnected"), find("client connected")
		if end.Seconds == nil || *end.Seconds < 0 || *end.Seconds > 60 {
			t.Errorf("%s: connected for %v seconds", tc.name, end.Seconds)
		}
		end.Seconds = nil
		tc.want.Msg = "client disconnected"
		if *end != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, *end, tc.want)
		}
		if begin == nil || begin.Client != tc.want.Client || begin.Session != tc.want.Session {
			t.Errorf("%s: began with %+v, want %+v", tc.name, begin, tc.want)
		}
	}
	if len(s.log.lines(t, "forged")) != 0 {
		t.Error("a client has written a line of its own")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if all := s.log.lines(t, "client disconnected"); all[len(all)-1].Reason != "shutdown" {
		t.Errorf("the last one, when the broker stopped: %+v", all[len(all)-1])
	}
}

// Who is refused or denied something is in the log with what is known of it, and never with a secret.
func TestLogOfRefusals(t *testing.T) {
	s := logged(t, func(c *broker.Config) {
		open(c)
		c.Policy = &broker.Policy{Rules: []broker.Rule{{Identity: "*", Publish: []string{"mine"}}}}
		c.Limits.MaxClientIDBytes = 10
	})
	c := s.stranger(t)
	c.send(t, login5("alice", "wrong-secret"))
	c.wantClosed(t)
	long := s.dialRaw(t, "long")
	long.send(t, connect5(strings.Repeat("é", 100)))
	long.wantClosed(t)
	denied := s.dialRaw(t, "bob")
	denied.send(t, connect5("lamp"))
	denied.read(t)
	denied.publishes(t, 5, 1, false, "yours")
	for _, want := range []struct {
		msg, reason, identity, id string
	}{
		{"connection refused or ended", "bad-login", "", "id"},
		{"connection refused or ended", "bad-client-id", "long", strings.Repeat("é", 64) + "…"},
		{"request denied", "publish-not-permitted", "bob", "lamp"},
	} {
		found := false
		for _, l := range s.log.lines(t, want.msg) {
			found = found || l.Reason == want.reason && l.Client.Identity == want.identity && l.Client.ID == want.id && l.Client.Protocol == "5.0" && l.Client.Listener == "test" && l.Client.Address != ""
		}
		if !found {
			t.Errorf("no line %+v in\n%s", want, s.log)
		}
	}
	if len(s.log.lines(t, "client disconnected")) != 0 {
		t.Error("who was not let in cannot have left")
	}
	if strings.Contains(s.log.String(), "wrong-secret") {
		t.Error("a password in the log")
	}
}

// A flood leaves some lines, which say how many there would have been.
func TestLogOfFloods(t *testing.T) {
	s := logged(t, func(c *broker.Config) { c.Limits.MaxConnectRate = 1_000_000 })
	const flood = 300
	for range flood {
		c := s.dialRaw(t, "alice")
		c.send(t, connect311("id"))
		c.read(t)
		c.send(t, []byte{0xe0, 0})
		c.wantClosed(t)
	}
	for _, msg := range []string{"client connected", "client disconnected"} {
		lines := s.log.lines(t, msg)
		told := uint64(len(lines))
		for _, l := range lines {
			told += l.Suppressed
		}
		if len(lines) > 10+2*60 || len(lines) == 0 || told > flood {
			t.Errorf("%s: %d lines that tell of %d", msg, len(lines), told)
		}
	}
	if n := len(s.log.lines(t, "client connected")); n > flood/2 {
		t.Errorf("%d lines for %d connections", n, flood)
	}
}
