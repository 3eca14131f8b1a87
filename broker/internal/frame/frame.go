// Package frame checks the MQTT packets (3.1.1 and 5.0) that clients send, before any decoder sees them.
//
// A Reader passes on only whole packets that the protocol allows a client to send at that point: CONNECT first and once,
// legal header flags, lengths in their shortest form and within limits, strings of valid UTF-8 without NUL, what names a
// topic, filter, client or user without control characters, topic names without wildcards, well-formed filters, packet
// identifiers other than zero, known properties in the packets they belong to, each at most once. What is legal but not
// offered is refused too: MQTT 3.1 and AUTH.
//
// It knows nothing of sessions: whether an acknowledgement is expected, or a topic alias known, is not judged here.
package frame

import "fmt"

// Versions are the protocol levels that are accepted (MQTT 5.0 section 3.1.2.2).
const (
	Version311 byte = 4
	Version5   byte = 5
)

// Packet types (MQTT 5.0 section 2.1.2).
const (
	Connect     byte = 1
	Publish     byte = 3
	Puback      byte = 4
	Pubrec      byte = 5
	Pubrel      byte = 6
	Pubcomp     byte = 7
	Subscribe   byte = 8
	Unsubscribe byte = 10
	Pingreq     byte = 12
	Disconnect  byte = 14
)

// Reason codes used in an Error (MQTT 5.0 section 2.4).
const (
	CodeMalformed          byte = 0x81
	CodeProtocolError      byte = 0x82
	CodeUnsupportedVersion byte = 0x84
	CodeFilterInvalid      byte = 0x8F
	CodeTopicInvalid       byte = 0x90
	CodeAliasInvalid       byte = 0x94
	CodeTooLarge           byte = 0x95
	CodeQuotaExceeded      byte = 0x97
)

// Limits bounds what is let through; all values but the last are at least 1.
type Limits struct {
	PacketBytes    int // whole packets, fixed header included
	TopicBytes     int // topic names and filters
	TopicLevels    int // levels of topic names and filters
	Filters        int // filters in one SUBSCRIBE or UNSUBSCRIBE
	UserProperties int // user properties in one packet, those of a will counted apart
	TopicAliases   int // the highest topic alias, 0 for none
}

// An Error says why a byte stream was refused. It never holds bytes of the stream.
type Error struct {
	Code byte   // MQTT 5.0 reason code
	Text string // for people
}

func (e *Error) Error() string {
	return fmt.Sprintf("mqtt packet refused: %s (0x%02x)", e.Text, e.Code)
}

// ErrNoRoom is the error where Reader.Hold has denied a packet its room.
var ErrNoRoom error = &Error{CodeQuotaExceeded, "no room for a packet of that size at the moment"}

func malformed(text string) error { return &Error{CodeMalformed, text} }

func protocolError(text string) error { return &Error{CodeProtocolError, text} }

const maxHeaderBytes = 5

// header reads a fixed header. size is that of the whole packet; it is 0 as long as the header is incomplete.
func header(b []byte) (size, body int, err error) {
	remaining := 0
	for i := 1; i < len(b) && i < maxHeaderBytes; i++ {
		remaining |= int(b[i]&0x7f) << (7 * (i - 1))
		switch {
		case b[i]&0x80 != 0:
		case b[i] == 0 && i > 1:
			return 0, 0, malformed("remaining length not in its shortest form")
		default:
			return 1 + i + remaining, 1 + i, nil
		}
	}
	if len(b) >= maxHeaderBytes {
		return 0, 0, malformed("remaining length of more than four bytes")
	}
	return 0, 0, nil
}
