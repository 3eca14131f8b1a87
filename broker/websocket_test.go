package broker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"

	"pinseal/broker"
)

// overWebSocket turns the listener into one for WebSockets.
func overWebSocket(c *broker.Config) { c.Listeners[0].WebSocket = true }

// dialWebSocket opens a WebSocket with a certificate, and returns the HTTP answer if that is refused.
func (s *site) dialWebSocket(tb testing.TB, header http.Header, protocols ...string) (*websocket.Conn, *http.Response) {
	tb.Helper()
	d := websocket.Dialer{TLSClientConfig: s.clientTLS(tb, "alice"), Subprotocols: protocols, HandshakeTimeout: timeout}
	c, answer, err := d.DialContext(tb.Context(), "wss://"+s.addr+"/mqtt", header)
	if err != nil {
		if answer == nil {
			tb.Fatal(err)
		}
		return nil, answer
	}
	tb.Cleanup(func() { _ = c.Close() })
	if err := errors.Join(c.SetReadDeadline(time.Now().Add(timeout)), c.SetWriteDeadline(time.Now().Add(timeout))); err != nil {
		tb.Fatal(err)
	}
	return c, answer
}

func sendMessage(tb testing.TB, c *websocket.Conn, kind int, message []byte) {
	tb.Helper()
	if err := c.WriteMessage(kind, message); err != nil {
		tb.Fatal(err)
	}
}

func readMessage(tb testing.TB, c *websocket.Conn) []byte {
	tb.Helper()
	kind, message, err := c.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage {
		tb.Fatalf("message of kind %d, %v", kind, err)
	}
	return message
}

func TestWebSocketClients(t *testing.T) {
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			s := start(t, func(c *broker.Config) {
				if scheme == "ws" {
					plain(c)
				}
				overWebSocket(c)
			})
			change := func(name string) func(o *paho.ClientOptions) {
				return func(o *paho.ClientOptions) {
					o.Servers = nil
					o.AddBroker(scheme + "://" + s.addr + "/any/path")
					if scheme == "ws" {
						o.SetUsername(name).SetPassword("pass-" + name)
					}
				}
			}
			sub := must(s.tryConnect(t, "alice", "", change("alice")))(t)
			pub := must(s.tryConnect(t, "bob", "", change("bob")))(t)
			sub.subscribe(t, "a/#", 2)
			large := strings.Repeat("x", 100_000)
			for qos := range byte(3) {
				pub.publish(t, "a/b", fmt.Sprint(qos), qos)
				sub.want(t, "a/b", fmt.Sprint(qos))
				pub.publish(t, "a/large", large, qos)
				sub.want(t, "a/large", large)
			}
			if _, err := s.tryConnect(t, "carol", "", func(o *paho.ClientOptions) {
				change("carol")(o)
				o.SetUsername("somebody")
			}); err == nil {
				t.Error("a wrong name was let in")
			}
		})
	}
}

// Where messages begin and end means nothing.
func TestWebSocketIsAStream(t *testing.T) {
	s := start(t, overWebSocket)
	c, answer := s.dialWebSocket(t, nil, "other", "mqtt")
	if got := answer.Header.Get("Sec-WebSocket-Protocol"); got != "mqtt" {
		t.Errorf("subprotocol %q", got)
	}
	for _, b := range connect5("id") {
		sendMessage(t, c, websocket.BinaryMessage, []byte{b})
		sendMessage(t, c, websocket.BinaryMessage, nil)
	}
	if ack := readMessage(t, c); ack[0] != 0x20 || ack[3] != 0 {
		t.Fatalf("received % x, want CONNACK", ack)
	}
	if err := c.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	ponged := ""
	c.SetPongHandler(func(data string) error { ponged = data; return nil })
	sendMessage(t, c, websocket.BinaryMessage, bytes.Repeat([]byte{0xc0, 0}, 3))
	var got []byte
	for len(got) < 6 {
		got = append(got, readMessage(t, c)...)
	}
	if !bytes.Equal(got, bytes.Repeat([]byte{0xd0, 0}, 3)) || ponged != "hello" {
		t.Errorf("received % x and pong %q", got, ponged)
	}
	// The same strict check as without a WebSocket.
	sendMessage(t, c, websocket.BinaryMessage, packet(0x30, str("#"), []byte{0}))
	if bye := readMessage(t, c); bye[0] != 0xe0 || bye[2] != 0x90 {
		t.Errorf("received % x, want DISCONNECT", bye)
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("then %v, want the WebSocket closed", err)
	}
}

func TestWebSocketRefused(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		overWebSocket(c)
		c.Listeners[0].Origins = []string{"https://friend.example"}
	})
	host := "https://" + s.addr
	for _, tc := range []struct {
		name      string
		protocols []string
		header    http.Header
		code      int // of HTTP; 101 is success
	}{
		{"no origin", []string{"mqtt"}, nil, 101},
		{"no subprotocol", nil, nil, 400},
		{"other subprotocol", []string{"mqttv3.1"}, nil, 400},
		{"own origin", []string{"mqtt"}, http.Header{"Origin": {host}}, 101},
		{"named origin", []string{"mqtt"}, http.Header{"Origin": {"https://friend.example"}}, 101},
		{"foreign origin", []string{"mqtt"}, http.Header{"Origin": {"https://evil.example"}}, 403},
		{"foreign port", []string{"mqtt"}, http.Header{"Origin": {"https://127.0.0.1:1"}}, 403},
		{"page without TLS", []string{"mqtt"}, http.Header{"Origin": {"http://" + s.addr}}, 403},
		{"sandboxed page", []string{"mqtt"}, http.Header{"Origin": {"null"}}, 403},
		{"two origins", []string{"mqtt"}, http.Header{"Origin": {host, "https://evil.example"}}, 403},
		{"no page", []string{"mqtt"}, http.Header{"Origin": {""}}, 403},
	} {
		_, answer := s.dialWebSocket(t, tc.header, tc.protocols...)
		if answer.StatusCode != tc.code {
			t.Errorf("%s: %s, want %d", tc.name, answer.Status, tc.code)
		}
	}
	if n := s.Stats().ByReason[broker.ReasonOrigin]; n != 6 {
		t.Errorf("%d origins refused, want 6", n)
	}
}

