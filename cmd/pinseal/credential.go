package main

import (
	"os"
	"path/filepath"
)

// Names of the keys that systemd can hand over (LoadCredential=, LoadCredentialEncrypted=; systemd.exec(5)).
const (
	signCredential   = "sign.key"
	brokerCredential = "broker.key"
	agentCredential  = "agent.key" // for a broker elsewhere
)

// credential is the path of a key: that which systemd handed over under this name, or else the given one.
func credential(name, otherwise string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if path := filepath.Join(dir, name); dir != "" && exists(path) {
		return path
	}
	return otherwise
}
