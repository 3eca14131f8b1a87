package mosquitto

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// translation is a configuration half read.
type translation struct {
	lines     []Line
	config    Config
	global    section
	first     section // the listener that options before any listener line speak of
	listeners []*section
	current   *section // the listener that is being described
	bridge    bool
	perListener,
	plugin bool
}

// section is the options of a listener, or those for all of them.
type section struct {
	line    Line
	port    string
	host    string
	options map[string]Line
}

func (s *section) set(l Line) { s.options[l.Option] = l }

// value is empty where the option is not given.
func (s *section) value(option string) string { return s.options[option].Value }

func (s *section) is(option string) bool { return truth(s.value(option)) }

func truth(value string) bool { return strings.EqualFold(value, "true") || value == "1" }

// Translate says what the lines mean.
func Translate(lines []Line) *Config {
	t := &translation{lines: lines, global: section{options: map[string]Line{}}, first: section{options: map[string]Line{}}}
	t.current = &t.first
	for _, l := range lines {
		t.take(l)
	}
	t.translateGlobal()
	t.translateListeners()
	t.sortNotes()
	return &t.config
}

// sortNotes puts the notes into the order of the files.
func (t *translation) sortNotes() {
	order := map[string]int{}
	for i, l := range t.lines {
		order[l.At()] = i
	}
	slices.SortStableFunc(t.config.Notes, func(a, b Note) int { return order[a.At] - order[b.At] })
}

func (t *translation) note(at Line, format string, args ...any) {
	t.config.Notes = append(t.config.Notes, Note{at.At(), fmt.Sprintf(format, args...)})
}

// take sorts a line to whom it belongs.
func (t *translation) take(l Line) {
	kind, known := options()[l.Option]
	switch {
	case strings.HasPrefix(l.Option, "auth_opt_"), strings.HasPrefix(l.Option, "plugin_opt_"):
		return // belongs to a plugin, which is noted
	case !known:
		t.note(l, "%s: mosquitto 2.0 has no such option", l.Option)
		return
	case kind == ofBridge && t.bridge:
		return // the bridge is noted as a whole
	case kind == ofBridge && l.Option != "connection":
		t.note(l, "%s: belongs to no bridge", l.Option)
		return
	}
	switch l.Option {
	case "connection":
		t.bridge = true
		t.note(l, "bridge %s: pinseal has no bridges; %s", l.Value, t.bridgeTo(l))
	case "listener":
		t.bridge = false
		port, host, _ := strings.Cut(l.Value, " ")
		t.current = &section{line: l, port: port, host: strings.TrimSpace(host), options: map[string]Line{}}
		t.listeners = append(t.listeners, t.current)
	case "per_listener_settings":
		t.perListener = truth(l.Value)
	case "plugin", "auth_plugin":
		t.plugin = true
		t.note(l, "%s: who may do what is decided by a plugin, which has no counterpart; nobody is allowed anything on its word", l.Option)
	default:
		switch {
		case kind == ofListener, kind == ofSecurity && t.perListener:
			t.current.set(l)
		default:
			t.global.set(l)
		}
	}
}

// bridgeTo collects what the lines after a connection say about it.
func (t *translation) bridgeTo(connection Line) string {
	var words []string
	seen := false
	for _, l := range t.lines {
		switch {
		case l == connection:
			seen = true
		case seen && (l.Option == "connection" || l.Option == "listener"):
			seen = false
		case seen && (l.Option == "address" || l.Option == "addresses" || l.Option == "topic"):
			words = append(words, l.Option+" "+l.Value)
		}
	}
	return "mosquitto itself can stay as one: " + strings.Join(words, ", ")
}

