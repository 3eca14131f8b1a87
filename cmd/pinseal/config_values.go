package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pinseal/agent/actuator"
	"pinseal/pki"
	"pinseal/signing"
)

// The types of this file are the values of the configuration: each refuses what it cannot mean, and
// who reads the file adds the line and the column.
type (
	name           string        // [A-Za-z0-9_-]{1,64}
	nameOrAll      string        // a name or "*"
	topicName      string        // an MQTT topic without wildcards
	topicFilter    string        // an MQTT filter; %u stands for the identity
	action         string        // what a signer may do with an output
	clockTrust     string        // auto, always, never
	tlsVersion     uint16        // tls.VersionTLS12 or tls.VersionTLS13
	onOff          bool          // "on" or "off"
	commandMaxAge  time.Duration // above 0, at most a minute
	positiveLength time.Duration // above 0
	limit          int           // not negative; 0 is the default
	perSecond      float64       // not negative; 0 is the default
	listenAddress  string        // HOST:PORT, or the path of a Unix socket
	brokerURL      string        // mqtts://HOST[:PORT]
	legacyHash     string        // sha1, sha256
	logLevel       slog.Level
	qosLevel       int64
	logFormat      string // text, json
)

// checker is a word of the configuration that knows which texts it can be. (The decoder does not ask
// types that are strings themselves whether they like a text.)
type checker interface{ check() error }

func (n name) check() error {
	if !pki.ValidName(string(n)) {
		return fmt.Errorf("%q is not a name: letters, digits, _ and -, at most 64", n)
	}
	return nil
}

func (n nameOrAll) check() error {
	if n != "*" && !pki.ValidName(string(n)) {
		return fmt.Errorf(`%q is neither a name nor "*"`, n)
	}
	return nil
}

func (t topicName) check() error {
	if !signing.ValidTopic(string(t)) {
		return fmt.Errorf("%q is not a topic: 1 to 256 bytes without + and #", t)
	}
	return nil
}

func (f topicFilter) check() error {
	if err := checkFilter(string(f)); err != nil {
		return fmt.Errorf("%q is not a topic filter: %w", f, err)
	}
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

func (a action) check() error     { return oneOf(actuator.Action(a), actuator.Actions()...) }
func (t clockTrust) check() error { return oneOf(t, "auto", "always", "never") }
func (h legacyHash) check() error { return oneOf(h, "sha1", "sha256") }
func (f logFormat) check() error  { return oneOf(f, "text", "json") }

func oneOf[T ~string](text T, words ...T) error {
	if slices.Contains(words, text) {
		return nil
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(strs(words), ", "))
}

func (o *onOff) UnmarshalText(text []byte) error {
	*o = string(text) == "on"
	return oneOf(string(text), "on", "off")
}

func (v *tlsVersion) UnmarshalText(text []byte) error {
	*v = tls.VersionTLS13
	if string(text) == "1.2" {
		*v = tls.VersionTLS12
	}
	return oneOf(string(text), "1.2", "1.3")
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

func (a listenAddress) check() error {
	if a.unix() {
		return nil
	}
	_, port, err := net.SplitHostPort(string(a))
	if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || n == 0 && port != "0" {
		return fmt.Errorf(`%q is not an address such as ":8883"`, a)
	}
	return nil
}

func (a listenAddress) unix() bool { return strings.HasPrefix(string(a), "/") }

// local reports whether nobody but this machine can reach the address.
func (a listenAddress) local() bool {
	host, _, err := net.SplitHostPort(string(a))
	ip := net.ParseIP(host)
	return a.unix() || err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func (u brokerURL) check() error {
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Scheme != "mqtts" || parsed.Hostname() == "" || parsed.Path != "" || parsed.User != nil {
		return fmt.Errorf(`%q is not a broker such as "mqtts://broker.local:8883"`, u)
	}
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

func (l limit) check() error {
	if l < 0 {
		return errors.New("a limit cannot be negative")
	}
	return nil
}

func (q qosLevel) check() error {
	if q < 0 || q > 2 {
		return errors.New("a quality of service is 0, 1 or 2")
	}
	return nil
}

func (r perSecond) check() error {
	if r < 0 {
		return errors.New("a rate cannot be negative")
	}
	return nil
}
