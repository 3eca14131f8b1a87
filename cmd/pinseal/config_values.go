package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"pinseal/pki"
	"pinseal/signing"
)

// The types of this file are the values of the configuration: each refuses what it cannot mean,
// and the decoder adds the line and the column.
type (
	name           string        // [A-Za-z0-9_-]{1,64}
	nameOrAll      string        // a name or "*"
	topicName      string        // an MQTT topic without wildcards
	topicFilter    string        // an MQTT filter; %u stands for the identity
	action         string        // on, off, toggle
	clockTrust     string        // auto, always, never
	tlsVersion     uint16        // tls.VersionTLS12 or tls.VersionTLS13
	onOff          bool          // "on" or "off"
	commandMaxAge  time.Duration // above 0, at most a minute
	positiveLength time.Duration // above 0
	listenAddress  string        // HOST:PORT
	brokerURL      string        // mqtts://HOST[:PORT]
	legacyHash     string        // sha1, sha256
	logLevel       slog.Level
	logFormat      string // text, json
)

func (n *name) UnmarshalText(text []byte) error {
	if !pki.ValidName(string(text)) {
		return fmt.Errorf("%q is not a name: letters, digits, _ and -, at most 64", text)
	}
	*n = name(text)
	return nil
}

func (n *nameOrAll) UnmarshalText(text []byte) error {
	if string(text) != "*" && !pki.ValidName(string(text)) {
		return fmt.Errorf(`%q is neither a name nor "*"`, text)
	}
	*n = nameOrAll(text)
	return nil
}

func (t *topicName) UnmarshalText(text []byte) error {
	if !signing.ValidTopic(string(text)) {
		return fmt.Errorf("%q is not a topic: 1 to 256 bytes without + and #", text)
	}
	*t = topicName(text)
	return nil
}

func (f *topicFilter) UnmarshalText(text []byte) error {
	if err := checkFilter(string(text)); err != nil {
		return fmt.Errorf("%q is not a topic filter: %w", text, err)
	}
	*f = topicFilter(text)
	return nil
}

// checkFilter holds MQTT 5.0 section 4.7.1: + fills a level, # fills the last one.
func checkFilter(filter string) error {
	if filter == "" || strings.ContainsRune(filter, 0) {
		return errors.New("it is empty or holds a NUL")
	}
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		switch {
		case level == "#" && i == len(levels)-1, level == "+":
		case strings.ContainsAny(level, "+#"):
			return errors.New("+ and # stand alone in a level, # only in the last")
		}
	}
	return nil
}

func (a *action) UnmarshalText(text []byte) error {
	return oneOf((*string)(a), text, "on", "off", "toggle")
}

func (t *clockTrust) UnmarshalText(text []byte) error {
	return oneOf((*string)(t), text, "auto", "always", "never")
}

func (h *legacyHash) UnmarshalText(text []byte) error {
	return oneOf((*string)(h), text, "sha1", "sha256")
}

func (f *logFormat) UnmarshalText(text []byte) error {
	return oneOf((*string)(f), text, "text", "json")
}

func (o *onOff) UnmarshalText(text []byte) error {
	var word string
	if err := oneOf(&word, text, "on", "off"); err != nil {
		return err
	}
	*o = word == "on"
	return nil
}

func oneOf(to *string, text []byte, words ...string) error {
	for _, w := range words {
		if string(text) == w {
			*to = w
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(words, ", "))
}

func (v *tlsVersion) UnmarshalText(text []byte) error {
	var word string
	if err := oneOf(&word, text, "1.2", "1.3"); err != nil {
		return err
	}
	*v = tls.VersionTLS13
	if word == "1.2" {
		*v = tls.VersionTLS12
	}
	return nil
}

func (d *positiveLength) UnmarshalText(text []byte) error {
	length, err := time.ParseDuration(string(text))
	if err != nil || length <= 0 {
		return fmt.Errorf(`%q is not a length of time, such as "30s" or "5m"`, text)
	}
	*d = positiveLength(length)
	return nil
}

func (d *commandMaxAge) UnmarshalText(text []byte) error {
	var length positiveLength
	if err := length.UnmarshalText(text); err != nil {
		return err
	}
	if time.Duration(length) > maxMaxAge {
		return fmt.Errorf("%s is more than the %s a command may be old", text, maxMaxAge)
	}
	*d = commandMaxAge(length)
	return nil
}

func (a *listenAddress) UnmarshalText(text []byte) error {
	_, port, err := net.SplitHostPort(string(text))
	if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || n == 0 && port != "0" {
		return fmt.Errorf(`%q is not an address such as ":8883"`, text)
	}
	*a = listenAddress(text)
	return nil
}

func (u *brokerURL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	if err != nil || parsed.Scheme != "mqtts" || parsed.Hostname() == "" || parsed.Path != "" || parsed.User != nil {
		return fmt.Errorf(`%q is not a broker such as "mqtts://broker.local:8883"`, text)
	}
	*u = brokerURL(text)
	return nil
}

// host gives the broker's host and its address with a port.
func (u brokerURL) host() (host, address string) {
	parsed, err := url.Parse(string(u))
	if err != nil { // was checked when it was read
		return "", ""
	}
	port := parsed.Port()
	if port == "" {
		port = "8883"
	}
	return parsed.Hostname(), net.JoinHostPort(parsed.Hostname(), port)
}

func (l *logLevel) UnmarshalText(text []byte) error {
	var level slog.Level
	if err := level.UnmarshalText(text); err != nil {
		return fmt.Errorf("%q is none of debug, info, warn, error", text)
	}
	*l = logLevel(level)
	return nil
}
