package broker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pinseal/broker"
	"pinseal/internal/freeport"
	"pinseal/pki"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// mosquitto runs mosquitto_pub or mosquitto_sub over TLS 1.3 with a certificate of its own.
func (s *site) mosquitto(ctx context.Context, tb testing.TB, program string, f pki.Files, args ...string) *exec.Cmd {
	tb.Helper()
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		tb.Fatal(err)
	}
	args = append([]string{"-h", "127.0.0.1", "-p", port, "--tls-version", "tlsv1.3", "--cafile", f.CA}, args...)
	if f.Certificate != "" {
		args = append(args, "--cert", f.Certificate, "--key", f.Key)
	}
	return exec.CommandContext(ctx, program, args...)
}

func TestMosquittoClients(t *testing.T) {
	for _, version := range []string{"mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			s := start(t, nil)
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			f := s.files(t, "alice", time.Now())
			sub := s.mosquitto(ctx, t, "mosquitto_sub", f, "-V", version, "-t", "led/#", "-q", "2", "-v", "-C", "3")
			out := &bytes.Buffer{}
			sub.Stdout = out
			if err := sub.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "subscribed", func() bool { return s.Stats().Subscriptions == 1 })
			for _, qos := range []string{"0", "1", "2"} {
				pub := s.mosquitto(ctx, t, "mosquitto_pub", f, "-V", version, "-t", "led/"+qos, "-q", qos, "-m", "hello "+qos, "-u", "alice")
				if text, err := pub.CombinedOutput(); err != nil {
					t.Errorf("mosquitto_pub: %v: %s", err, text)
				}
			}
			if err := sub.Wait(); err != nil {
				t.Errorf("mosquitto_sub: %v", err)
			}
			if want := "led/0 hello 0\nled/1 hello 1\nled/2 hello 2\n"; out.String() != want {
				t.Errorf("received %q, want %q", out, want)
			}
		})
	}
}

func TestMosquittoRefused(t *testing.T) {
	s := start(t, func(c *broker.Config) { c.Policy = commands() })
	own := s.files(t, "alice", time.Now())
	foreign := (&site{authority: must(pki.CreateAuthority("other", time.Now()))(t)}).files(t, "alice", time.Now())
	foreign.CA = own.CA
	otherCA := own
	otherCA.CA = (&site{authority: must(pki.CreateAuthority("other", time.Now()))(t)}).files(t, "alice", time.Now()).CA
	for _, tc := range []struct {
		name  string
		files pki.Files
		args  []string
		fails bool
	}{
		{"good", own, nil, false},
		{"certificate of a foreign authority", foreign, nil, true},
		{"client trusts another authority", otherCA, nil, true},
		{"no certificate", pki.Files{CA: own.CA}, nil, true},
		{"expired certificate", s.files(t, "alice", time.Now().AddDate(-4, 0, 0)), nil, true},
		{"name of the node", s.files(t, node, time.Now()), nil, true},
		{"other user name", own, []string{"-u", "bob"}, true},
		{"will not permitted", own, []string{"--will-topic", "state/x", "--will-payload", "x"}, true},
	} {
		for _, version := range []string{"mqttv311", "mqttv5"} {
			t.Run(tc.name+" "+version, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				args := append([]string{"-V", version, "-t", "led", "-m", "on", "-q", "1"}, tc.args...)
				text, err := s.mosquitto(ctx, t, "mosquitto_pub", tc.files, args...).CombinedOutput()
				if (err != nil) != tc.fails || ctx.Err() != nil {
					t.Errorf("mosquitto_pub: %v: %s", err, text)
				}
			})
		}
	}
	if n := s.Stats().Received; n != 2 {
		t.Errorf("%d messages received, want the two good ones", n)
	}
}

// mosquittoBroker is Debian's broker, to compare ours with. Its clients have names and no passwords.
type mosquittoBroker struct{ addr string }

func startMosquitto(tb testing.TB, settings ...string) *mosquittoBroker {
	tb.Helper()
	addr := must(freeport.Address())(tb)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	text := "user root\nallow_anonymous true\nlistener " + port + " 127.0.0.1\n" + strings.Join(settings, "\n") + "\n"
	cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), "mosquitto", "-c", writeFile(tb, "mosquitto.conf", text))
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	eventually(tb, "mosquitto listens", func() bool {
		c, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close() // nothing was said on it
		}
		return err == nil
	})
	return &mosquittoBroker{addr}
}

func (m *mosquittoBroker) connect(tb testing.TB, user, clientID string) *client {
	tb.Helper()
	s := &site{addr: m.addr, authority: must(pki.CreateAuthority("unused", time.Now()))(tb), clients: map[string]*tls.Config{}}
	return must(s.tryConnect(tb, user, clientID, func(o *paho.ClientOptions) {
		o.Servers = nil
		o.AddBroker("tcp://" + m.addr).SetUsername(user)
	}))(tb)
}

func save(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}
