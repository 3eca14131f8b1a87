package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pinseal/broker/internal/frame"
)

func limits() frame.Limits {
	return frame.Limits{PacketBytes: 4096, TopicBytes: 64, TopicLevels: 8, Filters: 4, UserProperties: 3, TopicAliases: 2}
}

func str(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

// packet puts a fixed header before a body.
func packet(first byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	head := []byte{first}
	for n := len(body); ; {
		b := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			head = append(head, b|0x80)
			continue
		}
		return slices.Concat(head, []byte{b}, body)
	}
}

// props puts the length before a property list.
func props(parts ...[]byte) []byte {
	list := slices.Concat(parts...)
	return append([]byte{byte(len(list))}, list...)
}

var (
	none     = []byte{0}
	user     = slices.Concat([]byte{0x26}, str("k"), str("v"))
	id       = []byte{0, 7}
	hello3   = packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, str("id"))
	hello5   = packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, none, str("id"))
	ping     = []byte{0xc0, 0}
	longName = strings.Repeat("x", 65)
)

// vectors are what follows a CONNECT of the version; those of version 0 are whole streams.
func vectors() []struct {
	name    string
	version byte
	stream  []byte
	code    byte // 0: passes
} {
	return []struct {
		name    string
		version byte
		stream  []byte
		code    byte
	}{
		{"connect 3.1.1", 0, hello3, 0},
		{"connect 5", 0, hello5, 0},
		{"connect without id", 0, packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, str("")), 0},
		{"connect with all", 0, packet(0x10, str("MQTT"), []byte{4, 0xee, 0, 60}, str("id"), str("will"), str("bye"), str("name"), str("pw")), 0},
		{"connect 5 with all", 0, packet(0x10, str("MQTT"), []byte{5, 0xee, 0, 60},
			props([]byte{0x11, 0, 0, 0, 9, 0x21, 0, 5, 0x27, 0, 0, 1, 0, 0x22, 0, 3, 0x19, 1, 0x17, 0}, user, user, []byte{0x15}, str("m"), []byte{0x16}, str("d")),
			str("id"), props([]byte{0x18, 0, 0, 0, 1, 1, 1, 2, 0, 0, 0, 9, 3}, str("text"), []byte{8}, str("answer"), []byte{9}, str("c"), user),
			str("will"), str(""), str("name"), str("pw")), 0},
		{"password alone in 5", 0, packet(0x10, str("MQTT"), []byte{5, 0x42, 0, 60}, none, str("id"), str("pw")), 0},
		{"password alone in 3.1.1", 0, packet(0x10, str("MQTT"), []byte{4, 0x42, 0, 60}, str("id"), str("pw")), 0x81},
		{"MQTT 3.1", 0, packet(0x10, str("MQIsdp"), []byte{3, 2, 0, 60}, str("id")), 0x84},
		{"level 6", 0, packet(0x10, str("MQTT"), []byte{6, 2, 0, 60}, str("id")), 0x84},
		{"bridge level", 0, packet(0x10, str("MQTT"), []byte{0x84, 2, 0, 60}, str("id")), 0x84},
		{"protocol name", 0, packet(0x10, str("mqtt"), []byte{4, 2, 0, 60}, str("id")), 0x81},
		{"reserved connect flag", 0, packet(0x10, str("MQTT"), []byte{4, 3, 0, 60}, str("id")), 0x81},
		{"will qos 3", 0, packet(0x10, str("MQTT"), []byte{4, 0x1e, 0, 60}, str("id"), str("w"), str("p")), 0x81},
		{"will qos without will", 0, packet(0x10, str("MQTT"), []byte{4, 0x0a, 0, 60}, str("id")), 0x81},
		{"will retain without will", 0, packet(0x10, str("MQTT"), []byte{4, 0x22, 0, 60}, str("id")), 0x81},
		{"will topic wildcard", 0, packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str("id"), str("w/#"), str("p")), 0x90},
		{"will topic empty", 0, packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str("id"), str(""), str("p")), 0x90},
		{"connect flags of header", 0, append([]byte{0x11}, hello3[1:]...), 0x81},
		{"connect with surplus byte", 0, packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, str("id"), none), 0x81},
		{"connect cut short", 0, packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, []byte{0, 5, 'a'}), 0x81},
		{"client id surrogate", 0, packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, str("\xed\xa0\x80")), 0x81},
		{"client id NUL", 0, packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, str("a\x00")), 0x81},
		{"client id escape", 0, packet(0x10, str("MQTT"), []byte{4, 2, 0, 60}, str("a\x1b[2J")), 0x81},
		{"user name line feed", 0, packet(0x10, str("MQTT"), []byte{4, 0x82, 0, 60}, str("id"), str("a\nb")), 0x81},
		{"user name overlong UTF-8", 0, packet(0x10, str("MQTT"), []byte{4, 0x82, 0, 60}, str("id"), str("\xc0\xaf")), 0x81},
		{"receive maximum 0", 0, packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, props([]byte{0x21, 0, 0}), str("id")), 0x82},
		{"maximum packet size 0", 0, packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, props([]byte{0x27, 0, 0, 0, 0}), str("id")), 0x82},
		{"request problem info 2", 0, packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, props([]byte{0x17, 2}), str("id")), 0x82},
		{"auth data without method", 0, packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, props([]byte{0x16}, str("d")), str("id")), 0x82},
		{"property of servers", 0, packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, props([]byte{0x12}, str("d")), str("id")), 0x82},
		{"will delay outside the will", 0, packet(0x10, str("MQTT"), []byte{5, 2, 0, 60}, props([]byte{0x18, 0, 0, 0, 1}), str("id")), 0x82},
		{"ping before connect", 0, ping, 0x82},
		{"publish before connect", 0, packet(0x30, str("a")), 0x82},

		{"second connect", 4, hello3, 0x82},
		{"ping", 4, ping, 0},
		{"ping with body", 4, []byte{0xc0, 1, 0}, 0x81},
		{"ping flags", 4, []byte{0xc1, 0}, 0x81},
		{"length not shortest", 4, []byte{0xc0, 0x80, 0}, 0x81},
		{"length of five bytes", 4, []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, 0x81},
		{"length of 256 MB", 4, []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 0x95},
		{"packet of the largest size", 4, packet(0x30, str("a"), make([]byte, 4096-3-3)), 0},
		{"packet too large", 4, packet(0x30, str("a"), make([]byte, 4096-3-2)), 0x95},
		{"packet type 0", 4, []byte{0, 0}, 0x82},
		{"packet type of servers", 4, []byte{0x20, 2, 0, 0}, 0x82},
		{"suback from a client", 4, packet(0x90, id, []byte{0}), 0x82},
		{"auth in 3.1.1", 4, []byte{0xf0, 0}, 0x82},
		{"auth", 5, []byte{0xf0, 2, 0x18, 0}, 0x82},

		{"publish", 4, packet(0x30, str("a/b"), []byte("\xff\x00 anything")), 0},
		{"publish without payload", 4, packet(0x31, str("a")), 0},
		{"publish qos 1", 4, packet(0x3a, str("a"), id), 0},
		{"publish qos 2", 4, packet(0x3c, str("a"), id), 0},
		{"publish qos 3", 4, packet(0x36, str("a"), id), 0x81},
		{"publish dup at qos 0", 4, packet(0x38, str("a")), 0x81},
		{"publish id 0", 4, packet(0x32, str("a"), []byte{0, 0}), 0x82},
		{"publish without id", 4, packet(0x32, str("a")), 0x81},
		{"publish empty topic", 4, packet(0x30, str("")), 0x90},
		{"publish plus", 4, packet(0x30, str("a/+")), 0x90},
		{"publish hash", 4, packet(0x30, str("#")), 0x90},
		{"publish NUL", 4, packet(0x30, str("a\x00b")), 0x90},
		{"publish line feed", 4, packet(0x30, str("a\nb")), 0x90},
		{"publish DEL", 4, packet(0x30, str("a\x7f")), 0x90},
		{"publish C1", 4, packet(0x30, str("a\u009b2J")), 0x81},
		{"publish surrogate", 4, packet(0x30, str("\xed\xa0\x80")), 0x81},
		{"publish overlong", 4, packet(0x30, str("\xc0\x80")), 0x81},
		{"publish UTF-8", 4, packet(0x30, str("küche/größe")), 0},
		{"publish long topic", 4, packet(0x30, str(longName)), 0x90},
		{"publish deep topic", 4, packet(0x30, str("////////")), 0x90},
		{"publish deepest topic", 4, packet(0x30, str("///////")), 0},
		{"publish topic beyond the packet", 4, []byte{0x30, 3, 0, 5, 'a'}, 0x81},
		{"publish 5", 5, packet(0x32, str("a"), id, none, []byte("x")), 0},
		{"publish 5 without properties", 5, packet(0x30, str("a")), 0x81},
		{"publish 5 with all", 5, packet(0x30, str("a"), props([]byte{1, 0, 2, 0, 0, 0, 1, 3}, str("t"), []byte{8}, str("r"), []byte{9}, str("c"), user)), 0},
		{"publish 5 alias", 5, packet(0x30, str("a"), props([]byte{0x23, 0, 1})), 0},
		{"publish 5 alias without topic", 5, packet(0x30, str(""), props([]byte{0x23, 0, 2})), 0},
		{"publish 5 alias 0", 5, packet(0x30, str("a"), props([]byte{0x23, 0, 0})), 0x94},
		{"publish 5 alias too high", 5, packet(0x30, str("a"), props([]byte{0x23, 0, 3})), 0x94},
		{"publish 5 alias cut", 5, packet(0x30, str("a"), []byte{2, 0x23, 0}), 0x81},
		{"publish 5 alias twice", 5, packet(0x30, str("a"), props([]byte{0x23, 0, 1, 0x23, 0, 1})), 0x82},
		{"publish 5 without topic", 5, packet(0x30, str(""), props([]byte{1, 0})), 0x90},
		{"will with alias", 0, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60, 0}, str("id"), props([]byte{0x23, 0, 1}), str(""), str("")), 0x82},
		{"publish 5 subscription id", 5, packet(0x30, str("a"), props([]byte{0x0b, 1})), 0x82},
		{"publish 5 property twice", 5, packet(0x30, str("a"), props([]byte{1, 0, 1, 0})), 0x82},
		{"publish 5 payload format 2", 5, packet(0x30, str("a"), props([]byte{1, 2})), 0x82},
		{"publish 5 response wildcard", 5, packet(0x30, str("a"), props([]byte{8}, str("r/+"))), 0x90},
		{"publish 5 user properties", 5, packet(0x30, str("a"), props(user, user, user)), 0},
		{"publish 5 too many user properties", 5, packet(0x30, str("a"), props(user, user, user, user)), 0x97},
		{"publish 5 user property NUL", 5, packet(0x30, str("a"), props([]byte{0x26}, str("k"), str("\x00"))), 0x82},
		{"publish 5 unknown property", 5, packet(0x30, str("a"), props([]byte{0xff, 0})), 0x82},
		{"publish 5 property 0", 5, packet(0x30, str("a"), props([]byte{0})), 0x82},
		{"publish 5 property cut", 5, packet(0x30, str("a"), props([]byte{2, 0, 0})), 0x81},
		{"publish 5 property runs into the payload", 5, packet(0x30, str("a"), []byte{2, 3, 0}, []byte("\x05hello")), 0x81},
		{"publish 5 properties beyond the packet", 5, packet(0x30, str("a"), []byte{9, 1, 0}), 0x81},
		{"publish 5 property length not shortest", 5, packet(0x30, str("a"), []byte{0x80, 0}), 0x81},
		{"publish 5 property length of five bytes", 5, packet(0x30, str("a"), []byte{0x80, 0x80, 0x80, 0x80, 1}), 0x81},

		{"puback", 4, packet(0x40, id), 0},
		{"puback id 0", 4, packet(0x40, []byte{0, 0}), 0x82},
		{"puback short", 4, packet(0x40, []byte{0}), 0x81},
		{"puback empty", 4, packet(0x40), 0x81},
		{"puback long", 4, packet(0x40, id, []byte{0}), 0x81},
		{"puback flags", 4, packet(0x42, id), 0x81},
		{"pubrel", 4, packet(0x62, id), 0},
		{"pubrel flags", 4, packet(0x60, id), 0x81},
		{"pubrec", 5, packet(0x50, id), 0},
		{"puback 5 reason", 5, packet(0x40, id, []byte{0x10}), 0},
		{"puback 5 unknown reason", 5, packet(0x40, id, []byte{0x11}), 0x82},
		{"pubcomp 5 unknown reason", 5, packet(0x70, id, []byte{0x10}), 0x82},
		{"pubcomp 5 properties", 5, packet(0x70, id, []byte{0x92}, props([]byte{0x1f}, str("why"), user)), 0},
		{"pubrel 5 property of another packet", 5, packet(0x62, id, []byte{0}, props([]byte{0x11, 0, 0, 0, 1})), 0x82},
		{"puback 5 surplus", 5, packet(0x40, id, []byte{0, 0, 0}), 0x81},

		{"subscribe", 4, packet(0x82, id, str("a/+/b/#"), []byte{2}, str("+"), []byte{0}), 0},
		{"subscribe id 0", 4, packet(0x82, []byte{0, 0}, str("a"), []byte{0}), 0x82},
		{"subscribe flags", 4, packet(0x80, id, str("a"), []byte{0}), 0x81},
		{"subscribe nothing", 4, packet(0x82, id), 0x82},
		{"subscribe without options", 4, packet(0x82, id, str("a")), 0x81},
		{"subscribe 5 without options", 5, packet(0x82, id, none, str("a")), 0x81},
		{"subscribe 5 second without options", 5, packet(0x82, id, none, str("a"), []byte{0}, str("b")), 0x81},
		{"subscribe qos 3", 4, packet(0x82, id, str("a"), []byte{3}), 0x81},
		{"subscribe reserved bits", 4, packet(0x82, id, str("a"), []byte{4}), 0x81},
		{"subscribe 5 options", 5, packet(0x82, id, props([]byte{0x0b, 0x80, 1}, user), str("a"), []byte{0x2e}), 0},
		{"subscribe 5 reserved bit", 5, packet(0x82, id, none, str("a"), []byte{0x40}), 0x81},
		{"subscribe 5 retain handling 3", 5, packet(0x82, id, none, str("a"), []byte{0x30}), 0x81},
		{"subscribe 5 identifier 0", 5, packet(0x82, id, props([]byte{0x0b, 0}), str("a"), []byte{0}), 0x82},
		{"subscribe 5 identifier twice", 5, packet(0x82, id, props([]byte{0x0b, 1, 0x0b, 2}), str("a"), []byte{0}), 0x82},
		{"subscribe 5 shared", 5, packet(0x82, id, none, str("$share/g/a/#"), []byte{0}), 0},
		{"subscribe 5 shared no-local", 5, packet(0x82, id, none, str("$share/g/a"), []byte{4}), 0x82},
		{"subscribe shared without filter", 4, packet(0x82, id, str("$share/g"), []byte{0}), 0x8f},
		{"subscribe shared empty filter", 4, packet(0x82, id, str("$share/g/"), []byte{0}), 0x8f},
		{"subscribe shared without group", 4, packet(0x82, id, str("$share//a"), []byte{0}), 0x8f},
		{"subscribe shared alone", 4, packet(0x82, id, str("$share"), []byte{0}), 0x8f},
		{"subscribe shared group wildcard", 4, packet(0x82, id, str("$share/+/a"), []byte{0}), 0x8f},
		{"subscribe shared in capitals", 4, packet(0x82, id, str("$SHARE/g/a"), []byte{0}), 0x8f},
		{"subscribe empty", 4, packet(0x82, id, str(""), []byte{0}), 0x8f},
		{"subscribe plus in a level", 4, packet(0x82, id, str("a+/b"), []byte{0}), 0x8f},
		{"subscribe plus before text", 4, packet(0x82, id, str("+a"), []byte{0}), 0x8f},
		{"subscribe hash in a level", 4, packet(0x82, id, str("a#"), []byte{0}), 0x8f},
		{"subscribe hash not last", 4, packet(0x82, id, str("#/a"), []byte{0}), 0x8f},
		{"subscribe NUL", 4, packet(0x82, id, str("a\x00"), []byte{0}), 0x81},
		{"subscribe line feed", 4, packet(0x82, id, str("a\nb"), []byte{0}), 0x81},
		{"subscribe surrogate", 4, packet(0x82, id, str("\xed\xbf\xbf"), []byte{0}), 0x81},
		{"subscribe long", 4, packet(0x82, id, str(longName), []byte{0}), 0x8f},
		{"subscribe deep", 4, packet(0x82, id, str("////////"), []byte{0}), 0x8f},
		{"subscribe to four", 4, packet(0x82, id, bytes.Repeat(append(str("a"), 0), 4)), 0},
		{"subscribe to five", 4, packet(0x82, id, bytes.Repeat(append(str("a"), 0), 5)), 0x97},

		{"unsubscribe", 4, packet(0xa2, id, str("a/#"), str("b")), 0},
		{"unsubscribe 5", 5, packet(0xa2, id, props(user), str("a")), 0},
		{"unsubscribe nothing", 4, packet(0xa2, id), 0x82},
		{"unsubscribe 5 nothing", 5, packet(0xa2, id, none), 0x82},
		{"unsubscribe id 0", 4, packet(0xa2, []byte{0, 0}, str("a")), 0x82},
		{"unsubscribe malformed filter", 4, packet(0xa2, id, str("a#")), 0x8f},
		{"unsubscribe cut", 4, packet(0xa2, id, []byte{0}), 0x81},
		{"unsubscribe flags", 4, packet(0xa0, id, str("a")), 0x81},
		{"unsubscribe five", 4, packet(0xa2, id, bytes.Repeat(str("a"), 5)), 0x97},

		{"disconnect", 4, []byte{0xe0, 0}, 0},
		{"disconnect with body", 4, []byte{0xe0, 1, 0}, 0x81},
		{"disconnect 5", 5, []byte{0xe0, 0}, 0},
		{"disconnect 5 with will", 5, []byte{0xe0, 1, 4}, 0},
		{"disconnect 5 properties", 5, packet(0xe0, []byte{0}, props([]byte{0x11, 0, 0, 0, 1, 0x1f}, str("bye"), user)), 0},
		{"disconnect 5 reason of servers", 5, []byte{0xe0, 1, 0x8e}, 0x82},
		{"disconnect 5 server reference", 5, packet(0xe0, []byte{0}, props([]byte{0x1c}, str("there"))), 0x82},
		{"packet after disconnect", 4, []byte{0xe0, 0, 0xc0, 0}, 0x82},
	}
}

