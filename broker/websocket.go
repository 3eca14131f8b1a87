package broker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"pinseal/broker/internal/frame"

	"github.com/gorilla/websocket"
)

const (
	// subprotocol is what a client must offer (MQTT 5.0 section 6).
	subprotocol = "mqtt"
	// maxUpgradeBytes bounds the HTTP request that opens a WebSocket.
	maxUpgradeBytes = 8 << 10
	// webSocketReadBytes is the buffer of each WebSocket; a message is handed on as it comes, never collected.
	webSocketReadBytes = 1 << 10
)

// webSocket is a WebSocket (RFC 6455) as a stream of bytes. Where one message ends and the next begins means nothing
// (MQTT 5.0 section 6), so none is ever held as a whole.
type webSocket struct {
	*websocket.Conn
	patience time.Duration // for writing what answers a ping or says goodbye
	message  io.Reader     // the one that is being read
}

// upgrade answers the HTTP request that opens a WebSocket. Nothing else is served: whatever is not such a request gets
// an HTTP error, and the connection ends. It takes the deadlines of under away.
func (c *conn) upgrade(under net.Conn) (*webSocket, error) {
	head := &io.LimitedReader{R: under, N: maxUpgradeBytes}
	exchange := &exchange{Conn: under, in: bufio.NewReaderSize(head, webSocketReadBytes), header: http.Header{}}
	request, err := http.ReadRequest(exchange.in)
	if err != nil {
		http.Error(exchange, "this is no request for a WebSocket", http.StatusBadRequest)
		return nil, errors.New("no request for a WebSocket") // err may quote a password
	}
	if !slices.Contains(websocket.Subprotocols(request), subprotocol) {
		http.Error(exchange, "the subprotocol "+subprotocol+" is not offered", http.StatusBadRequest)
		return nil, errors.New("WebSocket without the subprotocol " + subprotocol)
	}
	if !c.listener.originAllowed(request) {
		c.end(ReasonOrigin, fmt.Sprintf("%.128q", request.Header.Get("Origin")))
		http.Error(exchange, "this origin is not allowed", http.StatusForbidden)
		return nil, errors.New("origin not allowed")
	}
	patience := c.broker.limits.Load().WriteTimeout
	upgrader := websocket.Upgrader{
		HandshakeTimeout: patience,
		Subprotocols:     []string{subprotocol},
		WriteBufferPool:  &c.broker.wsBuffers,
		WriteBufferSize:  largePiece,
		CheckOrigin:      func(*http.Request) bool { return true }, // as was found
	}
	socket, err := upgrader.Upgrade(exchange, request, nil)
	if err != nil {
		return nil, err
	}
	w := &webSocket{Conn: socket, patience: patience}
	socket.SetPingHandler(w.pong)
	return w, nil
}

// exchange is the one HTTP request of a connection and the answer to it.
type exchange struct {
	net.Conn
	in     *bufio.Reader
	header http.Header
}

// Header returns the headers of the answer.
func (e *exchange) Header() http.Header { return e.header }

// WriteHeader begins an answer that refuses.
func (e *exchange) WriteHeader(code int) {
	e.header.Set("Connection", "close")
	var head strings.Builder
	_, _ = fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code)) // a Builder does not fail
	_ = e.header.Write(&head)
	_, _ = io.WriteString(e.Conn, head.String()+"\r\n") // the connection ends anyway
}

// Hijack hands the connection over to the WebSocket.
func (e *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return e.Conn, bufio.NewReadWriter(e.in, bufio.NewWriterSize(e.Conn, 1)), nil
}

// originAllowed keeps web pages of strangers from coming in with what their visitors have: a certificate, or a place in
// the network (RFC 6455 section 10.2). Programs that are no browsers give no origin, or that of the broker. A page that
// came without TLS may be anybody's.
//
// A name server of the page's owner can say that the page's own name leads to the broker (DNS rebinding). A browser then
// finds that the broker's certificate is not for that name; without TLS, only addresses are believed.
func (l *Listener) originAllowed(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	if slices.ContainsFunc(l.Origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origins[0]) }) {
		return true
	}
	origin, err := url.Parse(origins[0])
	if err != nil || origin.Host == "" || !strings.EqualFold(origin.Host, r.Host) || l.TLS != nil && origin.Scheme != "https" {
		return false
	}
	_, notAddress := netip.ParseAddr(origin.Hostname())
	return l.TLS != nil || notAddress == nil || origin.Hostname() == "localhost"
}

// Read reads from the binary messages, one after the other.
func (w *webSocket) Read(p []byte) (int, error) {
	for {
		if w.message == nil {
			kind, message, err := w.NextReader()
			if err != nil {
				return 0, readError(err)
			}
			if kind != websocket.BinaryMessage {
				w.goodbye(websocket.CloseUnsupportedData)
				return 0, &frame.Error{Code: frame.CodeMalformed, Text: "WebSocket message that is not binary"}
			}
			w.message = message
		}
		n, err := w.message.Read(p)
		if err == io.EOF {
			w.message, err = nil, nil
		}
		if err != nil {
			return n, readError(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// readError gives an error of the library the meaning that conn knows.
func readError(err error) error {
	if network, ok := errors.AsType[net.Error](err); ok {
		if network.Timeout() {
			return os.ErrDeadlineExceeded // the library hides which it was
		}
		return err
	}
	if _, ended := errors.AsType[*websocket.CloseError](err); ended {
		return io.EOF
	}
	return &frame.Error{Code: frame.CodeMalformed, Text: err.Error()}
}

// Write sends one message. Only one goroutine may call it at a time.
func (w *webSocket) Write(p []byte) (int, error) {
	err := w.WriteMessage(websocket.BinaryMessage, p)
	if network, ok := errors.AsType[net.Error](err); ok && network.Timeout() {
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// pong answers a ping. It waits for what is being written; meanwhile nothing is read from the client.
func (w *webSocket) pong(data string) error {
	return w.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(w.patience))
}

func (w *webSocket) goodbye(code int) {
	// Its error is that of a client that has gone already.
	_ = w.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(closeGrace))
}

// Close says goodbye and closes the connection below.
func (w *webSocket) Close() error {
	w.goodbye(websocket.CloseNormalClosure)
	return w.Conn.Close()
}

// SetDeadline sets both.
func (w *webSocket) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}