// translateGlobal is about what holds for all listeners.
func (t *translation) translateGlobal() {
	g := &t.global
	t.config.Persistent = g.is("persistence")
	l := &t.config.Limits
	inflight := t.number("max_inflight_messages", 20)
	if t.given("max_queued_messages") {
		if queued := t.number("max_queued_messages", 0); queued > 0 {
			l.MaxInflight = queued + inflight
		} else {
			t.note(g.options["max_queued_messages"], "max_queued_messages 0: there is no queue without an end; the default of max_inflight holds")
		}
	}
	l.MaxInflightBytes = t.number("max_queued_bytes", 0)
	l.MaxPacketBytes = t.number("max_packet_size", 0)
	if payload := t.number("message_size_limit", 0); payload > 0 && (l.MaxPacketBytes == 0 || payload+packetOverhead < l.MaxPacketBytes) {
		l.MaxPacketBytes = payload + packetOverhead
		t.note(g.options["message_size_limit"], "message_size_limit: bounds payloads; max_packet_bytes bounds whole packets and is %d bytes more", packetOverhead)
	}
	l.MaxKeepAlive = time.Duration(t.number("max_keepalive", 0)) * time.Second
	if most := 12 * time.Hour; l.MaxKeepAlive > most {
		t.note(g.options["max_keepalive"], "max_keepalive: at most 12 hours here")
		l.MaxKeepAlive = most
	}
	t.config.MaxSessionExpiry = t.expiration()
	t.config.LogLevel = t.logLevel()
	for _, line := range t.lines {
		if text, without := uncounted()[line.Option]; without && (g.options[line.Option] == line) {
			t.note(line, "%s: %s", line.Option, text)
		}
	}
}

// maxNumber is more than anything here can have; two of them still fit 32 bits.
const maxNumber = 1<<30 - 1

// packetOverhead is room for the topic and the properties around a payload.
const packetOverhead = 1024

func (t *translation) given(option string) bool { _, ok := t.global.options[option]; return ok }

// number is a global option that counts something.
func (t *translation) number(option string, otherwise int) int {
	l, given := t.global.options[option]
	if !given {
		return otherwise
	}
	n, err := strconv.Atoi(l.Value)
	if err != nil || n < 0 {
		t.note(l, "%s: %q is not a number", option, l.Value)
		return otherwise
	}
	return min(n, maxNumber)
}

// expiration is persistent_client_expiration: a number and a unit.
func (t *translation) expiration() time.Duration {
	l, given := t.global.options["persistent_client_expiration"]
	if !given || l.Value == "" {
		return 0
	}
	const day = 24 * time.Hour
	units := map[byte]time.Duration{'h': time.Hour, 'd': day, 'w': 7 * day, 'm': 30 * day, 'y': 365 * day}
	unit, known := units[l.Value[len(l.Value)-1]]
	n, err := strconv.Atoi(l.Value[:len(l.Value)-1])
	if err != nil || !known || n < 1 || n > 100*365*24 || time.Duration(n) > time.Duration(1<<62)/unit {
		t.note(l, "persistent_client_expiration: %q is not a length of time such as 14d", l.Value)
		return 0
	}
	return time.Duration(n) * unit
}

// logLevel is the level that shows what the log_type lines ask for.
func (t *translation) logLevel() string {
	levels := map[string]string{"debug": "debug", "all": "debug", "websockets": "debug", "information": "info", "notice": "info", "subscribe": "info", "unsubscribe": "info", "warning": "warn", "error": "error", "none": "error"}
	order := []string{"debug", "info", "warn", "error"}
	lowest := len(order)
	for _, l := range t.lines {
		if level, known := levels[l.Value]; l.Option == "log_type" && known {
			lowest = min(lowest, slices.Index(order, level))
		}
	}
	if lowest == len(order) {
		return ""
	}
	return order[lowest]
}

// translateListeners is about each of them.
func (t *translation) translateListeners() {
	all := t.listeners
	if t.first.used() {
		all = append([]*section{&t.first}, all...)
	}
	if len(all) == 0 {
		t.localOnly()
		return
	}
	t.config.Open = !t.plugin
	shared := false
	for _, s := range all {
		l, why := t.listener(s)
		if why == "" {
			why = t.share(s, l, &shared)
		}
		if why != "" {
			t.note(s.place(), "%s is left out: %s", s.name(), why)
			continue
		}
		t.config.Listeners = append(t.config.Listeners, *l)
		t.noteOptions(s, l)
	}
	t.config.Open = t.config.Open && t.config.ACLFile == ""
}