// stream puts the CONNECT that a vector needs before it.
func stream(version byte, rest []byte) []byte {
	switch version {
	case 4:
		return slices.Concat(hello3, rest)
	case 5:
		return slices.Concat(hello5, rest)
	}
	return rest
}

func code(err error) byte {
	if bad, ok := errors.AsType[*frame.Error](err); ok {
		return bad.Code
	}
	return 0
}

// readAll puts the packets of a Reader together again. Like io.ReadAll it takes the end for no error.
func readAll(r *frame.Reader) (all []byte, err error) {
	for {
		p, err := r.Next()
		switch {
		case err == io.EOF: //nolint:errorlint // io.Reader's promise
			return all, nil
		case err != nil:
			return all, err
		case !bytes.HasSuffix(p.Whole, p.Body):
			return all, fmt.Errorf("the body % x is not that of % x", p.Body, p.Whole)
		}
		all = append(all, p.Whole...)
	}
}

func TestVectors(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			in := stream(v.version, v.stream)
			for name, src := range map[string]io.Reader{
				"whole": bytes.NewReader(in), "bytewise": iotest.OneByteReader(bytes.NewReader(in)),
			} {
				out, err := readAll(frame.NewReader(src, limits()))
				if got := code(err); got != v.code || got == 0 && err != nil {
					t.Errorf("%s: %v, want code %#x", name, err, v.code)
				}
				if v.code == 0 && !bytes.Equal(out, in) {
					t.Errorf("%s: %d of %d bytes passed", name, len(out), len(in))
				}
				if !bytes.HasPrefix(in, out) {
					t.Errorf("%s: passed bytes that were not sent", name)
				}
			}
		})
	}
}