// Without TLS the browser cannot find out that a name leads to a foreign broker.
func TestPlainWebSocketOrigin(t *testing.T) {
	s := start(t, func(c *broker.Config) { plain(c); overWebSocket(c) })
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	for host, code := range map[string]int{"127.0.0.1:" + port: 101, "localhost:" + port: 101, "rebound.example:" + port: 403} {
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}, NetDialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.addr)
		}}
		c, answer, err := d.DialContext(t.Context(), "ws://"+host, http.Header{"Origin": {"http://" + host}})
		if c != nil {
			_ = c.Close()
		}
		if answer == nil || answer.StatusCode != code {
			t.Errorf("%s: %v, want %d", host, err, code)
		}
	}
}

// What does not speak HTTP, or endlessly, or no WebSocket, is not served.
func TestNoWebSocket(t *testing.T) {
	s := start(t, func(c *broker.Config) { plain(c); overWebSocket(c) })
	open := "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n"
	for _, tc := range []struct{ name, request, answer string }{
		{"a page", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 "},
		{"not GET", strings.Replace(open, "GET", "POST", 1) + "\r\n", "HTTP/1.1 405 "},
		{"old version", strings.Replace(open, ": 13", ": 12", 1) + "\r\n", "HTTP/1.1 400 "},
		{"MQTT itself", string(connect311("id")) + "\n", "HTTP/1.1 400 "},
		{"endless header", open + "X: " + strings.Repeat("x", 10<<10), "HTTP/1.1 400 "},
		{"many headers", open + strings.Repeat("X: y\r\n", 2000), "HTTP/1.1 400 "},
		{"more before the answer", open + "\r\n" + string(connect311("id")), ""},
		{"frame without mask", open + "\r\n", "HTTP/1.1 101 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dialPlain(t, "tcp", s.addr)
			go func() { _, _ = io.WriteString(c, tc.request) }() // it may be closed meanwhile
			answer := make([]byte, 13)
			n, _ := io.ReadFull(c, answer)
			// What was not read may take the answer along as the connection is reset.
			if got := string(answer[:n]); !strings.HasPrefix(tc.answer, got) {
				t.Errorf("answer %q, want %q", got, tc.answer)
			}
			if strings.Contains(tc.answer, "101") {
				_, _ = c.Write(append([]byte{0x82, 2}, 0xc0, 0))
			}
			if _, err := io.Copy(io.Discard, c); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stayed open")
			}
		})
	}
	eventually(t, "all gone", func() bool { return s.Stats().Connections == 0 })
	if log := s.log.String(); strings.Contains(log, "MQTT\\x04") {
		t.Error("what a client sent is in the log")
	}
}

func TestWebSocketMessageThatIsNotBinary(t *testing.T) {
	s := start(t, overWebSocket)
	c, _ := s.dialWebSocket(t, nil, "mqtt")
	sendMessage(t, c, websocket.TextMessage, connect311("id"))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseUnsupportedData) {
		t.Errorf("%v, want 1003", err)
	}
	eventually(t, "counted", func() bool { return s.Stats().ByReason[broker.ReasonMalformed] == 1 })
}

// A silent WebSocket, one whose request never ends, and one without a CONNECT all end when their time is up.
func TestWebSocketConnectTimeout(t *testing.T) {
	t.Parallel() // it waits for clocks
	s := start(t, func(c *broker.Config) {
		overWebSocket(c)
		c.Limits.ConnectTimeout = 300 * time.Millisecond
	})
	silent := s.dialRaw(t, "alice")
	slow := s.dialRaw(t, "alice")
	if _, err := io.WriteString(slow, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	open, _ := s.dialWebSocket(t, nil, "mqtt")
	silent.wantClosed(t)
	slow.wantClosed(t)
	if _, _, err := open.ReadMessage(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a WebSocket without a CONNECT: %v", err)
	}
	eventually(t, "all gone", func() bool { return s.Stats().Connections == 0 })
	if n := s.Stats().ByReason[broker.ReasonTimeout]; n == 0 {
		t.Error("no timeout counted")
	}
}

// The certificate below a WebSocket is judged like any other.
func TestWebSocketRecheck(t *testing.T) {
	s := start(t, overWebSocket)
	c, _ := s.dialWebSocket(t, nil, "mqtt")
	sendMessage(t, c, websocket.BinaryMessage, connect5("id"))
	readMessage(t, c)
	s.Recheck(func(tls.ConnectionState) error { return nil })
	sendMessage(t, c, websocket.BinaryMessage, []byte{0xc0, 0})
	if m := readMessage(t, c); m[0] != 0xd0 {
		t.Fatalf("received % x, want the answer to PINGREQ", m)
	}
	s.Recheck(func(tls.ConnectionState) error { return errors.New("revoked") })
	if bye := readMessage(t, c); bye[0] != 0xe0 || bye[2] != 0x87 {
		t.Errorf("received % x, want DISCONNECT", bye)
	}
}
