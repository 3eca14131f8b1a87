package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// unprintable tells what could make text look like something else: control characters, which could begin another line
// or move the cursor, what turns the direction of writing, and bytes that are no text.
func unprintable(r rune) bool {
	return unicode.IsControl(r) && r != '\t' || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || r == utf8.RuneError
}

// printable keeps a message on its line.
func printable(text string) string {
	if strings.ContainsFunc(text, unprintable) {
		return strconv.Quote(text)
	}
	return text
}

// printableTopic keeps a topic apart from what follows it on its line, too: anybody can name one "a [operator] on".
func printableTopic(topic string) string {
	if strings.ContainsFunc(topic, unicode.IsSpace) {
		return strconv.Quote(topic)
	}
	return printable(topic)
}

// oneLine escapes what could end a line early, and leaves the rest as it is.
func oneLine(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var line strings.Builder
	for _, r := range text {
		if unprintable(r) {
			line.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			line.WriteRune(r)
		}
	}
	return line.String()
}