// A packet cut anywhere is never handed out, not even in part.
func TestTruncated(t *testing.T) {
	for _, v := range vectors() {
		if v.code != 0 {
			continue
		}
		in := stream(v.version, v.stream)
		whole := len(in) - len(v.stream)
		if v.version == 0 {
			whole = 0
		}
		for n := whole + 1; n < len(in); n++ {
			out, err := readAll(frame.NewReader(bytes.NewReader(in[:n]), limits()))
			if len(out) != whole || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s cut at %d: %d bytes passed, %v", v.name, n, len(out), err)
			}
		}
	}
}

func TestGoodPacketsBeforeABadOne(t *testing.T) {
	in := slices.Concat(hello3, ping, ping, []byte{0xc1, 0}, ping)
	r := frame.NewReader(bytes.NewReader(in), limits())
	out, err := readAll(r)
	if want := len(hello3) + 4; len(out) != want || code(err) != 0x81 {
		t.Errorf("%d bytes and %v, want %d and 0x81", len(out), err, want)
	}
	if _, again := r.Next(); again != err { //nolint:errorlint // the very same error is meant
		t.Errorf("second error %v, want %v", again, err)
	}
}

func TestFirstByteIsEnough(t *testing.T) {
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	go func() { _, _ = w.Write([]byte{0x31}) }() // a PUBLISH, and then silence
	if _, err := frame.NewReader(r, limits()).Next(); code(err) != frame.CodeProtocolError {
		t.Errorf("%v, want a protocol error", err)
	}
}

