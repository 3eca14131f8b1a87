package main

import (
	"fmt"
	"strconv"
	"strings"

	"pinseal/internal/mosquitto"
)

// text is the configuration as TOML.
func (i *imported) text() string {
	w := &tomlText{}
	w.comment("Made by pinseal import of %s. docs/configuration.md explains every key.", i.from)
	w.value("node", i.node)
	w.table("gpio")
	w.value("chip", i.chip)
	for _, l := range i.Listeners {
		w.listener(l)
	}
	if t := i.TLS; t.Certificate != "" { // behind the first listener: from there on it goes into one file with what init wrote
		w.table("tls")
		w.given("ca", t.CA)
		w.value("certificate", t.Certificate)
		w.value("key", t.Key)
		w.given("crl", t.CRL)
	}
	i.writeRules(w)
	if !i.Persistent {
		w.table("persistence")
		w.comment("As with persistence false. \"sync\" keeps what was acknowledged over a restart.")
		w.value("durability", "none")
	}
	i.writeLimits(w)
	if i.LogLevel != "" {
		w.table("log")
		w.value("level", i.LogLevel)
	}
	return w.String()
}

func (i *imported) writeRules(w *tomlText) {
	acl := i.ACLFile
	if i.openACL() != "" {
		acl = i.openACLFile()
	}
	if acl != "" || i.PasswordFile != "" {
		w.table("auth")
		w.given("password_file", i.PasswordFile)
		w.given("acl_file", acl)
	}
	if i.Open && !i.anonymous() {
		w.table("[acl]")
		w.comment("mosquitto had no acl_file: everybody may do everything.")
		w.value("identity", "*")
		w.line(`publish = ["#"]`)
		w.line(`subscribe = ["#", "$SYS/#"]`)
	}
}

func (i *imported) writeLimits(w *tomlText) {
	w.table("limits")
	w.comment("mosquitto has no bound of its own where none is set; these have their defaults, see docs/configuration.md.")
	w.number("max_packet_bytes", i.Limits.MaxPacketBytes)
	w.number("max_inflight", i.Limits.MaxInflight)
	w.number("max_inflight_bytes", i.Limits.MaxInflightBytes)
	if i.Limits.MaxKeepAlive > 0 {
		w.value("max_keepalive", i.Limits.MaxKeepAlive.String())
	}
	if i.MaxSessionExpiry > 0 {
		w.value("max_session_expiry", i.MaxSessionExpiry.String())
	} else {
		w.comment("mosquitto keeps the sessions of absent clients for ever.")
		w.value("max_session_expiry", "8760h")
	}
}

// tomlText is TOML as a person would write it.
type tomlText struct{ strings.Builder }

func (w *tomlText) line(text string) { _, _ = w.WriteString(text + "\n") } // never fails

func (w *tomlText) comment(format string, args ...any) {
	w.line("# " + printable(fmt.Sprintf(format, args...)))
}

func (w *tomlText) table(name string) { w.line("\n[" + name + "]") }

func (w *tomlText) value(key, text string) { w.line(key + " = " + tomlString(text)) }

func (w *tomlText) given(key, text string) {
	if text != "" {
		w.value(key, text)
	}
}

func (w *tomlText) number(key string, n int) {
	if n > 0 {
		w.line(key + " = " + strconv.Itoa(n))
	}
}

func (w *tomlText) flag(key string, is bool) { w.line(key + " = " + strconv.FormatBool(is)) }

func (w *tomlText) listener(l mosquitto.Listener) {
	w.table("[listener]")
	if l.At != "" {
		w.comment("%s", l.At)
	}
	w.value("address", l.Address)
	switch {
	case l.TLS:
		w.value("min_tls", l.MinTLS)
		w.flag("require_certificate", l.RequireCertificate)
		w.flag("use_identity_as_username", l.CertificateIsName)
	case !listenAddress(l.Address).unix():
		w.flag("tls", false)
	}
	if l.Plain {
		w.flag("allow_plain", true)
	}
	if l.WebSocket {
		w.flag("websocket", true)
	}
	if l.AllowAnonymous {
		w.flag("allow_anonymous", true)
	}
	w.number("max_connections", l.MaxConnections)
}

// tomlString is a basic string of TOML, whose escapes are not all of Go's.
func tomlString(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			out.WriteString(`\` + string(r))
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&out, `\u%04X`, r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String() + `"`
}
