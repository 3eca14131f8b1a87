package frame

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// text reports whether b may stand in a string: valid UTF-8, so neither surrogates nor overlong forms, and no NUL
// (MQTT 5.0 section 1.5.4).
func text(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// printable reports whether b may be what something is called: a text without the control characters that a receiver may
// refuse (MQTT 5.0 section 1.5.4), as mosquitto does. Names end up on terminals and in logs.
func printable(b []byte) bool { return utf8.Valid(b) && !bytes.ContainsFunc(b, unicode.IsControl) }

// topicName checks a topic name (section 4.7).
func (l *Limits) topicName(b []byte) error {
	if len(b) == 0 || len(b) > l.TopicBytes {
		return &Error{CodeTopicInvalid, "topic name empty or too long"}
	}
	levels, ascii := 1, true
	for _, c := range b {
		switch {
		case c == '/':
			levels++
		case c == '+' || c == '#' || c < ' ' || c == 0x7f:
			return &Error{CodeTopicInvalid, "wildcard or control character in a topic name"}
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if levels > l.TopicLevels {
		return &Error{CodeTopicInvalid, "topic name with too many levels"}
	}
	if !ascii && !printable(b) {
		return malformed("topic name is not UTF-8, or holds control characters")
	}
	return nil
}

// sharePrefix begins the filters of shared subscriptions (section 4.8.2).
const sharePrefix = "$share"

// topicFilter checks a topic filter; shared reports whether it is that of a shared subscription.
func (l *Limits) topicFilter(b []byte) (shared bool, err error) {
	if len(b) == 0 || len(b) > l.TopicBytes {
		return false, &Error{CodeFilterInvalid, "topic filter empty or too long"}
	}
	if !printable(b) {
		return false, malformed("topic filter is not UTF-8, or holds control characters")
	}
	if bytes.Count(b, []byte{'/'}) >= l.TopicLevels {
		return false, &Error{CodeFilterInvalid, "topic filter with too many levels"}
	}
	filter, shared, err := unshare(b)
	if err != nil {
		return false, err
	}
	return shared, wildcards(filter)
}

// unshare takes "$share/group/" away. Decoders that ignore case must not see another prefix than we do, so any other
// spelling of it is refused.
func unshare(b []byte) (filter []byte, shared bool, err error) {
	prefix, rest, _ := bytes.Cut(b, []byte{'/'})
	if !strings.EqualFold(string(prefix), sharePrefix) {
		return b, false, nil
	}
	group, filter, _ := bytes.Cut(rest, []byte{'/'})
	if string(prefix) != sharePrefix || len(group) == 0 || len(filter) == 0 || bytes.ContainsAny(group, "+#") {
		return nil, false, &Error{CodeFilterInvalid, "shared subscription without group or filter"}
	}
	return filter, true, nil
}

// wildcards checks that + and # fill a level each and that # comes last (section 4.7.1).
func wildcards(filter []byte) error {
	last := len(filter) - 1
	for i, c := range filter {
		if c != '+' && c != '#' {
			continue
		}
		if i > 0 && filter[i-1] != '/' || i < last && (c == '#' || filter[i+1] != '/') {
			return &Error{CodeFilterInvalid, "wildcard out of place in a topic filter"}
		}
	}
	return nil
}