// localOnly is what mosquitto does without a listener: everybody on this machine may come in.
func (t *translation) localOnly() {
	security := t.security(&t.first)
	t.config.PasswordFile, t.config.ACLFile = security.value("password_file"), security.value("acl_file")
	_, said := security.options["allow_anonymous"]
	anonymous := !said || security.is("allow_anonymous")
	t.config.Open = t.config.ACLFile == "" && !t.plugin
	if !anonymous && t.config.PasswordFile == "" {
		return // nobody could log in
	}
	t.config.Listeners = []Listener{{Address: "127.0.0.1:1883", AllowAnonymous: anonymous}}
}

// security is where the options for who may come in stand.
func (t *translation) security(s *section) *section {
	if t.perListener {
		return s
	}
	return &t.global
}

// used reports whether options before any listener line make one, as mosquitto has it.
func (s *section) used() bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(s.options)), func(option string) bool {
		return option != "allow_anonymous" && option != "acl_file" && option != "protocol"
	}) || s.value("protocol") == "websockets"
}

func (s *section) place() Line {
	if s.line.Option != "" {
		return s.line
	}
	first := Line{}
	for _, l := range s.options {
		if first.Option == "" || l.Number < first.Number {
			first = l
		}
	}
	return first
}

func (s *section) name() string {
	if s.line.Option != "" {
		return "listener " + s.line.Value
	}
	return "the listener that is described before any listener line"
}

// listener translates one, or says why that cannot be.
func (t *translation) listener(s *section) (l *Listener, why string) {
	l = &Listener{At: s.place().At(), MinTLS: "1.2", WebSocket: s.value("protocol") == "websockets"}
	if l.Address, why = s.address(); why != "" {
		return nil, why
	}
	if why = s.untranslatable(); why != "" {
		return nil, why
	}
	l.TLS = s.value("certfile") != "" || s.value("keyfile") != ""
	if l.TLS && s.value("capath") != "" {
		return nil, "its authorities are a folder (capath); put them into one file, one after the other, and name it with cafile"
	}
	if s.value("tls_version") == "tlsv1.3" {
		l.MinTLS = "1.3"
	}
	if n, err := strconv.Atoi(s.value("max_connections")); err == nil && n > 0 {
		l.MaxConnections = n
	}
	l.CertificateIsName = l.TLS && s.is("use_identity_as_username")
	l.RequireCertificate = l.TLS && (s.is("require_certificate") || l.CertificateIsName)
	if l.RequireCertificate && s.value("cafile") == "" {
		return nil, "it asks for certificates, and no cafile says from whom"
	}
	l.Plain = !l.TLS && !loopback(l.Address)
	l.AllowAnonymous = t.security(s).is("allow_anonymous") && !l.CertificateIsName
	if !l.AllowAnonymous && !l.CertificateIsName && t.security(s).value("password_file") == "" {
		return nil, "nobody could log in: there is neither allow_anonymous nor password_file for it"
	}
	return l, ""
}

// untranslatable says which option makes a listener another one than pinseal can have.
func (s *section) untranslatable() string {
	switch {
	case s.value("mount_point") != "":
		return "its topics have another name inside (mount_point)"
	case s.is("use_subject_as_username"):
		return "a name is a certificate's common name, not its whole subject (use_subject_as_username)"
	case s.value("bind_interface") != "":
		return "it is bound to an interface (bind_interface); write the interface's address into the listener line"
	case s.value("psk_hint") != "":
		return "Go's TLS has no pre-shared keys (psk_hint); stunnel can take them, see docs/broker.md"
	case s.value("protocol") != "" && s.value("protocol") != "mqtt" && s.value("protocol") != "websockets":
		return "it speaks " + s.value("protocol")
	}
	return ""
}

