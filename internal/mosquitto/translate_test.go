package mosquitto_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pinseal/internal/mosquitto"
)

// translate reads a configuration, and gives its notes without the folder.
func translate(t *testing.T, text string) (c *mosquitto.Config, notes []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := mosquitto.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	c = mosquitto.Translate(lines)
	for _, n := range c.Notes {
		notes = append(notes, strings.TrimPrefix(n.At, path+":")+": "+n.Text)
	}
	for i := range c.Listeners {
		c.Listeners[i].At = strings.TrimPrefix(c.Listeners[i].At, path+":")
	}
	return c, notes
}

func TestListeners(t *testing.T) {
	const files = "cafile ca\ncertfile crt\nkeyfile key\n"
	type listeners = []mosquitto.Listener
	for _, tc := range []struct {
		name, text string
		want       listeners
		left       []string // what is left out, with the beginning of why
	}{
		{"none", "", listeners{{Address: "127.0.0.1:1883", AllowAnonymous: true}}, nil},
		{"none, and nobody", "allow_anonymous false\n", nil, nil},
		{"none, with passwords", "allow_anonymous false\npassword_file p\n", listeners{{Address: "127.0.0.1:1883"}}, nil},
		{"on every address", "listener 1883\nallow_anonymous true\n", listeners{{At: "1", Address: ":1883", Plain: true, AllowAnonymous: true}}, nil},
		{"on IPv4", "listener 1883\nsocket_domain ipv4\nallow_anonymous true\n", listeners{{At: "1", Address: "0.0.0.0:1883", Plain: true, AllowAnonymous: true}}, nil},
		{"on the loopback", "listener 1883 ::1\nallow_anonymous 1\n", listeners{{At: "1", Address: "[::1]:1883", AllowAnonymous: true}}, nil},
		{"Unix socket", "listener 0 /run/m.sock\nallow_anonymous true\n", listeners{{At: "1", Address: "/run/m.sock", AllowAnonymous: true}}, nil},
		{"as it was before version 2", "port 1884\nbind_address localhost\nallow_anonymous true\n", listeners{{At: "1", Address: "localhost:1884", AllowAnonymous: true}}, nil},
		{"before any listener line", "max_connections 5\nlistener 1885 127.0.0.1\nallow_anonymous true\n", listeners{
			{At: "1", Address: ":1883", Plain: true, AllowAnonymous: true, MaxConnections: 5}, {At: "2", Address: "127.0.0.1:1885", AllowAnonymous: true},
		}, nil},
		{"by certificate", "listener 8883\n" + files + "require_certificate true\nuse_identity_as_username true\nallow_anonymous true\n", listeners{
			{At: "1", Address: ":8883", TLS: true, RequireCertificate: true, CertificateIsName: true},
		}, nil},
		{"by certificate, though not required in words", "listener 8883\n" + files + "use_identity_as_username true\n", listeners{
			{At: "1", Address: ":8883", TLS: true, RequireCertificate: true, CertificateIsName: true},
		}, nil},
		{"by certificate and password", "password_file p\nlistener 8883\n" + files + "require_certificate true\n", listeners{
			{At: "2", Address: ":8883", TLS: true, RequireCertificate: true},
		}, nil},
		{"certificates of nobody", "listener 8883\ncertfile crt\nkeyfile key\nuse_identity_as_username true\n", nil, []string{"it asks for certificates"}},
		{"TLS without certificates of clients", "password_file p\nlistener 8883\ncertfile crt\nkeyfile key\ntls_version tlsv1.3\nlistener 8884\n" + files + "require_certificate true\n", listeners{
			{At: "2", Address: ":8883", TLS: true, MinTLS: "1.3"}, {At: "6", Address: ":8884", TLS: true, RequireCertificate: true},
		}, nil},
		{"authorities of their own", "listener 8883\n" + files + "use_identity_as_username true\nlistener 8884\ncafile other\ncertfile crt\nkeyfile key\nuse_identity_as_username true\n", listeners{
			{At: "1", Address: ":8883", TLS: true, RequireCertificate: true, CertificateIsName: true},
		}, []string{"it has other authorities"}},
		{"revocations of their own", "listener 8883\n" + files + "use_identity_as_username true\nlistener 8884\n" + files + "crlfile crl\nuse_identity_as_username true\n", listeners{
			{At: "1", Address: ":8883", TLS: true, RequireCertificate: true, CertificateIsName: true},
		}, []string{"it has other authorities or another crlfile"}},
		{"each its own, where that is said", "per_listener_settings true\nlistener 1 127.0.0.1\nallow_anonymous true\nlistener 2 127.0.0.1\nlistener 3 127.0.0.1\npassword_file p\n", listeners{
			{At: "2", Address: "127.0.0.1:1", AllowAnonymous: true}, {At: "5", Address: "127.0.0.1:3"},
		}, []string{"nobody could log in"}},
		{"rules of their own", "per_listener_settings true\nlistener 1 127.0.0.1\nallow_anonymous true\nlistener 2 127.0.0.1\nallow_anonymous true\nacl_file a\n", listeners{
			{At: "2", Address: "127.0.0.1:1", AllowAnonymous: true},
		}, []string{"it has another acl_file"}},
		{"rules of their own, the other way round", "per_listener_settings true\nlistener 2 127.0.0.1\nallow_anonymous true\nacl_file a\nlistener 1 127.0.0.1\nallow_anonymous true\n", listeners{
			{At: "2", Address: "127.0.0.1:2", AllowAnonymous: true},
		}, []string{"it has another acl_file"}},
		{"passwords of their own", "per_listener_settings true\nlistener 1 127.0.0.1\npassword_file p\nlistener 2 127.0.0.1\npassword_file q\n", listeners{
			{At: "2", Address: "127.0.0.1:1"},
		}, []string{"it has another password_file"}},
		{"a listener after a bridge", "connection x\naddress y\ntopic z\nlistener 1883 127.0.0.1\nallow_anonymous true\n", listeners{{At: "4", Address: "127.0.0.1:1883", AllowAnonymous: true}}, nil},
		{"WebSockets", "listener 9001 127.0.0.1\nprotocol websockets\nallow_anonymous true\n", listeners{{At: "1", Address: "127.0.0.1:9001", WebSocket: true, AllowAnonymous: true}}, nil},
		{"another protocol", "listener 9001 127.0.0.1\nprotocol http_api\nallow_anonymous true\n", nil, []string{"it speaks http_api"}},
		{"pre-shared keys", "listener 8885\npsk_hint x\nallow_anonymous true\n", nil, []string{"Go's TLS has no pre-shared keys"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, notes := translate(t, tc.text)
			for i := range tc.want {
				if l := &tc.want[i]; l.At != "" && l.MinTLS == "" {
					l.MinTLS = "1.2"
				}
			}
			if !reflect.DeepEqual(c.Listeners, tc.want) {
				t.Errorf("got\n%+v, want\n%+v", c.Listeners, tc.want)
			}
			var left []string
			for _, n := range notes {
				if _, why, found := strings.Cut(n, " is left out: "); found {
					left = append(left, why)
				}
			}
			if len(left) != len(tc.left) {
				t.Fatalf("left out: %q, want %q", left, tc.left)
			}
			for i := range left {
				if !strings.HasPrefix(left[i], tc.left[i]) {
					t.Errorf("left out: %q, want %q", left, tc.left)
				}
			}
		})
	}
}