func TestReaderTells(t *testing.T) {
	r := frame.NewReader(bytes.NewReader(slices.Concat(hello5, []byte{0xe0, 1, 4})), limits())
	if v := r.Version(); v != 0 {
		t.Errorf("version %d before CONNECT", v)
	}
	if _, err := readAll(r); err != nil {
		t.Fatal(err)
	}
	if v, reason := r.Version(), r.DisconnectReason(); v != frame.Version5 || reason != 4 {
		t.Errorf("version %d, reason %d; want 5 and 4", v, reason)
	}
}

// A header that announces much must not make the reader hold much.
func TestMemoryFollowsBytesThatArrived(t *testing.T) {
	l := limits()
	l.PacketBytes = 200 << 20
	head := slices.Concat(hello3, []byte{0x30, 0xff, 0xff, 0xff, 0x3f, 0, 1, 'a'})
	allocated := testing.Benchmark(func(b *testing.B) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			_, _ = readAll(frame.NewReader(bytes.NewReader(head), l))
		}
	}).AllocedBytesPerOp()
	if allocated > 16<<10 {
		t.Errorf("%d bytes allocated for %d received", allocated, len(head))
	}
}

func TestLargePacketsOneAfterAnother(t *testing.T) {
	l := limits()
	l.PacketBytes = 128 << 10
	in := slices.Clone(hello3)
	for n := range 20 {
		in = append(in, packet(0x30, str("a"), make([]byte, n*6000))...)
	}
	for _, src := range []io.Reader{bytes.NewReader(in), iotest.HalfReader(bytes.NewReader(in))} {
		out, err := readAll(frame.NewReader(src, l))
		if err != nil || !bytes.Equal(out, in) {
			t.Errorf("%d of %d bytes passed, %v", len(out), len(in), err)
		}
	}
}