func (s *section) address() (address, why string) {
	port, host := s.port, s.host
	if s.line.Option == "" {
		port, host = s.value("port"), s.value("bind_address")
		if port == "" {
			port = "1883"
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil:
		return "", fmt.Sprintf("%q is not a port", port)
	case n == 0 && filepath.IsAbs(host):
		return host, ""
	case n == 0:
		return "", "port 0 is for Unix sockets, whose path begins with /"
	case host == "" && s.value("socket_domain") == "ipv4":
		host = "0.0.0.0"
	case host != "" && net.ParseIP(host) == nil && strings.ContainsFunc(host, notOfName):
		return "", fmt.Sprintf("%q is not an address", host)
	}
	return net.JoinHostPort(host, port), ""
}

// notOfName reports whether a host's name cannot have the rune.
func notOfName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

// loopback reports whether nobody but this machine can reach the address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return filepath.IsAbs(address) || err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// share holds a listener's files against those of the listeners before it: pinseal has one of each for all.
func (t *translation) share(s *section, l *Listener, shared *bool) (why string) {
	security := t.security(s)
	passwords, acl := security.value("password_file"), security.value("acl_file")
	c := &t.config
	if l.CertificateIsName {
		passwords = "" // is not asked there
	}
	switch {
	case *shared && acl != c.ACLFile:
		return "it has another acl_file than the listeners above, and there is one for all"
	case passwords != "" && c.PasswordFile != "" && passwords != c.PasswordFile:
		return "it has another password_file than the listeners above, and there is one for all"
	case passwords == "" && c.PasswordFile != "" && l.AllowAnonymous && t.perListener:
		t.note(s.place(), "%s: clients that give a user name are asked for its password here, too", s.name())
	}
	if l.TLS {
		if why := t.shareTLS(s, l); why != "" {
			return why
		}
	}
	*shared, c.ACLFile = true, acl
	if passwords != "" {
		c.PasswordFile = passwords
	}
	return ""
}

// shareTLS does so with what TLS needs. Authorities matter only where a certificate is asked for.
func (t *translation) shareTLS(s *section, l *Listener) (why string) {
	has, wants := &t.config.TLS, TLS{s.value("cafile"), s.value("certfile"), s.value("keyfile"), s.value("crlfile")}
	if l.RequireCertificate {
		if has.CA != "" && (has.CA != wants.CA || has.CRL != wants.CRL) {
			return "it has other authorities or another crlfile than the TLS listeners above, and there is one set for all"
		}
		has.CA, has.CRL = wants.CA, wants.CRL
	}
	switch {
	case has.Certificate == "":
		has.Certificate, has.Key = wants.Certificate, wants.Key
	case has.Certificate != wants.Certificate || has.Key != wants.Key:
		t.note(s.place(), "%s: shows the certificate of the TLS listeners above: there is one for all", s.name())
	}
	return ""
}

// noteOptions notes what of a listener has no counterpart.
func (t *translation) noteOptions(s *section, l *Listener) {
	for _, line := range t.lines {
		text, without := uncounted()[line.Option]
		switch {
		case s.options[line.Option] != line:
		case without:
			t.note(line, "%s: %s", line.Option, text)
		case line.Option == "tls_version" && line.Value != "tlsv1.2" && line.Value != "tlsv1.3":
			t.note(line, "tls_version %s: TLS 1.2 is the oldest there is", line.Value)
		case line.Option == "max_qos" && line.Value != "2":
			t.note(line, "max_qos: is a matter of rules here: max_qos in [[acl]]")
		}
	}
	if l.WebSocket {
		t.note(s.place(), "%s: web pages from elsewhere are refused until they are named in origins, which mosquitto does not ask for", s.name())
	}
	if l.Plain {
		t.note(s.place(), "%s: without TLS everybody on the way can read and change everything; allow_plain = true lets it be so", s.name())
	}
	if l.AllowAnonymous && t.security(s).value("password_file") == "" {
		t.note(s.place(), "%s: clients that give a user name are refused here, because nobody could check it", s.name())
	}
}