// Who is in may do everything only where neither a file nor a plugin could say otherwise.
func TestOpen(t *testing.T) {
	for text, open := range map[string]bool{
		"listener 1883\nallow_anonymous true\n": true,
		"":                                      true,
		"listener 1883\nallow_anonymous true\nacl_file a\n": false,
		"acl_file a\n": false,
		"plugin x\nlistener 1883\nallow_anonymous true\n":      false,
		"listener 1883\nallow_anonymous true\nauth_plugin x\n": false,
		"plugin x\n": false,
		"per_listener_settings true\nlistener 1\nallow_anonymous true\nacl_file a\n":           false,
		"per_listener_settings true\nlistener 1\nallow_anonymous true\nlistener 2\nplugin x\n": false,
	} {
		if c, _ := translate(t, text); c.Open != open {
			t.Errorf("%q: open %v, want %v", text, c.Open, open)
		}
	}
}

func TestSettings(t *testing.T) {
	const listener = "listener 1883 127.0.0.1\npassword_file p\n"
	const day = 24 * time.Hour
	for _, tc := range []struct {
		text string
		want mosquitto.Config
		note string // one of the notes begins so
	}{
		{"persistence true\npersistent_client_expiration 2m\n", mosquitto.Config{Persistent: true, MaxSessionExpiry: 60 * day}, ""},
		{"persistence yes\npersistent_client_expiration 14\n", mosquitto.Config{}, `2: persistent_client_expiration: "14" is not`},
		{"persistent_client_expiration 99999999999999999y\n", mosquitto.Config{}, `1: persistent_client_expiration:`},
		{"persistent_client_expiration 0d\n", mosquitto.Config{}, `1: persistent_client_expiration:`},
		{"max_queued_messages 100\n", mosquitto.Config{Limits: mosquitto.Limits{MaxInflight: 120}}, ""},
		{"max_queued_messages 100\nmax_inflight_messages 5\n", mosquitto.Config{Limits: mosquitto.Limits{MaxInflight: 105}}, "2: max_inflight_messages: "},
		{"max_queued_messages 0\n", mosquitto.Config{}, "1: max_queued_messages 0: "},
		{"max_queued_bytes 70000\n", mosquitto.Config{Limits: mosquitto.Limits{MaxInflightBytes: 70000}}, ""},
		{"max_packet_size 5000\nmessage_size_limit 1000\n", mosquitto.Config{Limits: mosquitto.Limits{MaxPacketBytes: 2024}}, "2: message_size_limit: "},
		{"max_packet_size 1500\nmessage_size_limit 1000\n", mosquitto.Config{Limits: mosquitto.Limits{MaxPacketBytes: 1500}}, ""},
		{"max_packet_size many\n", mosquitto.Config{}, `1: max_packet_size: "many" is not a number`},
		{"max_packet_size -5\n", mosquitto.Config{}, `1: max_packet_size: "-5" is not a number`},
		{"max_keepalive 120\n", mosquitto.Config{Limits: mosquitto.Limits{MaxKeepAlive: 2 * time.Minute}}, ""},
		{"max_keepalive 65535\n", mosquitto.Config{Limits: mosquitto.Limits{MaxKeepAlive: 12 * time.Hour}}, "1: max_keepalive: at most"},
		{"log_type error\nlog_type notice\n", mosquitto.Config{LogLevel: "info"}, ""},
		{"log_type none\n", mosquitto.Config{LogLevel: "error"}, ""},
		{"retain_available false\n", mosquitto.Config{}, "1: retain_available: "},
		{"max_packet_size 1\nmax_packet_size 6000\n", mosquitto.Config{Limits: mosquitto.Limits{MaxPacketBytes: 6000}}, ""},
		{"colour blue\n", mosquitto.Config{}, "1: colour: mosquitto 2.0 has no such option"},
		{"remote_password secret\n", mosquitto.Config{}, "1: remote_password: belongs to no bridge"},
		{"plugin_opt_password secret\n", mosquitto.Config{}, ""},
	} {
		c, notes := translate(t, tc.text+listener)
		tc.want.Listeners, tc.want.Notes = c.Listeners, c.Notes
		tc.want.PasswordFile, tc.want.Open = "p", true
		if !reflect.DeepEqual(*c, tc.want) {
			t.Errorf("%q: got\n%+v, want\n%+v", tc.text, *c, tc.want)
		}
		found := tc.note == ""
		for _, n := range notes {
			found = found || strings.HasPrefix(n, tc.note)
			if strings.Contains(n, "secret") {
				t.Errorf("%q: a password is noted: %s", tc.text, n)
			}
		}
		if !found {
			t.Errorf("%q: notes %q, want %q", tc.text, notes, tc.note)
		}
	}
}