func TestErrorHasNoPayload(t *testing.T) {
	_, err := readAll(frame.NewReader(bytes.NewReader(slices.Concat(hello3, packet(0x30, str("secret/#"), []byte("secret")))), limits()))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkReader(b *testing.B) {
	for _, bench := range []struct {
		name   string
		packet []byte
		hello  []byte
	}{
		{"publish 64 B", packet(0x32, str("telemetry/sensor-1/load"), id, make([]byte, 64)), hello3},
		{"publish 64 B v5", packet(0x32, str("telemetry/sensor-1/load"), id, props(user), make([]byte, 64)), hello5},
		{"publish 1 KiB", packet(0x32, str("telemetry/sensor-1/load"), id, make([]byte, 1024)), hello3},
		{"puback", packet(0x40, id), hello3},
	} {
		b.Run(bench.name, func(b *testing.B) {
			src := &endless{hello: bench.hello, packet: bytes.Repeat(bench.packet, 16)}
			r := frame.NewReader(src, limits())
			if _, err := r.Next(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(bench.packet)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// endless sends a packet for ever.
type endless struct {
	hello, packet []byte
	at            int
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.hello) > 0 {
		n := copy(p, e.hello)
		e.hello = e.hello[n:]
		return n, nil
	}
	n := copy(p, e.packet[e.at:])
	e.at = (e.at + n) % len(e.packet)
	return n, nil
}
