package signing

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxTopicBytes bounds an MQTT topic name in this format; MQTT itself allows
// 65,535.
const maxTopicBytes = 256

// ValidTopic reports whether topic is a topic name of the format: 1 to 256
// bytes of UTF-8 without wildcards (MQTT 3.1.1 section 4.7.1.1) and without
// control characters (section 1.5.3 forbids U+0000 and advises against the
// others; in a terminal or a log they do harm).
func ValidTopic(topic string) bool {
	return topic != "" && len(topic) <= maxTopicBytes && utf8.ValidString(topic) &&
		!strings.ContainsAny(topic, "+#") && !strings.ContainsFunc(topic, unicode.IsControl)
}
