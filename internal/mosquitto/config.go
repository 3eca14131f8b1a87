package mosquitto

import "time"

// Config is what a configuration means to pinseal's broker.
type Config struct {
	Listeners []Listener
	// TLS is what the listeners with TLS have in common.
	TLS TLS
	// PasswordFile and ACLFile are those of every listener; empty for none.
	PasswordFile, ACLFile string
	// Open says that mosquitto lets whoever is let in do everything, because it has no ACL file and no plugin that could
	// say otherwise.
	Open bool
	// Persistent says that sessions and retained messages are kept over a restart.
	Persistent bool
	// MaxSessionExpiry is zero where mosquitto keeps sessions for ever.
	MaxSessionExpiry time.Duration
	// Limits are zero where nothing is said.
	Limits Limits
	// LogLevel is "debug", "info", "warn" or "error"; empty where nothing is said.
	LogLevel string
	// Notes are in the order of the files.
	Notes []Note
}

// Limits are those of every client.
type Limits struct {
	MaxPacketBytes, MaxInflight, MaxInflightBytes int
	MaxKeepAlive                                  time.Duration
}

// TLS names files.
type TLS struct{ CA, Certificate, Key, CRL string }

// Listener is one way in.
type Listener struct {
	At             string // where it is written; empty for that of a configuration without one
	Address        string // HOST:PORT, or the path of a Unix socket
	TLS            bool
	MinTLS         string // "1.2" or "1.3"
	Plain          bool   // no TLS, on an address that others can reach
	WebSocket      bool
	MaxConnections int
	// RequireCertificate, CertificateIsName and AllowAnonymous are pinseal's options of the same names.
	RequireCertificate, CertificateIsName, AllowAnonymous bool
}

// Note is something that a person has to know.
type Note struct {
	At   string // file and line, or the file alone
	Text string
}
