package systemd_test

import (
	"bufio"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"pinseal/systemd"
)

// bus is a D-Bus daemon with timedated behind it, as far as one client needs it.
type bus struct {
	answer func(call *dbus.Message) *dbus.Message // nil: never answers
}

// start serves on a socket and makes it the system bus.
func (b bus) start(t *testing.T) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "bus")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-served })
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.serve(conn)
			_ = conn.Close()
		}
	}()
}

func (b bus) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for { // the SASL part is lines of text
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimLeft(line, "\x00")
		if strings.HasPrefix(line, "BEGIN") {
			break
		}
		reply := "ERROR\r\n"
		switch {
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			reply = "OK 0123456789abcdef0123456789abcdef\r\n"
		case line == "AUTH\r\n":
			reply = "REJECTED EXTERNAL\r\n"
		}
		if _, err := conn.Write([]byte(reply)); err != nil {
			return
		}
	}
	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		reply := answer(call, ":1.1")
		if call.Headers[dbus.FieldMember].Value() != "Hello" {
			if b.answer == nil {
				continue
			}
			if reply = b.answer(call); reply == nil {
				return
			}
		}
		if err := reply.EncodeTo(conn, binary.LittleEndian); err != nil {
			return
		}
	}
}

func answer(call *dbus.Message, body any) *dbus.Message {
	return &dbus.Message{
		Type: dbus.TypeMethodReply,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
			dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(body)),
		},
		Body: []any{body},
	}
}

func TestClockSynchronized(t *testing.T) {
	says := func(body any) bus {
		return bus{func(call *dbus.Message) *dbus.Message {
			if call.Headers[dbus.FieldDestination].Value() != "org.freedesktop.timedate1" || call.Body[1] != "NTPSynchronized" {
				return nil
			}
			return answer(call, body)
		}}
	}
	tests := []struct {
		name string
		bus  bus
		want bool
	}{
		{"timedated says yes", says(dbus.MakeVariant(true)), true},
		{"timedated says no", says(dbus.MakeVariant(false)), false},
		{"an answer of another type", says(dbus.MakeVariant("true")), false},
		{"the bus hangs up", bus{func(*dbus.Message) *dbus.Message { return nil }}, false},
		{"no answer in time", bus{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.bus.start(t)
			if got := systemd.ClockSynchronizedBy(filepath.Join(t.TempDir(), "none")); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestClockSynchronizedWithoutBus(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	file := filepath.Join(t.TempDir(), "synchronized")
	if systemd.ClockSynchronizedBy(file) {
		t.Error("nobody said so")
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !systemd.ClockSynchronizedBy(file) {
		t.Error("timesyncd says so")
	}
}