// Folders are included where they stand, sorted, and only what ends in .conf.
func TestIncludes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("m.conf", "a 1\r\ninclude_dir "+dir+"/[odd] *\n  z  9 with  spaces \n #x\n")
	write("[odd] */b.conf", "b 2\n")
	write("[odd] */B.conf", "B 1\n#c 3\n\nlast 3")
	write("[odd] */other.txt", "never 1\n")
	lines, err := mosquitto.Read(filepath.Join(dir, "m.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lines {
		got = append(got, strings.TrimPrefix(l.At(), dir+"/")+" "+l.Option+"="+l.Value)
	}
	want := []string{"m.conf:1 a=1", "[odd] */B.conf:1 B=1", "[odd] */B.conf:4 last=3", "[odd] */b.conf:1 b=2", "m.conf:3 z=9 with  spaces", "m.conf:4 #x="}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	write("bad.conf", "include_dir "+dir+"/nowhere\n")
	if _, err := mosquitto.Read(filepath.Join(dir, "bad.conf")); err == nil || !strings.Contains(err.Error(), "bad.conf:1: ") {
		t.Errorf("a folder that is not there: %v", err)
	}
	write("round/a.conf", "include_dir "+dir+"/round\n")
	if _, err := mosquitto.Read(filepath.Join(dir, "round", "a.conf")); err == nil || !strings.Contains(err.Error(), "circles") {
		t.Errorf("a circle: %v", err)
	}
}
